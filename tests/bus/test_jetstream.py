"""What only a real broker can do: die, come back, come back empty, lose what followers read."""

import asyncio

import pytest

from bus.errors import BusUnavailable
from bus.events import ApiRetired
from bus.subjects import Family, pattern
from tests.bus.adapters import PATIENCE_S, STATE, receive, retired, take
from tests.bus.on_jetstream import connect, consumers, jetstream
from tests.servers.nats import nats_server

# -- death and return --------------------------------------------------------------------------


@pytest.mark.parametrize("kills", [1, 4])
async def test_nothing_is_lost_or_doubled_when_a_broker_with_files_is_killed_again_and_again(kills):
    """A publisher and a follower go on through SIGKILLs; the folded state and the log are whole."""
    count = 400
    async with (
        nats_server() as server,
        connect(server, "controller", nats_storage="file") as publisher,
        connect(server, "xds", nats_storage="file") as follower,
        follower.follow(STATE) as feed,
    ):
        folded: dict[str, int] = {}

        async def fold() -> None:
            async for event in feed:
                assert isinstance(event, ApiRetired)
                folded[event.api_id] = max(event.revision, folded.get(event.api_id, 0))
                if folded.get("last"):
                    return

        async def publish() -> None:
            for number in range(count):
                event = retired(f"api-{number % 40}", number // 40 + 1)
                await publisher.publish(event, event_id=f"event-{number}")
                await asyncio.sleep(0.001)
            await publisher.publish(retired("last"))

        async with asyncio.timeout(2 * PATIENCE_S), asyncio.TaskGroup() as group:
            group.create_task(fold())
            publishing = group.create_task(publish())
            for _ in range(kills):
                await asyncio.sleep(0.05)
                await server.restart()
            assert not publishing.done()

        assert folded == {f"api-{n}": count // 40 for n in range(40)} | {"last": 1}
        assert publisher.epoch == follower.epoch == 0
        async with jetstream(server) as js:
            info = await js.stream_info("sbx-state")
            assert info.state.messages == count + 1


async def test_a_broker_that_comes_back_empty_is_noticed_and_told_all_again():
    record = [retired(f"api-{number}", 3) for number in range(20)]
    async with (
        nats_server() as server,
        connect(server, "controller") as controller,
        connect(server, "xds") as xds,
    ):
        for event in record:
            await controller.publish(event)
        async with xds.follow(STATE) as feed:
            assert await take(feed, feed.backlog) == record

            await server.restart()
            async with asyncio.timeout(PATIENCE_S):
                assert await controller.next_epoch(0) == 1
                assert await xds.next_epoch(0) == 1
            for event in record:
                await controller.publish(event)
            again = await take(feed, len(record))
            assert sorted(again, key=lambda event: event.subject) == sorted(
                record, key=lambda event: event.subject
            )
            await controller.publish(retired("new"))
            assert await take(feed, 1) == [retired("new")]
        async with xds.follow(STATE) as feed:
            assert feed.backlog == len(record) + 1


async def test_a_lost_connection_alone_is_no_new_epoch():
    async with nats_server() as server, connect(server) as bus, bus.follow(STATE) as feed:
        await bus.publish(retired("a"))
        await take(feed, 1)
        await bus._broker._link._client.close()
        await bus.publish(retired("b"))
        assert {event.api_id for event in await take(feed, 2)} == {"a", "b"}
        assert bus.epoch == 0


async def test_connected_follows_the_broker():
    async with nats_server() as server, connect(server) as bus:
        assert bus.connected
        await server.kill()
        async with asyncio.timeout(PATIENCE_S):
            while bus.connected:
                await asyncio.sleep(0.01)
        await server.start()
        async with asyncio.timeout(PATIENCE_S):
            while not bus.connected:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("storage", ["memory", "file"])
async def test_workers_go_on_after_the_broker_was_killed(storage):
    async with (
        nats_server() as server,
        connect(server, nats_storage=storage) as bus,
        bus.share("worker", STATE) as work,
    ):
        await bus.publish(retired("before"))
        await (await receive(work)).ack()
        await server.restart()
        await bus.publish(retired("after"))
        async for delivery in work:  # the broker may have forgotten the acknowledgement
            await delivery.ack()
            if delivery.event == retired("after"):
                break


async def test_an_acknowledgement_given_while_the_broker_is_away_counts():
    settings = {"nats_storage": "file", "share_ack_wait_s": 60.0}
    async with nats_server() as server, connect(server, **settings) as bus:
        for number in range(3):
            await bus.publish(retired(f"api-{number}"))
        async with bus.share("worker", STATE) as work:
            first = await receive(work)
            await server.stop()
            async with asyncio.timeout(PATIENCE_S):
                while bus.connected:
                    await asyncio.sleep(0.01)
            await first.ack()
            await server.start()
            rest = [await receive(work) for _ in range(2)]
            assert {delivery.event.api_id for delivery in rest} == {"api-1", "api-2"}
            for delivery in rest:
                await delivery.ack()
        async with jetstream(server) as js, asyncio.timeout(PATIENCE_S):
            while True:
                info = await js.consumer_info("sbx-state", "worker")
                if (info.num_ack_pending, info.num_pending) == (0, 0):
                    break
                await asyncio.sleep(0.01)
            assert info.num_redelivered == 0


async def test_an_acknowledgement_from_before_hits_nothing_in_an_empty_broker():
    async with nats_server() as server, connect(server, share_ack_wait_s=0.5) as bus:
        await bus.publish(retired("old"))
        async with bus.share("worker", STATE) as work:
            old = await receive(work)
            await server.restart()
            async with asyncio.timeout(PATIENCE_S):
                await bus.next_epoch(0)
            await bus.publish(retired("new"))
            new = await receive(work)
            assert (new.event, new.attempt) == (retired("new"), 1)
            await old.ack()  # both are number 1 of their stream and their consumer
            again = await receive(work)
            assert (again.event, again.attempt) == (retired("new"), 2)


# -- feeds heal --------------------------------------------------------------------------------


async def test_a_feed_whose_consumer_was_deleted_begins_again():
    async with (
        nats_server() as server,
        connect(server, follow_heartbeat_s=0.2) as bus,
        bus.follow(STATE) as feed,
    ):
        await bus.publish(retired("a"))
        await take(feed, 1)
        async with jetstream(server) as js:
            for info in await js._jsm.consumers_info("sbx-state"):
                await js.delete_consumer("sbx-state", info.name)
        await bus.publish(retired("b"))
        assert {event.api_id for event in await take(feed, 2)} == {"a", "b"}


async def test_streams_deleted_under_a_running_bus_are_made_again_and_count_as_lost():
    async with (
        nats_server() as server,
        connect(server, follow_heartbeat_s=0.2) as bus,
        bus.follow(STATE) as feed,
    ):
        await bus.publish(retired("a"))
        await take(feed, 1)
        async with jetstream(server) as js:
            await js.delete_stream("sbx-state")
        await bus.publish(retired("b"))
        assert bus.epoch == 1
        assert await take(feed, 1) == [retired("b")]


async def test_a_message_that_never_arrived_is_noticed():
    async with (
        nats_server() as server,
        connect(server, follow_heartbeat_s=0.2) as bus,
        bus.follow(STATE) as feed,
    ):
        await bus.publish(retired("a"))
        await take(feed, 1)
        await bus.publish(retired("lost"))
        async with asyncio.timeout(PATIENCE_S):
            while not feed._messages.qsize():
                await asyncio.sleep(0.001)
        feed._messages.get_nowait()
        assert {event.api_id for event in await take(feed, 2)} == {"a", "lost"}


async def test_a_follower_slower_than_the_publisher_gets_everything():
    """More than the broker's flow control window, which starts small, while nobody reads."""
    async with nats_server() as server, connect(server) as bus, bus.follow(STATE) as feed:
        for number in range(600):
            await bus.publish(retired(f"{number}-{'x' * 4000}"))
        events = await take(feed, 600)
        assert [int(event.api_id.split("-")[0]) for event in events] == list(range(600))


async def test_followers_leave_nothing_behind_at_the_broker():
    async with nats_server() as server, connect(server) as bus:
        async with bus.follow(STATE, pattern(Family.ROUTER)) as feed:
            await bus.publish(retired("a"))
            await take(feed, 1)
            assert await consumers(server) == 2
        assert await consumers(server) == 0


async def test_a_large_current_state_is_counted_exactly():
    async with nats_server() as server, connect(server) as bus:
        await asyncio.gather(*(bus.publish(retired(f"api-{n}")) for n in range(2000)))
        await asyncio.gather(*(bus.publish(retired(f"api-{n}", 2)) for n in range(0, 2000, 2)))
        async with bus.follow(STATE) as feed:
            assert feed.backlog == 2000
            assert len({event.api_id for event in await take(feed, 2000)}) == 2000


async def test_closing_the_bus_ends_its_feeds_with_an_error():
    async with nats_server() as server:
        async with connect(server) as bus:
            feed_context = bus.follow(STATE)
            feed = await feed_context.__aenter__()
        with pytest.raises(BusUnavailable):
            await take(feed, 1)
        await feed_context.__aexit__(None, None, None)
