"""What only a real broker can do: die, come back, come back empty, refuse."""

import asyncio
import inspect
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
import nats.errors
import nats.js.errors
import pytest
from nats.js import JetStreamContext
from prometheus_client import REGISTRY

from bus.errors import BusError, BusUnavailable, MalformedEvent
from bus.events import ApiRetired, DeadLettered
from bus.jetstream import JetStreamBus
from bus.jetstream.link import Link, bus_error
from bus.settings import BusSettings
from bus.subjects import STREAMS, Family, pattern
from tests.bus.adapters import PATIENCE_S, STATE, connected, message, receive, retired, take
from tests.servers.nats import NatsServer, nats_server


def connect(server: NatsServer, name: str = "test", **settings: object):
    wanted = {"nats_url": server.url, "publish_timeout_s": PATIENCE_S, **settings}
    return JetStreamBus.connect(BusSettings.model_validate(wanted), name=name)


@asynccontextmanager
async def jetstream(server: NatsServer) -> AsyncIterator[JetStreamContext]:
    """A plain client, to look at the broker from outside."""
    client = await nats.connect(server.url)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def consumers(server: NatsServer) -> int:
    async with jetstream(server) as js:
        return sum([len(await js._jsm.consumers_info(stream.name)) for stream in STREAMS])


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


# -- connecting --------------------------------------------------------------------------------


async def test_no_broker_is_one_clear_sentence_in_a_bounded_time():
    async with nats_server() as server:
        await server.kill()
        since = time.monotonic()
        with pytest.raises(BusUnavailable, match=rf"no broker at {server.url} within 0.5 s: .*111"):
            async with connect(server, nats_connect_timeout_s=0.5):
                pass
        assert time.monotonic() - since < PATIENCE_S


async def test_a_component_may_start_before_its_broker():
    async with nats_server() as server:
        await server.kill()
        async with asyncio.TaskGroup() as group:
            starting = group.create_task(_epoch(server))
            await asyncio.sleep(0.2)
            await server.start()
        assert starting.result() == 0


async def _epoch(server: NatsServer) -> int:
    async with connect(server, nats_connect_timeout_s=PATIENCE_S) as bus:
        return bus.epoch


async def test_user_and_password_open_a_guarded_broker_and_wrong_ones_do_not():
    guarded = 'authorization { user: "signalbox", password: "s3cret" }'
    async with nats_server(guarded) as server:
        async with connect(server, nats_user="signalbox", nats_password="s3cret") as bus:
            await bus.publish(retired("a"))
        with pytest.raises(BusUnavailable, match=r"(?i)authorization"):
            async with connect(
                server, nats_user="signalbox", nats_password="wrong", nats_connect_timeout_s=0.5
            ):
                pass


async def test_storage_that_the_broker_will_not_change_is_said_with_the_streams_name():
    async with nats_server() as server:
        async with connect(server, nats_storage="memory"):
            pass
        with pytest.raises(BusUnavailable, match=r"sbx-state.*storage"):
            async with connect(server, nats_storage="file", nats_connect_timeout_s=0.5):
                pass


async def test_changed_retention_is_applied_to_a_stream_that_exists():
    async with nats_server() as server:
        async with connect(server, nats_memory_stream_max_bytes=1 << 20):
            pass
        async with connect(server, nats_memory_stream_max_bytes=2 << 20) as bus:
            assert bus.epoch == 0
        async with jetstream(server) as js:
            assert (await js.stream_info("sbx-usage")).config.max_bytes == 2 << 20
            assert (await js.stream_info("sbx-state")).config.max_bytes == -1


# -- publishing fails --------------------------------------------------------------------------


async def test_publishing_to_a_dead_broker_fails_after_the_time_that_was_set():
    async with nats_server() as server, connect(server, publish_timeout_s=0.4) as bus:
        await server.kill()
        since = time.monotonic()
        with pytest.raises(BusUnavailable):
            await bus.publish(retired("a"))
        assert time.monotonic() - since >= 0.3


async def publish_for_ever(bus: JetStreamBus) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            await bus.publish(retired("sometime"))


