"""Real Envoy, real broker, real database: what is sent is what is counted."""

import asyncio
import contextlib
import signal
import socket
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE

import pytest

from analytics.outcome import Outcome
from analytics.ports import Selection
from analytics.service import run
from analytics.settings import AnalyticsSettings
from analytics.sql import open_totals
from analytics.totals import Series, Total
from bus.jetstream import JetStreamBus
from bus.settings import BusSettings
from tests.analytics.router import router
from tests.servers.http_backend import Answer, http_backend
from tests.servers.nats import nats_server

ALL = Selection(0, 1 << 40)
DEADLINE_S = 60.0
MESSAGE = 250  # entries in 64 KiB, at least so many
ROOT = Path(__file__).parents[2]


@pytest.fixture
async def nats():
    async with nats_server() as server:
        yield server


@pytest.fixture
async def store(tmp_path):
    async with open_totals(database(tmp_path)) as opened:
        yield opened


@asynccontextmanager
async def component(nats, store, **settings):
    """Analytics in this process."""
    ready = asyncio.Event()
    chosen = AnalyticsSettings(**{"usage_flush_interval_s": 0.1, **settings})
    broker = BusSettings(nats_url=nats.url, nats_storage="file", share_ack_wait_s=2)
    async with (
        JetStreamBus.connect(broker, name="analytics") as bus,
        asyncio.TaskGroup() as group,
    ):
        running = group.create_task(run(chosen, bus, store, ready=ready.set))
        async with asyncio.timeout(DEADLINE_S):
            await ready.wait()
        try:
            yield running
        finally:
            running.cancel()


async def totals(store):
    found = {}
    async for row in store.rows(ALL):
        found.setdefault(row.series, Total()).merge(row.total)
    return found


async def counted(store):
    return sum(total.requests for total in (await totals(store)).values())


