"""Totals into the lines of a report."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

from analytics.errors import InvalidQuery
from analytics.outcome import REFUSED, TIMED
from analytics.ports import MINUTES_PER_HOUR, Row
from analytics.query import Group, Period, at
from analytics.sketch import LatencySketch
from analytics.totals import MINUTE_MS

_LINES_MAX = 50_000
_TURN_ROWS = 500  # rows after which others get the event loop

_NAMES: dict[Group, Callable[[Row, int], dict[str, str]]] = {
    "api": lambda row, _: {"api": row.series.api},
    "operation": lambda row, _: {"method": row.series.method, "path": row.series.path},
    "application": lambda row, _: {"application": row.series.application},
    "subscription": lambda row, _: {"subscription": row.series.subscription},
    "shadow": lambda row, _: {"shadow": row.series.shadow},
    "status": lambda row, _: {
        "status": f"{row.series.status_class}xx" if row.series.status_class else "none",
        "outcome": row.series.outcome.value,
    },
    "minute": lambda row, step: {"time": _time(row.minute - row.minute % step)},
    "hour": lambda row, _: {"time": _time(row.minute - row.minute % MINUTES_PER_HOUR)},
}


def _time(minute: int) -> str:
    return at(minute * MINUTE_MS)


@dataclass(slots=True)
class Line:
    """What one group of totals adds up to."""

    names: dict[str, str]  # by column, what was grouped by
    requests: int = 0
    errors: int = 0  # 5xx
    client_errors: int = 0  # 4xx, refusals not counted
    refused: int = 0
    would_refuse: int = 0  # passed, but a policy in shadow mode would have refused
    request_bytes: int = 0
    response_bytes: int = 0
    timed: int = 0  # requests that the durations are of
    duration_us: int = 0  # sum
    upstream_us: int = 0  # sum
    latency: LatencySketch = field(default_factory=LatencySketch)

    def add(self, row: Row) -> None:
        """Add one total."""
        series, total = row.series, row.total
        self.requests += total.requests
        self.request_bytes += total.request_bytes
        self.response_bytes += total.response_bytes
        if series.shadow:
            self.would_refuse += total.requests
        if series.outcome in REFUSED:
            self.refused += total.requests
        elif series.status_class == 5:
            self.errors += total.requests
        elif series.status_class == 4:
            self.client_errors += total.requests
        if series.outcome in TIMED:
            self.timed += total.requests
            self.duration_us += total.duration_us
            self.upstream_us += total.upstream_us
            self.latency.merge(total.latency)


class Aggregation:
    """Adds totals up by what is grouped by; `step_minutes` is the width of `minute`, default 1."""

    def __init__(self, group_by: tuple[Group, ...], step_minutes: int = 0) -> None:
        self._group_by = group_by
        self._step = step_minutes or 1
        self._lines: dict[tuple[str, ...], Line] = {}
        self._total = Line({})

    async def add_all(self, rows: AsyncIterator[Row]) -> None:
        """Add every total. Raises InvalidQuery when they are too coarse, or make too many lines."""
        count = 0
        async for row in rows:
            self.add(row)
            count += 1
            if count % _TURN_ROWS == 0:
                await asyncio.sleep(0)

    def add(self, row: Row) -> None:
        """Add one total. Raises InvalidQuery as `add_all`."""
        names: dict[str, str] = {}
        for group in self._group_by:
            if group == "minute" and row.span_minutes > self._step:
                raise InvalidQuery(
                    "from", f"{_time(row.minute)} and before are kept by the hour, not the minute"
                )
            names |= _NAMES[group](row, self._step)
        line = self._lines.get(tuple(names.values()))
        if line is None:
            if len(self._lines) >= _LINES_MAX:
                raise InvalidQuery(
                    "groupBy", f"gives more than {_LINES_MAX} rows; group or select less"
                )
            line = self._lines[tuple(names.values())] = Line(names)
        line.add(row)
        self._total.add(row)

    def total(self) -> Line:
        """All that was added."""
        return self._total

    def lines(self) -> list[Line]:
        """By time if grouped so, then the most requests first."""
        return sorted(
            self._lines.values(),
            key=lambda line: (line.names.get("time", ""), -line.requests, *line.names.values()),
        )

    def timeline(self, period: Period) -> list[Line]:
        """One line per step of the period, also where nothing was served."""
        return [self._lines.get((time,)) or Line({"time": time}) for time in self._times(period)]

    def _times(self, period: Period) -> Iterator[str]:
        first = period.from_minute - period.from_minute % self._step
        for minute in range(first, period.to_minute, self._step):
            yield _time(minute)
