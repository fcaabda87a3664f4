"""What a real broker refuses, and what becomes of publishing without one."""

import asyncio
import inspect
import os
import signal
import time

import nats
import nats.errors
import nats.js.errors
import pytest
from prometheus_client import REGISTRY

from bus.errors import BusError, BusUnavailable, MalformedEvent
from bus.events import DeadLettered
from bus.jetstream import JetStreamBus
from bus.jetstream.link import Link, bus_error
from bus.subjects import Family, pattern
from tests.bus.adapters import PATIENCE_S, STATE, connected, message, receive, retired, take
from tests.bus.on_jetstream import connect, jetstream
from tests.servers.nats import NatsServer, nats_server


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