async def test_a_broker_that_hangs_is_left_and_found_again():
    settings = {"nats_ping_interval_s": 0.3, "follow_heartbeat_s": 0.3, "publish_timeout_s": 0.5}
    async with (
        nats_server() as server,
        connect(server, **settings) as bus,
        bus.follow(STATE) as feed,
    ):
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(BusUnavailable):
                await publish_for_ever(bus)  # the signal takes effect a little later
            async with asyncio.timeout(PATIENCE_S):
                while bus.connected:
                    await asyncio.sleep(0.01)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    await bus.publish(retired("again"))
                except BusUnavailable:
                    continue
                break
        async with asyncio.timeout(PATIENCE_S):
            async for event in feed:
                if event == retired("again"):
                    break
        assert bus.epoch == 0


async def test_what_happens_is_counted():
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(f"signalbox_bus_{name}", labels) or 0

    async with (
        nats_server() as server,
        connect(server, "counted") as bus,
        connect(server, "counting", publish_timeout_s=0.1) as hasty,
    ):
        kind = "rest-api.retired"
        published, failed = (
            value("published_total", kind=kind),
            value("publish_failures_total", kind=kind),
        )
        assert value("connected", component="counted") == 1
        await bus.publish(retired("a"))
        assert value("published_total", kind=kind) == published + 1
        async with bus.share("giving up", STATE) as work:
            await (await receive(work)).dead_letter("why not")
        assert value("dead_lettered_total", consumer="giving up") == 1
        async with bus.follow(STATE) as feed:
            await take(feed, 1)
            assert value("follower_pending_events", component="counted", stream="sbx-state") == 0
            await server.kill()
            with pytest.raises(BusUnavailable):
                await hasty.publish(retired("b"))
            assert value("publish_failures_total", kind=kind) == failed + 1
            await server.start()
            await bus.publish(retired("c"))
            await take(feed, 1)
        assert value("reconnects_total", component="counted") == 1
        assert value("lost_state_total", component="counted") == 1
        assert value("feed_restarts_total", component="counted") >= 1


async def test_an_event_too_large_for_the_broker_is_refused_at_once_and_the_bus_lives():
    async with nats_server("max_payload: 8192") as server, connect(server) as bus:
        since = time.monotonic()
        for size in (8192, 8100):  # the body alone, and the body with its headers
            with pytest.raises(MalformedEvent, match="payload"):
                await bus.publish(retired("x" * size))
        assert time.monotonic() - since < PATIENCE_S
        await bus.publish(retired("a"))
        assert bus.connected


async def test_a_poison_message_as_large_as_may_be_is_dead_lettered_without_its_body():
    subject, headers, _ = message(retired("a"), "1")
    async with (
        nats_server("max_payload: 8192") as server,
        connect(server) as bus,
        bus.follow(pattern(Family.DEAD_LETTER)) as letters,
        jetstream(server) as js,
    ):
        await js.publish(subject, b"\xff" * 7500, headers=headers)
        await bus.publish(retired("good"))
        async with bus.share("worker", STATE) as work:
            assert (await receive(work)).event == retired("good")
        (letter,) = await take(letters, 1)
        assert isinstance(letter, DeadLettered)
        assert letter.body == ""
        assert "too large" in letter.reason


def _exceptions(*modules) -> list[type[Exception]]:
    return sorted(
        {
            thing
            for module in modules
            for _, thing in inspect.getmembers(module, inspect.isclass)
            if issubclass(thing, nats.errors.Error)
        },
        key=lambda thing: thing.__qualname__,
    )


@pytest.mark.parametrize(
    "raised",
    [*_exceptions(nats.errors, nats.js.errors), OSError, ConnectionResetError],
    ids=lambda raised: raised.__qualname__,
)
async def test_every_exception_of_the_library_becomes_one_of_ours(raised, monkeypatch):
    """By `bus_error`, and by a publish in which the connection raises it."""
    error = raised.__new__(raised)  # some want arguments that say nothing here
    never_works = {"MaxPayloadError", "BadSubjectError", "BadHeaderError"}
    wanted = MalformedEvent if raised.__name__ in never_works else BusUnavailable
    assert isinstance(bus_error(error), wanted)

    async def fail(*_args: object) -> None:
        raise error

    async with nats_server() as server, connect(server, publish_timeout_s=0.05) as bus:
        monkeypatch.setattr(Link, "store", fail)
        with pytest.raises(BusError) as caught:
            await bus.publish(connected("r"))
        assert type(caught.value) is wanted
