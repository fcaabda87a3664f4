"""What the bus without a broker can play: a broker that is away, or comes back empty."""

import asyncio

import pytest

from bus.errors import BusUnavailable
from bus.memory import MemoryBus
from bus.subjects import Family, pattern
from tests.bus.adapters import PATIENCE_S, STATE, connected, nothing_more, receive, retired, take


async def test_while_it_is_away_publishing_fails_and_then_goes_on():
    bus = MemoryBus()
    async with bus.follow(STATE) as feed:
        bus.connected = False
        with pytest.raises(BusUnavailable):
            await bus.publish(retired("a"), event_id="1")
        bus.connected = True
        await bus.publish(retired("a"), event_id="1")
        assert await take(feed, 1) == [retired("a")]


async def test_when_it_comes_back_empty_a_new_epoch_begins_and_feeds_go_on():
    bus = MemoryBus()
    await bus.publish(retired("a"), event_id="1")
    async with bus.follow(STATE) as feed, bus.share("worker", STATE) as work:
        await take(feed, 1)
        old = await receive(work)
        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            waiting = group.create_task(bus.next_epoch(0))
            await asyncio.sleep(0)
            bus.lose_everything()
        assert waiting.result() == bus.epoch == 1
        async with bus.follow(STATE) as fresh:
            assert fresh.backlog == 0

        await bus.publish(retired("b"), event_id="1")  # what was stored before is forgotten
        assert await take(feed, 1) == [retired("b")]
        new = await receive(work)
        await old.ack()
        await new.retry()
        assert (await receive(work)).event == retired("b")


async def test_a_bounded_stream_forgets_its_oldest_events():
    bus = MemoryBus()
    version = "x" * (1 << 20)
    for number in range(70):  # the stream holds 64 MiB
        await bus.publish(connected(f"router-{number}", version))
    async with bus.share("worker", pattern(Family.ROUTER)) as work:
        assert (await receive(work)).event == connected("router-7", version)


async def test_two_buses_have_nothing_in_common():
    one, other = MemoryBus(), MemoryBus()
    async with other.follow(STATE) as feed:
        await one.publish(retired("a"))
        assert await nothing_more(feed, within_s=0.05)