async def eventually_counted(store, wanted):
    """Wait until `wanted` requests are counted, and see that it stays so."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE_S):
            while await counted(store) < wanted:
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
    assert await counted(store) == wanted


async def test_each_request_is_counted_with_what_is_known_of_it(nats, store, tmp_path):
    path = tmp_path / "als.sock"
    async with (
        http_backend(lambda request: Answer(body=b"x" * 100, delay_s=0.05)) as backend,
        component(nats, store, access_log_socket=path),
        router(path, backend.port) as envoy,
    ):
        assert await envoy.call("/weather/v1/oslo?x=1", 3) == 200
        assert await envoy.call("/limited", 5, "x-signalbox-application: shop\r\n") == 429
        assert await envoy.call("/echo/a", 2) == 200
        assert await envoy.call("/nowhere", 4) == 404
        assert await envoy.call("/echo/a", 1, "x-signalbox-subscription: s-1\r\n") == 200
        await eventually_counted(store, 15)
        found = await totals(store)

    echo = Series("echo", "GET", "/echo", "", 2, Outcome.SERVED)
    assert {series: total.requests for series, total in found.items()} == {
        Series("weather", "GET", "/weather/v1/{city}", "", 2, Outcome.SERVED): 3,
        Series("limited", "GET", "/limited", "shop", 2, Outcome.SERVED): 2,
        Series("limited", "GET", "/limited", "shop", 4, Outcome.LIMITED): 3,
        Series("", "", "", "", 4, Outcome.UNROUTED): 4,
        echo: 2,
        echo._replace(subscription="s-1"): 1,
    }
    assert found[echo].latency.quantiles_us(0.0)[0] > 49_000
    assert 2 * 49_000 < found[echo].upstream_us <= found[echo].duration_us
    assert found[echo].response_bytes > 2 * 100
    assert found[echo].request_bytes > 0


async def test_a_router_delivers_over_tcp(nats, store, unused_tcp_port):
    async with (
        component(nats, store, access_log_port=unused_tcp_port),
        router(unused_tcp_port) as envoy,
    ):
        await envoy.call("/weather/v1/oslo", 3)
        await eventually_counted(store, 3)


async def test_under_load_all_that_was_sent_is_counted(nats, store, tmp_path):
    path = tmp_path / "als.sock"
    async with (
        component(nats, store, access_log_socket=path),
        router(path, concurrency=2) as envoy,
    ):
        await _load(envoy, 3)
        await eventually_counted(store, envoy.sent)
        assert envoy.sent > 500


async def test_a_restart_of_the_component_loses_nothing(nats, store, tmp_path):
    """Stopped in good order while requests go on; its socket is held meanwhile."""
    async with held_router(tmp_path) as (held, envoy):
        await _under_load(envoy, nats, tmp_path, held, signal.SIGTERM, pause_s=0.5)
        async with component(nats, store, access_log_fd=held):
            await eventually_counted(store, envoy.sent)


async def test_a_restart_of_the_component_at_full_load_loses_a_message_at_most(
    nats, store, tmp_path
):
    """Envoy may write one in the moment in which it is cut off."""
    async with held_router(tmp_path) as (held, envoy):
        await _under_load(envoy, nats, tmp_path, held, signal.SIGTERM, pause_s=0)
        async with component(nats, store, access_log_fd=held):
            await _settled(envoy, store)
        assert envoy.sent - 2 * MESSAGE <= await counted(store) <= envoy.sent


async def test_a_killed_component_counts_what_came_while_it_was_dead(nats, store, tmp_path):
    """kill -9 in a quiet moment; what is sent afterwards waits for the next process."""
    async with held_router(tmp_path) as (held, envoy):
        for _ in range(2):
            async with _process(nats, tmp_path, held, signal.SIGKILL):
                await envoy.call("/weather/v1/oslo", 500)
                await eventually_counted(store, envoy.sent)
            await envoy.call("/weather/v1/oslo", 500)
        async with _process(nats, tmp_path, held, signal.SIGTERM):
            await eventually_counted(store, envoy.sent)


async def test_a_component_killed_under_load_counts_nothing_twice(nats, store, tmp_path):
    """What Envoy had sent and the bus had not stored may be lost, and only that."""
    async with held_router(tmp_path) as (held, envoy):
        await _under_load(envoy, nats, tmp_path, held, signal.SIGKILL, pause_s=0.02)
        async with _process(nats, tmp_path, held, signal.SIGTERM):
            await _settled(envoy, store)
            await asyncio.sleep(3)  # deliveries of the dead come again after 2 s
        # per kill: the buffers on the way, 8 events that wait, 1 MB between Envoy and them
        assert envoy.sent - 2 * 20 * MESSAGE <= await counted(store) <= envoy.sent


async def _under_load(envoy, nats, folder, held, ended_by, *, pause_s):
    """Load all the time; the component comes and goes twice."""
    done = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(envoy.load(done, pause_s=pause_s))
        for _ in range(2):
            async with _process(nats, folder, held, ended_by):
                await _sent(envoy, envoy.sent + 1000)
            await _sent(envoy, envoy.sent + 500)  # nobody listens
        done.set()


async def _settled(envoy, store):
    """Wait until a last request is counted; all others have come before, or will not come."""
    await envoy.call("/limited")
    async with asyncio.timeout(DEADLINE_S):
        while not any(series.api == "limited" for series in await totals(store)):
            await asyncio.sleep(0.05)


async def test_a_restart_of_the_broker_under_load_loses_nothing(nats, store, tmp_path):
    path = tmp_path / "als.sock"
    async with component(nats, store, access_log_socket=path), router(path) as envoy:
        done = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(envoy.load(done))
            for _ in range(2):
                await _sent(envoy, envoy.sent + 1000)
                await nats.kill()
                await _sent(envoy, envoy.sent + 500)
                await nats.start()
            done.set()
        await eventually_counted(store, envoy.sent)


async def test_what_does_not_fit_while_the_broker_is_away_is_a_gap(nats, store, tmp_path):
    path = tmp_path / "als.sock"
    async with (
        component(nats, store, access_log_socket=path, usage_buffer_bytes=1 << 16),
        router(path) as envoy,
    ):
        await envoy.call("/weather/v1/oslo", 10)
        await eventually_counted(store, 10)
        await nats.kill()
        await envoy.call("/weather/v1/oslo", 3000)
        await asyncio.sleep(1)  # two flushes of Envoy
        await nats.start()
        async with asyncio.timeout(DEADLINE_S):
            while not await _lost(store):
                await asyncio.sleep(0.05)
        await eventually_counted(store, envoy.sent - await _lost(store))
        (gap,) = await store.gaps(0, 1 << 41)
        assert (gap.node, gap.reason) == ("router-1", "buffer-full")
        assert gap.entries > 2000


async def _lost(store):
    return sum(gap.entries for gap in await store.gaps(0, 1 << 41))


async def _load(envoy, seconds):
    done = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, done.set)
    await envoy.load(done)


async def _sent(envoy, wanted):
    async with asyncio.timeout(DEADLINE_S):
        while envoy.sent < wanted:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def _process(nats, folder, descriptor, ended_by):
    """Analytics in a process of its own."""
    command = [sys.executable, "-m", "tests.analytics.component", nats.url, database(folder)]
    with (folder / "component.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(*command, str(descriptor)), cwd=ROOT, pass_fds=(descriptor,), stdout=PIPE, stderr=log
        )
    try:
        async with asyncio.timeout(DEADLINE_S):
            while (line := await process.stdout.readline()) != b"ready\n":
                assert line, (folder / "component.log").read_text()
        yield
    finally:
        process.send_signal(ended_by)
        async with asyncio.timeout(DEADLINE_S):
            await asyncio.gather(process.stdout.read(), process.wait())


@asynccontextmanager
async def held_router(folder):
    """The descriptor of a listening socket, as a supervisor holds it, and an Envoy that uses it."""
    with socket.socket(socket.AF_UNIX) as held:
        held.bind(str(folder / "als.sock"))
        held.listen(128)
        async with router(folder / "als.sock") as envoy:
            yield held.fileno(), envoy


def database(folder):
    return f"sqlite+aiosqlite:///{folder}/totals.db"
