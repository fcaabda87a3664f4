"""Keys that the router fetches, for filters that verify tokens."""

from policy_engine.policy import Document, Service
from policy_engine.system import SystemParameters


def remote_jwks(service: Service, system: SystemParameters) -> Document:
    """A `RemoteJwks`, fetched before the first token comes; nothing waits for who is away.

    Source: envoy.extensions.filters.http.jwt_authn.v3.RemoteJwks
    """
    return {
        "http_uri": {
            "uri": service.url,
            "cluster": service.cluster,
            "timeout": f"{system.jwks_fetch_timeout_s:.3f}s",
        },
        "cache_duration": f"{system.jwks_cache_ttl_s:.3f}s",
        "async_fetch": {
            "fast_listener": True,
            "failed_refetch_duration": f"{system.jwks_fetch_retry_interval_s:.3f}s",
        },
    }
