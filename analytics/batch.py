"""Access-log entries of Envoy, as the columns of a usage event.

This runs for every request the gateway serves: one pass, no object per entry. A Duration or
Timestamp that is not set reads as zero.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from analytics.recorded_headers import RecordedHeaders
from bus.usage import APPLICATION_HEADER, SUBSCRIPTION_HEADER, RequestsServed, ServedGroup
from policy_engine.hooks import SHADOW_NAMESPACE
from policy_engine.shadow import RBAC_NAMESPACE, reports

_SPECIFICS = re.compile(r"[{(\[].*", re.DOTALL)  # `rbac_access_denied_matched_policy[none]`
_DETAILS_MAX = 64
_STATUS_MAX = 999
_MOMENT_MAX = (1 << 42) - 1
_NUMBER_MAX = (1 << 48) - 1  # what a column of the event takes, as above a moment


def requests_served(node: str, entries: Sequence[Any]) -> RequestsServed:
    """The event that tells of `entries`: `envoy.data.accesslog.v3.HTTPAccessLogEntry`, at least 1.

    The longest prefix of the response code details that is not about one request is kept.
    """
    groups: dict[tuple[str, str, str, int, str, tuple[str, ...]], int] = {}
    group: list[int] = []
    at_ms: list[int] = []
    duration_us: list[int] = []
    upstream_us: list[int] = []
    request_bytes: list[int] = []
    response_bytes: list[int] = []
    recorded = RecordedHeaders()
    for entry in entries:
        common, request, response = entry.common_properties, entry.request, entry.response
        logged = request.request_headers
        key = (
            common.route_name,
            logged.get(APPLICATION_HEADER, ""),
            logged.get(SUBSCRIPTION_HEADER, ""),
            response.response_code.value,
            response.response_code_details,
            _shadow(common.metadata.filter_metadata),
        )
        group.append(groups.setdefault(key, len(groups)))
        start, whole = common.start_time, common.duration
        asked, answered = (
            common.time_to_first_upstream_tx_byte,
            common.time_to_last_upstream_rx_byte,
        )
        at_ms.append(start.seconds * 1000 + start.nanos // 1_000_000)
        duration_us.append(whole.seconds * 1_000_000 + whole.nanos // 1000)
        upstream_us.append(
            (answered.seconds - asked.seconds) * 1_000_000 + (answered.nanos - asked.nanos) // 1000
        )
        request_bytes.append(request.request_headers_bytes + request.request_body_bytes)
        response_bytes.append(response.response_headers_bytes + response.response_body_bytes)
        recorded.take(common, request.request_headers, response.response_headers)
    since_ms = min(max(min(at_ms), 0), _MOMENT_MAX)
    return RequestsServed(
        node=node,
        since_ms=since_ms,
        groups=tuple(
            ServedGroup(
                route=route,
                application=unquote(application),  # the router escapes it
                subscription=subscription,
                status=min(status, _STATUS_MAX),
                details=_SPECIFICS.sub("", details)[:_DETAILS_MAX],
                shadow=shadow,
            )
            for route, application, subscription, status, details, shadow in groups
        ),
        group=tuple(group),
        after_ms=_column(at - since_ms for at in at_ms),
        duration_us=_column(duration_us),
        upstream_us=_column(upstream_us),
        request_bytes=_column(request_bytes),
        response_bytes=_column(response_bytes),
        **recorded.fields(),
    )


def _shadow(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """What policies in shadow mode have reported."""
    if SHADOW_NAMESPACE not in metadata and RBAC_NAMESPACE not in metadata:
        return ()
    return tuple(
        f"{policy}: {_SPECIFICS.sub('', reason)[:_DETAILS_MAX]}"
        for policy, reason in reports(metadata)
    )


def _column(numbers: Iterable[int]) -> tuple[int, ...]:
    """Clocks step back, and a broken peer may say anything: 0 to the most that a column takes."""
    return tuple([0 if one < 0 else min(one, _NUMBER_MAX) for one in numbers])
