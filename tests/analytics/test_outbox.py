"""The way of usage events to the bus, and what does not fit."""

import asyncio
import tracemalloc
from contextlib import asynccontextmanager

import pytest

from analytics.outbox import Outbox
from bus.errors import BusUnavailable, MalformedEvent
from bus.usage import AccessLogGap, RequestsServed
from tests.analytics.batches import Call, served
from tests.analytics.receiving import DEADLINE_S, Bus, until


@asynccontextmanager
async def running(buffer_bytes=1 << 20):
    bus = Bus()
    outbox = Outbox(bus, buffer_bytes)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(outbox.run())
        yield bus, outbox
        task.cancel()


def event(requests=1):
    return served([Call()] * requests)


async def test_events_are_published_in_order_each_with_an_id_of_its_own():
    async with running() as (bus, outbox):
        for requests in (1, 2, 3):
            outbox.put(event(requests))
        await outbox.drained(DEADLINE_S)
    assert [len(one.group) for one in bus.events(RequestsServed)] == [1, 2, 3]
    assert len(set(bus.attempts)) == 3


async def test_an_event_is_tried_again_under_the_same_id():
    async with running() as (bus, outbox):
        bus.fails_with = BusUnavailable("away")
        outbox.put(event())
        await until(lambda: len(bus.attempts) >= 3)
        bus.fails_with = None
        await outbox.drained(DEADLINE_S)
    assert len(set(bus.attempts)) == 1
    assert len(bus.events(RequestsServed)) == 1


async def test_what_does_not_fit_is_told_as_one_gap_when_the_bus_is_back():
    async with running(buffer_bytes=40_000) as (bus, outbox):
        bus.fails_with = BusUnavailable("away")
        for _ in range(5):
            outbox.put(event(100))
        await until(lambda: len(bus.attempts) >= 1)
        bus.fails_with = None
        await outbox.drained(DEADLINE_S)
    assert len(bus.events(RequestsServed)) == 1
    (gap,) = bus.events(AccessLogGap)
    assert (gap.node, gap.entries, gap.reason) == ("router-1", 400, "buffer-full")
    assert gap.since_ms <= gap.until_ms


async def test_there_is_room_again_once_the_bus_has_taken_what_waited():
    async with running(buffer_bytes=40_000) as (bus, outbox):
        for _ in range(20):
            outbox.put(event(100))
            await outbox.drained(DEADLINE_S)
    assert len(bus.events(RequestsServed)) == 20
    assert not bus.events(AccessLogGap)


async def test_an_event_the_bus_refuses_is_a_gap_and_the_next_goes_on():
    async with running() as (bus, outbox):
        bus.fails_with = MalformedEvent("too large")
        outbox.put(event(7))
        await until(lambda: bus.attempts)
        bus.fails_with = None
        outbox.put(event(1))
        await outbox.drained(DEADLINE_S)
    (gap,) = bus.events(AccessLogGap)
    assert (gap.entries, gap.reason) == (7, "refused")
    assert [len(one.group) for one in bus.events(RequestsServed)] == [1]


async def test_a_message_that_could_not_be_read_is_a_gap_of_one():
    async with running() as (bus, outbox):
        outbox.lose("router-1", 1, "unreadable")
        await outbox.drained(DEADLINE_S)
    (gap,) = bus.events(AccessLogGap)
    assert (gap.entries, gap.reason) == (1, "unreadable")


async def test_a_slow_bus_holds_routers_back_and_one_that_is_away_does_not():
    async with running() as (bus, outbox):
        for _ in range(100):
            outbox.put(event())
        room = asyncio.ensure_future(outbox.room())
        await asyncio.sleep(0)
        assert not room.done()
        await asyncio.wait_for(room, DEADLINE_S)

        bus.fails_with = BusUnavailable("away")
        for _ in range(100):
            outbox.put(event())
        await asyncio.wait_for(outbox.room(), DEADLINE_S)
        assert len(bus.events(RequestsServed)) <= 100
        bus.fails_with = None
        await outbox.drained(DEADLINE_S)
    assert len(bus.events(RequestsServed)) == 200


async def test_at_shutdown_it_is_not_waited_for_ever():
    async with running() as (bus, outbox):
        bus.fails_with = BusUnavailable("away")
        outbox.put(event())
        async with asyncio.timeout(DEADLINE_S):
            await outbox.drained(0.05)


@pytest.mark.parametrize("requests", [1, 250])
async def test_the_size_of_an_event_is_not_underestimated(requests):
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = [
            served(
                Call(duration_us=1000 + n, upstream_us=500 + n, at_ms=10**12 + 300 + n * m)
                for n in range(requests)
            )
            for m in range(20)
        ]
        size = (tracemalloc.get_traced_memory()[0] - before) / len(kept)
    finally:
        tracemalloc.stop()
    room_for_one = int(size * 0.95)
    outbox = Outbox(Bus(), room_for_one)
    outbox.put(kept[0])
    assert not outbox._queue
