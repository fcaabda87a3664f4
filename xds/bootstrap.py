"""What a router is started with: where its configuration comes from, and its own limits."""

import ipaddress
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from policy_engine.hop import ENGINE_CLUSTER
from policy_engine.policy import typed
from policy_engine.rate_limits.balanced_limits import QUOTAS_CLUSTER
from policy_engine.rate_limits.limits import RATELIMITER_CLUSTER
from xds.ads.codec import PORTS
from xds.settings import XdsSettings

Document = dict[str, Any]

XDS_CLUSTER, ACCESS_LOG_CLUSTER = "signalbox-xds", "signalbox-access-log"
_MANY_AT_ONCE: Document = {"thresholds": [{"max_requests": 16_384}]}  # one per request
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_STATS = (
    "cluster.*.upstream_rq_",
    "cluster_manager.",
    "http.http.",
    "http.https.",
    "listener_manager.",
    "overload.",
    "server.",
)

RUNTIME: Document = {
    # parts of a rate limit's key are format strings, with a value for what a request lacks
    "envoy.reloadable_features.enable_formatter_for_ratelimit_action_descriptor_value": True,
}
"""Envoy's runtime flags that what is compiled relies on."""


def bootstrap(
    settings: XdsSettings,
    *,
    node: str,
    xds_socket: Path | None = None,
    xds_address: tuple[str, int] | None = None,
    access_log_socket: Path | None = None,
    access_log_address: tuple[str, int] | None = None,
    ratelimiter_socket: Path | None = None,
    ratelimiter_address: tuple[str, int] | None = None,
    quota_socket: Path | None = None,
    quota_address: tuple[str, int] | None = None,
    engine: Sequence[Path | tuple[str, int]] = (),
    ports: Mapping[str, int] = MappingProxyType({}),
) -> Document:
    """Envoy's bootstrap. Each service is reached by its Unix socket or its TCP address.

    `engine`: one for each worker of the policy engine; without any, Python policies fail as
    declared. `ports`: where this router listens instead, by the name of the listener.
    """
    clusters = [_service(XDS_CLUSTER, xds_socket, xds_address)]
    if xds_address is not None and settings.xds_server_ca_file is not None:
        clusters[0]["transport_socket"] = _tls(
            settings, settings.xds_server_ca_file, xds_address[0]
        )
    if access_log_socket is not None or access_log_address is not None:
        clusters.append(_service(ACCESS_LOG_CLUSTER, access_log_socket, access_log_address))
    if ratelimiter_socket is not None or ratelimiter_address is not None:
        limiter = _service(RATELIMITER_CLUSTER, ratelimiter_socket, ratelimiter_address)
        clusters.append(limiter | {"circuit_breakers": _MANY_AT_ONCE})
    if quota_socket is not None or quota_address is not None:
        clusters.append(_service(QUOTAS_CLUSTER, quota_socket, quota_address))
    workers = service_cluster(ENGINE_CLUSTER, engine)
    clusters.append(workers | {"circuit_breakers": _MANY_AT_ONCE})
    ads: Document = {"ads": {}, "resource_api_version": "V3"}
    max_heap_bytes = settings.max_heap_mb << 20
    return {
        "node": {
            "id": node,
            "cluster": "signalbox",
            **({"metadata": {PORTS: dict(ports)}} if ports else {}),
        },
        "admin": {
            "address": {
                "socket_address": {
                    "address": "127.0.0.1",
                    "port_value": settings.envoy_admin_port,
                }
            }
        },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": XDS_CLUSTER}}],
                "set_node_on_first_message_only": True,
            },
            "lds_config": ads,
            "cds_config": ads,
        },
        "static_resources": {"clusters": clusters},
        # a name that nobody answers for must not hold up the clusters that come after it
        "typed_dns_resolver_config": {
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": typed(
                "envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                {"query_timeout_seconds": 1, "query_tries": 2},
            ),
        },
        "layered_runtime": {"layers": [{"name": "signalbox", "static_layer": RUNTIME}]},
        # 20 KB a cluster instead of 48: only what dashboards show is counted
        "stats_config": {
            "stats_matcher": {
                "inclusion_list": {
                    "patterns": [
                        {"prefix": prefix}
                        for prefix in _STATS
                        if not prefix.startswith("cluster.*")
                    ]
                    + [{"prefix": f"cluster.{XDS_CLUSTER}."}]
                }
            }
        },
        "overload_manager": {
            "refresh_interval": "0.25s",
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.fixed_heap",
                    "typed_config": typed(
                        "envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig",
                        {"max_heap_size_bytes": max_heap_bytes},
                    ),
                },
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": typed(
                        "envoy.extensions.resource_monitors.downstream_connections.v3"
                        ".DownstreamConnectionsConfig",
                        {
                            "max_active_downstream_connections": (
                                settings.max_downstream_connections
                            )
                        },
                    ),
                },
            ],
            "actions": [
                _overload("envoy.overload_actions.shrink_heap", 0.95),
                _overload("envoy.overload_actions.stop_accepting_requests", 0.98),
            ],
        },
    }


def _overload(name: str, at: float) -> Document:
    return {
        "name": name,
        "triggers": [{"name": "envoy.resource_monitors.fixed_heap", "threshold": {"value": at}}],
    }


def _tls(settings: XdsSettings, authority: Path, host: str) -> Document:
    """The service must be `host` by a certificate of `authority`; the router shows its own."""
    try:
        ipaddress.ip_address(host)
        name: Document = {"san_type": "IP_ADDRESS", "matcher": {"exact": host}}
        sni: Document = {}
    except ValueError:
        name = {"san_type": "DNS", "matcher": {"exact": host}}
        sni = {"sni": host}
    common: Document = {
        "alpn_protocols": ["h2"],
        "validation_context": {
            "trusted_ca": {"filename": str(authority)},
            "match_typed_subject_alt_names": [name],
        },
    }
    if settings.xds_tls_certificate_file is not None:
        common["tls_certificates"] = [
            {
                "certificate_chain": {"filename": str(settings.xds_tls_certificate_file)},
                "private_key": {"filename": str(settings.xds_tls_key_file)},
            }
        ]
    context = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": typed(context, {**sni, "common_tls_context": common}),
    }


def _service(name: str, path: Path | None, address: tuple[str, int] | None) -> Document:
    """A cluster for one of our own gRPC services."""
    if path is None and address is None:
        raise ValueError(f"{name} has neither a socket nor an address")
    return service_cluster(name, [path] if path is not None else [address])


def service_cluster(name: str, places: Sequence[Path | tuple[str, int] | None]) -> Document:
    """A cluster for one of our own gRPC services that runs in all of `places`.

    A place is a Unix socket, or a host and a port.
    """
    addresses: list[Document] = []
    resolved = True
    for place in places:
        if isinstance(place, Path):
            addresses.append({"pipe": {"path": str(place)}})
        elif place is not None:
            host, port = place
            addresses.append({"socket_address": {"address": host, "port_value": port}})
            resolved = resolved and host.replace(".", "").isdigit()
    return {
        "name": name,
        "type": "STATIC" if resolved else "STRICT_DNS",
        "connect_timeout": "1s",
        **({"lb_policy": "LEAST_REQUEST"} if len(addresses) > 1 else {}),
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": one}} for one in addresses]}],
        },
        "typed_extension_protocol_options": {
            _HTTP_OPTIONS: typed(
                _HTTP_OPTIONS,
                {
                    "explicit_http_config": {
                        "http2_protocol_options": {
                            "connection_keepalive": {"interval": "10s", "timeout": "5s"}
                        }
                    }
                },
            )
        },
    }
