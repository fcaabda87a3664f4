"""The access log of a listener: every request, batched, to the analytics component over gRPC."""

from collections.abc import Iterable
from typing import Any

from bus.usage import APPLICATION_HEADER, SUBSCRIPTION_HEADER

_BUFFER_BYTES = 65_536  # about 150 requests per message
_FLUSH_INTERVAL = "0.5s"


def access_log_config(
    cluster: str, request_headers: Iterable[str] = (), response_headers: Iterable[str] = ()
) -> dict[str, Any]:
    """One `access_log` entry of the HTTP connection manager; `cluster` speaks HTTP/2.

    `request_headers` and `response_headers` are recorded, beside who calls.
    Envoy gets no acknowledgements. What it flushes while nobody listens on the cluster's address
    is lost without a trace in its counters; while somebody holds the listening socket, Envoy keeps
    up to its stream window (16 MiB) and counts what it drops then (`logs_dropped`).
    """
    return {
        "name": "envoy.access_loggers.http_grpc",
        "typed_config": {
            "@type": "type.googleapis.com/"
            "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
            "common_config": {
                "log_name": "signalbox",
                "grpc_service": {"envoy_grpc": {"cluster_name": cluster}},
                "transport_api_version": "V3",
                "buffer_size_bytes": _BUFFER_BYTES,
                "buffer_flush_interval": _FLUSH_INTERVAL,
            },
            "additional_request_headers_to_log": [
                APPLICATION_HEADER,
                SUBSCRIPTION_HEADER,
                *sorted(set(request_headers)),
            ],
            "additional_response_headers_to_log": sorted(set(response_headers)),
        },
    }
