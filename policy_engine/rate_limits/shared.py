"""Limits that all routers hold together: each request asks the rate limiter, which asks Redis."""

from collections.abc import Sequence

from policy_engine.policy import Document, Scope, typed
from policy_engine.rate_limits.limits import (
    LIMIT_ENTRY,
    RATELIMITER_CLUSTER,
    Hits,
    Quota,
    WhenAway,
    encode,
)
from policy_engine.rate_limits.quota import Counted

DOMAIN = "signalbox"
_FILTER = "envoy.extensions.filters.http.ratelimit.v3.RateLimit"


def caller(
    quotas: Sequence[Counted],
    scope: Scope,
    *,
    marked: Document | None = None,
    shadow: bool = False,
) -> Document:
    """A `ratelimit` filter's configuration that asks about all of `quotas` at once.

    When the rate limiter itself is away, requests pass, or are refused with 503 if limits fail
    closed. `marked`: a HeaderValueOption put on what it refuses.
    """
    away = WhenAway(scope.system.ratelimit_when_away)
    rate_limits: list[Document] = []
    for one in quotas:
        afterwards = one.cost is not None and one.cost.afterwards
        first = one.quota(
            scope, Hits.CHECK if afterwards else Hits.CONSUME, when_away=away, shadow=shadow
        )
        asked = {"actions": [limit_entry(first), *one.key.actions]}
        if one.cost is None:
            rate_limits.append(asked)
            continue
        hits = {"hits_addend": {"format": one.cost.hits}}
        if not afterwards:
            rate_limits.append(asked | hits)
            continue
        charged = one.quota(scope, Hits.CHARGE, when_away=away, shadow=shadow)
        rate_limits += [
            asked,
            {
                "actions": [limit_entry(charged), *one.key.actions],
                "apply_on_stream_done": True,
                **hits,
            },
        ]
    return asking(rate_limits, scope, marked=marked, shadow=shadow)


def asking(
    rate_limits: Sequence[Document],
    scope: Scope,
    *,
    marked: Document | None = None,
    shadow: bool = False,
) -> Document:
    """A `ratelimit` filter's configuration that asks about `rate_limits`.

    `shadow`: nobody is refused, not even while there is no answer.
    """
    system = scope.system
    closed = WhenAway(system.ratelimit_when_away) is WhenAway.CLOSED and not shadow
    return typed(
        _FILTER,
        {
            "domain": DOMAIN,
            "timeout": f"{system.ratelimit_timeout_s:.3f}s",
            "failure_mode_deny": closed,
            **({"status_on_error": {"code": "ServiceUnavailable"}} if closed else {}),
            "disable_x_envoy_ratelimited_header": True,
            "rate_limits": list(rate_limits),
            "rate_limit_service": {
                "grpc_service": {"envoy_grpc": {"cluster_name": RATELIMITER_CLUSTER}},
                "transport_api_version": "V3",
            },
            **({} if marked is None else {"response_headers_to_add": [marked]}),
        },
    )


def limit_entry(quota: Quota) -> Document:
    """The action for the first entry of a descriptor: what is to be held."""
    return {"generic_key": {"descriptor_key": LIMIT_ENTRY, "descriptor_value": encode(quota)}}
