"""What became of a request, as seen from the gateway: the reason behind a status."""

from enum import StrEnum
from http import HTTPStatus

_ANSWERED = frozenset({"", "via_upstream", "direct_response"})
"""Response code details when the upstream, or a policy that answers by design, has spoken."""


class Outcome(StrEnum):
    """Who gave the answer, and why."""

    SERVED = "served"  # the upstream, or a policy that answers by design (any status)
    UNAUTHENTICATED = "unauthenticated"  # refused: no valid key, token or password
    FORBIDDEN = "forbidden"  # refused: known, but not allowed
    LIMITED = "limited"  # refused: over a rate limit or quota
    REJECTED = "rejected"  # refused: malformed, too large, or stopped by a guard
    UNROUTED = "unrouted"  # no API has such a route
    UNAVAILABLE = "unavailable"  # the upstream did not answer, or not in time; overload
    ABANDONED = "abandoned"  # the caller left before the answer


REFUSED = frozenset({Outcome.UNAUTHENTICATED, Outcome.FORBIDDEN, Outcome.LIMITED, Outcome.REJECTED})
"""A policy or the gateway's own rules said no; the upstream was not asked."""

TIMED = frozenset({Outcome.SERVED, Outcome.UNAVAILABLE})
"""Counted in the latency percentiles: answers that take no work would hide those that do."""

_REFUSALS: dict[int, Outcome] = {
    HTTPStatus.UNAUTHORIZED: Outcome.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: Outcome.FORBIDDEN,
    HTTPStatus.TOO_MANY_REQUESTS: Outcome.LIMITED,
}


def outcome_of(status: int, details: str, *, routed: bool) -> Outcome:
    """What became of a request that Envoy logged with this status and response code details.

    `routed`: an operation of an API was found for it.
    """
    if status == 0 or details.startswith("downstream_"):
        return Outcome.ABANDONED
    if not routed and status == HTTPStatus.NOT_FOUND:
        return Outcome.UNROUTED
    if details in _ANSWERED or status < HTTPStatus.BAD_REQUEST:
        return Outcome.SERVED  # below 400: a filter has answered (preflight), nobody was refused
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Outcome.UNAVAILABLE
    return _REFUSALS.get(status, Outcome.REJECTED)
