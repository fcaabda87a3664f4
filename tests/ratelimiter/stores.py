"""The stores that the contract is checked on, with a clock that the test moves."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from contextlib import suppress as suppressed

from policy_engine.rate_limits.limits import Quota
from ratelimiter.counters import Group, Part, Standing, Take, key_of, rules
from ratelimiter.errors import StoreAway
from ratelimiter.ports import CounterStore
from ratelimiter.settings import RatelimiterSettings
from ratelimiter.stores.memory import MemoryStore
from ratelimiter.stores.redis import SCRIPT, RedisStore
from ratelimiter.stores.topology import connect
from tests.servers.valkey import valkey_cluster, valkey_sentinels, valkey_server

KINDS = ("memory", "single", "sentinel", "cluster")
PREFIX = "ratelimit:v1:"
_TIME = re.compile(rb"local time = .*\nlocal now = .*\n")
_DAY_US = 86_400_000_000


def redis_store(settings: RatelimiterSettings) -> RedisStore:
    return RedisStore(connect(settings), settings.redis_key_prefix)


def takes(quota: Quota, client: str, hits: int = 1, mode: str | None = None) -> Group:
    name = PREFIX + key_of("test", quota.bucket, [("client", client)])
    return tuple(
        Take(f"{name}:{rule.name}".encode(), rule, mode or quota.hits, hits, quota.when_away)
        for rule in rules(quota)
    )


class Timed:
    """A store whose time stands still until the test moves it.

    A server's clock cannot be set, so its script is told the time; and as keys expire by the
    server's clock, the test lives in the future.
    """

    def __init__(self, kind: str, store: CounterStore) -> None:
        self.kind = kind
        self.store = store
        self.now_us = 0
        self.settings: RatelimiterSettings | None = None
        self.start(0)

    def start(self, after_us: int) -> None:
        """A new story, some days from now."""
        today_us = time.time_ns() // 1_000 // _DAY_US * _DAY_US
        self.at(today_us + 2 * _DAY_US + after_us)

    def at(self, now_us: int) -> None:
        self.now_us = now_us
        if isinstance(self.store, RedisStore):
            self.store.script, found = _TIME.subn(b"local now = %d\n" % now_us, SCRIPT)
            assert found == 1
            self.store._clock_us = now_us

    def pass_us(self, us: int) -> None:
        self.at(self.now_us + us)

    async def decide(self, *groups: Group) -> list[tuple[Standing, ...]]:
        """Each group as a call of its own, in one batch where the store can."""
        by_place: dict[object, list[int]] = {}
        for index, group in enumerate(groups):
            by_place.setdefault(self.store.place(group[0].tag), []).append(index)
        answers: list[tuple[Standing, ...]] = [()] * len(groups)
        for place, indexes in by_place.items():
            parts = [Part(groups[index][0].tag, (groups[index],)) for index in indexes]
            decided = await self.store.decide(place, parts)
            for index, standings in zip(indexes, decided.standings, strict=True):
                assert standings is not None
                answers[index] = standings
        return answers

    async def one(self, group: Group) -> tuple[Standing, ...]:
        return (await self.decide(group))[0]


@asynccontextmanager
async def running(kind: str) -> AsyncIterator[Timed]:
    async with AsyncExitStack() as stack:
        if kind == "memory":
            timed: list[Timed] = []
            timed.append(Timed(kind, MemoryStore(now_us=lambda: timed[0].now_us)))
            yield timed[0]
            return
        settings = await stack.enter_async_context(_settings(kind))
        store = redis_store(settings)
        stack.push_async_callback(store.aclose)
        await settled(store)
        found = Timed(kind, store)
        found.settings = settings
        yield found


async def settled(store: CounterStore) -> None:
    """Wait until the store is there."""
    async with asyncio.timeout(30):
        while True:
            with suppressed(StoreAway):
                for tag in range(0, 256, 16):
                    await store.probe(store.place(tag))
                return
            await asyncio.sleep(0.01)


@contextmanager
def held(kind: str) -> Iterator[tuple[asyncio.Runner, Timed]]:
    """The same for tests that are not coroutines, such as those of hypothesis."""
    with asyncio.Runner() as runner:
        context = running(kind)
        timed = runner.run(context.__aenter__())
        try:
            yield runner, timed
        finally:
            runner.run(context.__aexit__(None, None, None))


@asynccontextmanager
async def _settings(kind: str) -> AsyncIterator[RatelimiterSettings]:
    match kind:
        case "single":
            async with valkey_server() as server:
                yield RatelimiterSettings(redis_addresses=(f"unix:{server.socket}",))
        case "sentinel":
            async with valkey_sentinels() as found:
                yield RatelimiterSettings(redis_mode="sentinel", redis_addresses=found.addresses)
        case _:
            async with valkey_cluster() as servers:
                addresses: Sequence[str] = [server.address for server in servers[:2]]
                yield RatelimiterSettings(redis_mode="cluster", redis_addresses=tuple(addresses))
