"""Totals in memory: for the Basic tier and for tests. Gone when the process ends."""

from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Sequence

import structlog

from analytics.ports import MINUTES_PER_HOUR, Row, Selection
from analytics.totals import MINUTE_MS, Batch, Gap, Series, Total, summed

log = structlog.get_logger()

_IDS_KEPT = 20_000  # a batch that comes again does so within seconds; this is an hour or more
_GAPS_KEPT = 10_000


class MemoryTotals:
    """A TotalsStore with at most `rows_max` rows; the oldest go first."""

    def __init__(self, rows_max: int = 100_000) -> None:
        self._rows_max = rows_max
        self._rows: dict[tuple[int, int], dict[Series, Total]] = {}  # (minute, span in minutes)
        self._count = 0
        self._counted: OrderedDict[str, None] = OrderedDict()
        self._gaps: deque[Gap] = deque(maxlen=_GAPS_KEPT)

    async def count(self, batches: Sequence[Batch]) -> frozenset[str]:
        """Add the batches not counted yet; the ids of those."""
        fresh = {one.event_id: one for one in batches if one.event_id not in self._counted}
        for (minute, series), total in summed(one.totals for one in fresh.values()).items():
            self._add(minute, 1, series, total)
        self._gaps.extend(one.gap for one in fresh.values() if one.gap)
        self._counted.update(dict.fromkeys(fresh))
        while len(self._counted) > _IDS_KEPT:
            self._counted.popitem(last=False)
        self._shrink()
        return frozenset(fresh)

    async def rows(self, selection: Selection) -> AsyncIterator[Row]:
        """The totals that begin in the selection."""
        for (minute, span), totals in list(self._rows.items()):
            if selection.from_minute <= minute < selection.to_minute:
                for series, total in list(totals.items()):
                    if (
                        selection.api in (None, series.api)
                        and selection.application in (None, series.application)
                        and selection.subscription in (None, series.subscription)
                    ):
                        yield Row(minute, span, series, total)

    async def gaps(self, from_ms: int, to_ms: int) -> list[Gap]:
        """The losses that overlap this time, oldest first."""
        found = [gap for gap in self._gaps if gap.since_ms < to_ms and gap.until_ms >= from_ms]
        return sorted(found, key=lambda gap: gap.since_ms)

    async def roll_up(self, before_minute: int) -> int:
        """Add up minutes to hours, for the hours that end by then; how many rows went."""
        limit = before_minute - before_minute % MINUTES_PER_HOUR
        gone = [place for place in self._rows if place[1] == 1 and place[0] < limit]
        went = 0
        for minute, span in gone:
            totals = self._rows.pop((minute, span))
            self._count -= len(totals)
            went += len(totals)
            for series, total in totals.items():
                self._add(minute - minute % MINUTES_PER_HOUR, MINUTES_PER_HOUR, series, total)
        return went

    async def forget(self, before_minute: int) -> int:
        """Delete totals and losses that are older; how many rows went."""
        went = self._drop([place for place in self._rows if sum(place) <= before_minute])
        kept = [gap for gap in self._gaps if gap.until_ms >= before_minute * MINUTE_MS]
        self._gaps = deque(kept, maxlen=_GAPS_KEPT)
        return went

    def _add(self, minute: int, span: int, series: Series, total: Total) -> None:
        totals = self._rows.setdefault((minute, span), {})
        known = totals.get(series)
        if known is None:
            totals[series] = total
            self._count += 1
        else:
            known.merge(total)

    def _drop(self, places: list[tuple[int, int]]) -> int:
        went = sum(len(self._rows.pop(place)) for place in places)
        self._count -= went
        return went

    def _shrink(self) -> None:
        while self._count > self._rows_max and len(self._rows) > 1:
            oldest = min(self._rows)
            went = self._drop([oldest])
            log.warning("oldest usage totals forgotten", minute=oldest[0], rows=went)
