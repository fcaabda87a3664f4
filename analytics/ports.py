"""What analytics asks of a store of totals. Adapters: `analytics.sql` and `analytics.memory`."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from analytics.totals import Batch, Gap, Series, Total

MINUTES_PER_HOUR = 60


@dataclass(frozen=True, slots=True)
class Row:
    """One total as it is stored: of a minute, or, when older, of an hour."""

    minute: int  # Unix time / 60 s, start of the span
    span_minutes: int  # 1 or 60
    series: Series
    total: Total


@dataclass(frozen=True, slots=True)
class Selection:
    """Which totals are wanted."""

    from_minute: int  # Unix time / 60 s, inclusive
    to_minute: int  # exclusive
    api: str | None = None  # None: all; empty: what no API had a route for
    application: str | None = None  # None: all; empty: the unknown
    subscription: str | None = None  # None: all; empty: those without one


class TotalsStore(Protocol):
    """Keeps totals; counts each batch once, whatever comes again."""

    async def count(self, batches: Sequence[Batch]) -> frozenset[str]:
        """Add the batches not counted yet, all or none; the ids of those.

        Leaves the batches as they are, so that they can be tried again.
        Raises TotalsUnavailable, TotalsRefused.
        """
        ...

    def rows(self, selection: Selection) -> AsyncIterator[Row]:
        """The totals that begin in the selection, in no order, a place perhaps in several parts.

        To be read, not changed.
        Raises TotalsUnavailable.
        """
        ...

    async def gaps(self, from_ms: int, to_ms: int) -> list[Gap]:
        """The losses that overlap this time (Unix time), oldest first. Raises TotalsUnavailable."""
        ...

    async def roll_up(self, before_minute: int) -> int:
        """Add up minutes to hours, for the hours that end by then; how many rows went.

        Raises TotalsUnavailable.
        """
        ...

    async def forget(self, before_minute: int) -> int:
        """Delete totals and losses that are older; how many rows went. Raises TotalsUnavailable."""
        ...
