"""How long an event takes from publisher to follower and to worker, and how many go through.

Run: python -m tests.bench.bus_latency
Prints medians of repeated runs on a real broker, and their ratio to the floor: a request to the
same broker, answered by the same process. Bounded to about half a minute.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import nats
import structlog
import uvloop

from bus.events import ApiRetired
from bus.jetstream import JetStreamBus
from bus.ports import Bus
from bus.settings import BusSettings
from bus.subjects import Family, pattern
from tests.servers.nats import NatsServer, nats_server

STATE = pattern(Family.STATE)
EVENTS = 1000
WARM_UP = 100
BURST = 2000
ROUNDS = 3


def event(number: int) -> ApiRetired:
    return ApiRetired(revision=number + 1, api_id=f"api-{number % 100}")


def quantiles(times_s: list[float]) -> tuple[float, float]:
    """p50 and p99 in milliseconds."""
    ordered = sorted(times_s[WARM_UP:])
    return ordered[len(ordered) // 2] * 1e3, ordered[len(ordered) * 99 // 100] * 1e3


async def floor(server: NatsServer) -> list[float]:
    """Request and answer through the broker, nothing stored."""
    client = await nats.connect(server.url)

    async def answer(msg: nats.aio.msg.Msg) -> None:
        await msg.respond(msg.data)

    await client.subscribe("floor", cb=answer)
    took = []
    for _ in range(EVENTS):
        since = time.perf_counter()
        await client.request("floor", b"x" * 100)
        took.append(time.perf_counter() - since)
    await client.close()
    return took


async def one_by_one(sender: Bus, arrive: Callable[[], Awaitable[object]]) -> list[float]:
    """From the call of publish to the arrival, one event at a time."""
    took = []
    for number in range(EVENTS):
        since = time.perf_counter()
        _, arrived = await asyncio.gather(sender.publish(event(number)), timed(arrive))
        took.append(arrived - since)
    return took


async def timed(arrive: Callable[[], Awaitable[object]]) -> float:
    await arrive()
    return time.perf_counter()


async def burst(sender: Bus, arrive: Callable[[], Awaitable[object]]) -> float:
    """Events per second, 64 on their way at once, until the last one has arrived."""
    gate = asyncio.Semaphore(64)

    async def publish(number: int) -> None:
        async with gate:
            await sender.publish(event(number))

    async def all_arrive() -> None:
        for _ in range(BURST):
            await arrive()

    since = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        group.create_task(all_arrive())
        for number in range(BURST):
            group.create_task(publish(number))
    return BURST / (time.perf_counter() - since)


@asynccontextmanager
async def two_components(storage: str) -> AsyncIterator[tuple[Bus, Bus]]:
    """A sender and a receiver at a broker of their own."""
    async with nats_server() as server:
        settings = BusSettings.model_validate({"nats_url": server.url, "nats_storage": storage})
        async with (
            JetStreamBus.connect(settings, name="controller") as sender,
            JetStreamBus.connect(settings, name="xds") as receiver,
        ):
            yield sender, receiver


async def to_follower(storage: str) -> tuple[list[float], float]:
    """Latencies, and events per second."""
    async with two_components(storage) as (sender, receiver), receiver.follow(STATE) as feed:
        took = await one_by_one(sender, lambda: anext(feed))
        return took, await burst(sender, lambda: anext(feed))


async def to_worker(storage: str) -> tuple[list[float], float]:
    """The same, with every delivery acknowledged."""
    async with two_components(storage) as (sender, receiver), receiver.share("w", STATE) as work:

        async def take() -> None:
            await (await anext(work)).ack()

        return await one_by_one(sender, take), await burst(sender, take)


async def run() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    floors: list[float] = []
    latencies: dict[str, list[tuple[float, float]]] = {}
    rates: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        async with nats_server() as server:
            floors.append(quantiles(await floor(server))[0])
        for storage in ("memory", "file"):
            for receiver, measure in (("follower", to_follower), ("worker", to_worker)):
                took, rate = await measure(storage)
                latencies.setdefault(f"{receiver}, {storage}", []).append(quantiles(took))
                rates.setdefault(f"{receiver}, {storage}", []).append(rate)
    floor_ms = statistics.median(floors)
    print(f"request and answer (floor)  p50 {floor_ms:.2f} ms")
    for name, values in latencies.items():
        p50, p99 = (statistics.median(column) for column in zip(*values, strict=True))
        print(
            f"publish to {name:<16} p50 {p50:.2f} ms ({p50 / floor_ms:.1f} of floor), "
            f"p99 {p99:.2f} ms, {statistics.median(rates[name]):,.0f} events/s"
        )


if __name__ == "__main__":
    uvloop.run(run())
