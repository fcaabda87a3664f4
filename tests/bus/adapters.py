"""Both adapters behind one door, sample events, and waiting with a deadline."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

import nats
from prometheus_client import REGISTRY

from bus.envelope import Message, encode
from bus.events import ApiRetired, Event, RouterConnected
from bus.jetstream import JetStreamBus
from bus.memory import MemoryBus
from bus.ports import Bus, Delivery
from bus.settings import BusSettings
from bus.subjects import Family, pattern
from tests.servers.nats import NatsServer

STATE = pattern(Family.STATE)
PATIENCE_S = 30.0


class Adapter(Protocol):
    """A bus that several components can connect to."""

    def connect(self, name: str = "test") -> AbstractAsyncContextManager[Bus]:
        """One component's connection."""
        ...

    async def store(self, subject: str, headers: Mapping[str, str], body: bytes) -> None:
        """What a foreign sender puts there."""
        ...


class InMemory:
    def __init__(self, **overrides: object) -> None:
        self._bus = MemoryBus(BusSettings.model_validate(overrides), name="test")

    @asynccontextmanager
    async def connect(self, name: str = "test") -> AsyncIterator[Bus]:
        yield self._bus

    async def store(self, subject: str, headers: Mapping[str, str], body: bytes) -> None:
        self._bus.store(Message(subject, dict(headers), body))


class OnJetStream:
    def __init__(self, server: NatsServer, **overrides: object) -> None:
        self._server = server
        self._settings = BusSettings.model_validate({"nats_url": server.url, **overrides})

    @asynccontextmanager
    async def connect(self, name: str = "test") -> AsyncIterator[Bus]:
        async with JetStreamBus.connect(self._settings, name=name) as bus:
            yield bus

    async def store(self, subject: str, headers: Mapping[str, str], body: bytes) -> None:
        client = await nats.connect(self._server.url)
        try:
            await client.jetstream().publish(subject, body, headers=dict(headers))
        finally:
            await client.close()


def retired(api_id: str, revision: int = 1, **address: str) -> ApiRetired:
    return ApiRetired(api_id=api_id, revision=revision, **address)


def connected(node: str, version: str = "") -> RouterConnected:
    return RouterConnected(node=node, version=version)


def message(event: Event, event_id: str, **changed: str | None) -> Message:
    """The message of `event`; headers named with `_` for `-` are replaced, or left out if None."""
    subject, headers, body = encode(event, event_id)
    for name, value in changed.items():
        headers.pop(name.replace("_", "-"))
        if value is not None:
            headers[name.replace("_", "-")] = value
    return Message(subject, headers, body)


async def take(feed: AsyncIterator[Event], count: int) -> list[Event]:
    """The next `count` events, or TimeoutError."""
    async with asyncio.timeout(PATIENCE_S):
        return [await anext(feed) for _ in range(count)]


async def receive(work: AsyncIterator[Delivery]) -> Delivery:
    """The next delivery, or TimeoutError."""
    async with asyncio.timeout(PATIENCE_S):
        return await anext(work)


async def nothing_more(things: AsyncIterator[object], within_s: float = 0.3) -> bool:
    """Whether nothing comes within a while."""
    try:
        async with asyncio.timeout(within_s):
            await anext(things)
    except TimeoutError:
        return True
    return False


def skipped(kind: str) -> float:
    """How many events of a kind that nobody knows were passed over."""
    return REGISTRY.get_sample_value("signalbox_bus_skipped_total", {"kind": kind}) or 0
