"""A real Envoy that asks a real rate limiter, and calls as Envoy makes them."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from policy_engine.policy import typed
from policy_engine.rate_limits.limits import LIMIT_ENTRY, Quota, encode
from tests.servers.envoy import envoy
from xds.wire.messages import message_class

HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
ROUTER = "envoy.extensions.filters.http.router.v3.Router"
RATELIMIT = "envoy.extensions.filters.http.ratelimit.v3.RateLimit"
HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
DOMAIN = "signalbox"

RateLimitRequest = message_class("envoy.service.ratelimit.v3.RateLimitRequest")
RateLimitResponse = message_class("envoy.service.ratelimit.v3.RateLimitResponse")

Document = dict[str, Any]


def call(
    *descriptors: tuple[Quota, Sequence[tuple[str, str]]],
    hits: int | None = None,
    negative: bool = False,
) -> bytes:
    """A call as Envoy serializes it."""
    request = RateLimitRequest(domain=DOMAIN)
    for quota, parts in descriptors:
        descriptor = request.descriptors.add()
        descriptor.entries.add(key=LIMIT_ENTRY, value=encode(quota))
        for key, value in parts:
            descriptor.entries.add(key=key, value=value)
        if hits is not None:
            descriptor.hits_addend.value = hits
        descriptor.is_negative_hits = negative
    return bytes(request.SerializeToString())


def actions(quota: Quota, header: str | None = "x-client") -> list[Document]:
    """Counted per value of a header, or for everybody together."""
    made: list[Document] = [
        {"generic_key": {"descriptor_key": LIMIT_ENTRY, "descriptor_value": encode(quota)}}
    ]
    if header is not None:
        made.append({"request_headers": {"header_name": header, "descriptor_key": "client"}})
    return made


def limiting(rate_limits: list[Document], **fields: Any) -> Document:
    """The filter, with what it asks about."""
    return {
        "name": "limit",
        "typed_config": typed(
            RATELIMIT,
            {
                "domain": DOMAIN,
                "timeout": "5s",
                "failure_mode_deny": True,
                "status_on_error": {"code": "ServiceUnavailable"},
                "disable_x_envoy_ratelimited_header": True,
                "rate_limits": rate_limits,
                "rate_limit_service": {
                    "grpc_service": {"envoy_grpc": {"cluster_name": "ratelimiter"}},
                    "transport_api_version": "V3",
                },
                **fields,
            },
        ),
    }


def cluster(name: str, address: Document, *, http2: bool = False) -> Document:
    document: Document = {
        "name": name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }
    if http2:
        document["typed_extension_protocol_options"] = {
            HTTP_OPTIONS: typed(
                HTTP_OPTIONS, {"explicit_http_config": {"http2_protocol_options": {}}}
            )
        }
    return document


def where(address: str) -> Document:
    """A gRPC name as Envoy's address."""
    if address.startswith("unix:"):
        return {"pipe": {"path": address.removeprefix("unix:")}}
    host, _, port = address.rpartition(":")
    return {"socket_address": {"address": host, "port_value": int(port)}}


def bootstrap(
    address: str, upstream: int, filters: list[Document], port: int = 0, **route: Any
) -> Document:
    manager = {
        "stat_prefix": "http",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {"match": {"prefix": "/"}, "route": {"cluster": "up", **route}},
                    ],
                }
            ]
        },
        "http_filters": [*filters, {"name": "router", "typed_config": typed(ROUTER)}],
    }
    listener = {
        "name": "http",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": typed(HCM, manager)}]}],
    }
    return {
        "static_resources": {
            "listeners": [listener],
            "clusters": [
                cluster("up", where(f"127.0.0.1:{upstream}")),
                cluster("ratelimiter", where(address), http2=True),
            ],
        }
    }


@asynccontextmanager
async def router(
    address: str, upstream: int, *filters: Document, concurrency: int = 1
) -> AsyncIterator[str]:
    """URL of an Envoy with these filters, that asks the limiter at `address`."""
    config = bootstrap(address, upstream, list(filters))
    async with envoy(config, concurrency=concurrency) as running:
        yield f"http://127.0.0.1:{await running.port('http')}"


def socket_in(folder: Path) -> Path:
    return folder / "rl.sock"
