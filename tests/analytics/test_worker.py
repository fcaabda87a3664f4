"""Usage events into totals: once each, whatever fails on the way."""

import asyncio
from contextlib import asynccontextmanager

from analytics.errors import TotalsRefused, TotalsUnavailable
from analytics.memory import MemoryTotals
from analytics.ports import Selection
from analytics.settings import AnalyticsSettings
from analytics.sql import open_totals
from analytics.totals import Total
from analytics.worker import CONSUMER, count_usage, keep_house
from bus.events import DeadLettered, Event
from bus.memory import MemoryBus
from bus.subjects import Family, pattern
from bus.usage import AccessLogGap
from tests.analytics.batches import HOUR_MS, ORDERS, Call, served

DEADLINE_S = 20.0
SETTINGS = AnalyticsSettings(usage_flush_interval_s=0.05)


class QuotaExceeded(Event, kind="test.usage-of-another-kind", family=Family.USAGE):
    """A usage event that is nothing to count."""

    @property
    def key(self):
        return ("other",)


class Failing(MemoryTotals):
    """A store that raises what `fails` says for these batches."""

    def __init__(self):
        super().__init__()
        self.fails = lambda batches: None
        self.calls = 0

    async def count(self, batches):
        self.calls += 1
        error = self.fails(batches)
        if error is not None:
            raise error
        return await super().count(batches)


@asynccontextmanager
async def counting(bus, store):
    async with asyncio.TaskGroup() as group:
        task = group.create_task(count_usage(bus, store, SETTINGS))
        yield
        task.cancel()


async def counted(store):
    whole = Total()
    async for row in store.rows(Selection(0, 1 << 40)):
        whole.merge(row.total)
    return whole.requests


async def until(condition):
    async with asyncio.timeout(DEADLINE_S):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_events_become_totals_and_gaps():
    bus, store = MemoryBus(), MemoryTotals()
    gap = AccessLogGap(node="r", entries=3, since_ms=1, until_ms=2, reason="buffer-full")
    async with counting(bus, store):
        await bus.publish(QuotaExceeded())
        await bus.publish(served([Call(), Call()]))
        await bus.publish(gap)
        await bus.publish(served([Call(route=ORDERS)]))

        async def all_counted():
            return await counted(store) == 3 and len(await store.gaps(0, 10)) == 1

        await until(all_counted)


async def test_while_the_store_is_away_nothing_is_lost():
    bus, store = MemoryBus(), Failing()
    store.fails = lambda batches: TotalsUnavailable("away")
    async with counting(bus, store):
        await bus.publish(served([Call(), Call()]))

        async def tried():
            return store.calls >= 2

        await until(tried)
        assert await counted(store) == 0
        store.fails = lambda batches: None

        async def all_counted():
            return await counted(store) == 2

        await until(all_counted)


async def test_an_event_that_cannot_be_stored_is_put_aside_and_the_others_count():
    bus, store = MemoryBus(), Failing()
    store.fails = lambda batches: (
        TotalsRefused("too large") if any(one.event_id == "bad" for one in batches) else None
    )
    await bus.publish(served([Call()]), event_id="good")
    await bus.publish(served([Call()]), event_id="bad")
    await bus.publish(served([Call()]), event_id="better")
    async with counting(bus, store), bus.share("dead", pattern(Family.DEAD_LETTER)) as letters:
        async with asyncio.timeout(DEADLINE_S):
            letter = (await anext(letters)).event
        assert isinstance(letter, DeadLettered)
        assert (letter.consumer, letter.reason) == (CONSUMER, "too large")

        async def all_counted():
            return await counted(store) == 2

        await until(all_counted)


async def test_what_was_counted_and_not_acknowledged_is_not_counted_again(tmp_path):
    """The process dies between the commit and the acknowledgement."""
    async with open_totals(f"sqlite+aiosqlite:///{tmp_path}/totals.db") as store:
        first = MemoryBus()
        await first.publish(served([Call(), Call()]), event_id="one")
        async with counting(first, store):

            async def two():
                return await counted(store) == 2

            await until(two)
        again = MemoryBus()  # delivers everything anew
        await again.publish(served([Call(), Call()]), event_id="one")
        await again.publish(served([Call()]), event_id="two")
        async with counting(again, store):

            async def three():
                return await counted(store) == 3

            await until(three)
            await asyncio.sleep(0.2)
            assert await counted(store) == 3


async def test_old_minutes_become_hours_by_themselves(tmp_path):
    store = MemoryTotals()
    bus = MemoryBus()
    async with counting(bus, store), asyncio.TaskGroup() as group:
        await bus.publish(served([Call(at_ms=HOUR_MS), Call(at_ms=HOUR_MS + 60_000)]))

        async def two():
            return await counted(store) == 2

        await until(two)
        settings = AnalyticsSettings(usage_minutes_retention_hours=1, usage_retention_days=36_500)
        chores = group.create_task(keep_house(store, settings))

        async def rolled_up():
            return {row.span_minutes async for row in store.rows(Selection(0, 1 << 40))} == {60}

        await until(rolled_up)
        chores.cancel()
