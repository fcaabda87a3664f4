"""The stores that the contract is checked on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ratelimiter.ports import CounterStore
from ratelimiter.settings import RatelimiterSettings
from ratelimiter.stores.memory import MemoryStore
from ratelimiter.stores.redis import RedisStore
from ratelimiter.stores.topology import connect
from tests.servers.valkey import valkey_cluster, valkey_sentinels, valkey_server

KINDS = ("memory", "single", "sentinel", "cluster")
PREFIX = "ratelimit:v1:"


@dataclass
class Running:
    """A store, and how to make another one on the same counters."""

    kind: str
    store: CounterStore
    settings: RatelimiterSettings | None


def redis_store(settings: RatelimiterSettings) -> RedisStore:
    return RedisStore(connect(settings), settings.redis_key_prefix)


@asynccontextmanager
async def running(kind: str) -> AsyncIterator[Running]:
    if kind == "memory":
        yield Running(kind, MemoryStore(), None)
        return
    async with _settings(kind) as settings:
        store = redis_store(settings)
        try:
            yield Running(kind, store, settings)
        finally:
            await store.aclose()


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
                yield RatelimiterSettings(
                    redis_mode="cluster",
                    redis_addresses=tuple(server.address for server in servers[:2]),
                )
