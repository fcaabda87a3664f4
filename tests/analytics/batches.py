"""Usage events to test with."""

from collections.abc import Iterable
from typing import NamedTuple

from bus.usage import RequestsServed, ServedGroup

HOUR_MS = 1_763_856_000_000  # 2025-11-23T00:00:00Z
HOUR_MINUTE = HOUR_MS // 60_000
WEATHER = "GET|/weather/v1/{city}|*|weather"
ORDERS = "POST|/orders/v1/orders|*|orders"


class Call(NamedTuple):
    """One request."""

    at_ms: int = HOUR_MS
    route: str = WEATHER
    status: int = 200
    details: str = "via_upstream"
    application: str = ""
    duration_us: int = 2_000
    upstream_us: int = 1_500
    request_bytes: int = 100
    response_bytes: int = 1_000
    subscription: str = ""
    shadow: tuple[str, ...] = ()


def served(calls: Iterable[Call], node: str = "router-1") -> RequestsServed:
    """The event that tells of `calls`."""
    told = list(calls)
    since_ms = min(call.at_ms for call in told)
    groups: dict[tuple[str, str, str, int, str, tuple[str, ...]], int] = {}
    group = [
        groups.setdefault(
            (
                *(call.route, call.application, call.subscription),
                *(call.status, call.details, call.shadow),
            ),
            len(groups),
        )
        for call in told
    ]
    return RequestsServed(
        node=node,
        since_ms=since_ms,
        groups=tuple(
            ServedGroup(
                route=route,
                application=application,
                subscription=subscription,
                status=status,
                details=details,
                shadow=shadow,
            )
            for route, application, subscription, status, details, shadow in groups
        ),
        group=tuple(group),
        after_ms=tuple(call.at_ms - since_ms for call in told),
        duration_us=tuple(call.duration_us for call in told),
        upstream_us=tuple(call.upstream_us for call in told),
        request_bytes=tuple(call.request_bytes for call in told),
        response_bytes=tuple(call.response_bytes for call in told),
    )
