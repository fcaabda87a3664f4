"""Totals: what was served in one minute, per operation, caller and outcome.

`fold` is the whole arithmetic: pure, and additive, so that the totals of several batches are the
sum of theirs in any order.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from analytics.outcome import Outcome, outcome_of
from analytics.sketch import LatencySketch, bucket_of
from bus.route_key import RouteKey
from bus.usage import AccessLogGap, RequestsServed

MINUTE_MS = 60_000
NAME_MAX = 256  # characters of an API's handle or an application that are told apart
PATH_MAX = 2048


class Series(NamedTuple):
    """What a total is about."""

    api: str  # handle; empty: no API had a route for it
    method: str  # of the operation as declared; empty when unrouted
    path: str  # of the operation as declared, context included; a bare route name if Envoy's own
    application: str  # empty: not known
    status_class: int  # 1 to 5 for 1xx to 5xx; 0: no answer
    outcome: Outcome
    subscription: str = ""  # its id; empty: nobody asked
    shadow: str = ""  # policies that would have refused, in shadow mode: names with commas between


@dataclass(slots=True)
class Total:
    """How much of it."""

    requests: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    duration_us: int = 0  # sum
    upstream_us: int = 0  # sum
    latency: LatencySketch = field(default_factory=LatencySketch)

    def merge(self, other: "Total") -> None:
        """Add all of `other`."""
        self.requests += other.requests
        self.request_bytes += other.request_bytes
        self.response_bytes += other.response_bytes
        self.duration_us += other.duration_us
        self.upstream_us += other.upstream_us
        self.latency.merge(other.latency)


Totals = dict[tuple[int, Series], Total]
"""By minute (Unix time / 60 s) and series."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Requests that were served and are in no total."""

    node: str
    entries: int
    since_ms: int
    until_ms: int
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """One event of the bus, folded; the store counts each id once."""

    event_id: str
    totals: Totals = field(default_factory=dict)
    gap: Gap | None = None

    @property
    def entries(self) -> int:
        """Requests in it."""
        return sum(total.requests for total in self.totals.values())


def fold(event: RequestsServed) -> Totals:
    """The totals of one batch."""
    since_ms, width = event.since_ms, len(event.groups)
    cells: dict[int, Total] = {}
    for group, after_ms, duration_us, upstream_us, request_bytes, response_bytes in zip(
        event.group,
        event.after_ms,
        event.duration_us,
        event.upstream_us,
        event.request_bytes,
        event.response_bytes,
        strict=True,
    ):
        place = (since_ms + after_ms) // MINUTE_MS * width + group
        cell = cells.get(place)
        if cell is None:
            cell = cells[place] = Total()
        cell.requests += 1
        cell.request_bytes += request_bytes
        cell.response_bytes += response_bytes
        cell.duration_us += duration_us
        cell.upstream_us += upstream_us
        buckets, bucket = cell.latency.buckets, bucket_of(duration_us)
        buckets[bucket] = buckets.get(bucket, 0) + 1
    totals: Totals = {}
    for place, cell in cells.items():
        minute, group = divmod(place, width)
        shared = event.groups[group]
        series = series_of(
            shared.route,
            shared.application,
            shared.status,
            shared.details,
            shared.subscription,
            shared.shadow,
        )
        known = totals.setdefault((minute, series), cell)
        if known is not cell:
            known.merge(cell)
    return totals


def gap_of(event: AccessLogGap) -> Gap:
    """The loss that `event` tells of."""
    return Gap(event.node, event.entries, event.since_ms, event.until_ms, event.reason)


def summed(parts: Iterable[Totals]) -> Totals:
    """All of `parts` in one, which shares nothing with them."""
    result: Totals = {}
    for part in parts:
        add_up(result, part)
    return result


def add_up(totals: Totals, part: Totals) -> None:
    """Add `part` to `totals`, which shares nothing with it."""
    for place, total in part.items():
        totals.setdefault(place, Total()).merge(total)


@lru_cache(maxsize=16_384)
def series_of(
    route: str,
    application: str,
    status: int,
    details: str,
    subscription: str = "",
    shadow: tuple[str, ...] = (),
) -> Series:
    """Where a request is counted."""
    key = RouteKey.parse(route)
    outcome = outcome_of(status, details, routed=key is not None)
    status_class = status // 100 if status < 600 else 0
    caller, by = application[:NAME_MAX], subscription[:NAME_MAX]
    names = sorted({one.partition(":")[0] for one in shadow})
    would = ",".join(names)[:NAME_MAX]
    if key is None:
        return Series("", "", route[:PATH_MAX], caller, status_class, outcome, by, would)
    return Series(
        key.api[:NAME_MAX],
        key.method[:NAME_MAX],
        key.path[:PATH_MAX],
        caller,
        status_class,
        outcome,
        by,
        would,
    )
