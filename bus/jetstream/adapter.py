"""The bus on NATS JetStream."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

from bus.events import Event
from bus.jetstream.broker import Broker
from bus.jetstream.feed import JetStreamFeed
from bus.jetstream.publisher import JetStreamPublisher
from bus.jetstream.share import JetStreamDelivery, JetStreamShare
from bus.selection import selected
from bus.settings import BusSettings


class JetStreamBus:
    """Everything of `bus.ports.Bus`, over one connection that is made anew when it is lost."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._publisher = JetStreamPublisher(broker)

    @classmethod
    @asynccontextmanager
    async def connect(cls, settings: BusSettings, *, name: str) -> AsyncIterator[Self]:
        """The bus for as long as the context lasts; `name` says which component speaks.

        Puts the streams in place. Raises BusUnavailable when there is no broker within
        `nats_connect_timeout_s`.
        """
        broker = Broker(settings, name)
        async with broker.running():
            yield cls(broker)

    @property
    def connected(self) -> bool:
        """Whether the broker is reachable, and its streams are in place, right now."""
        return self._broker.connected

    @property
    def epoch(self) -> int:
        """How often the broker was found to have lost what it had stored, 0 at first."""
        return self._broker.epoch

    async def next_epoch(self, seen: int) -> int:
        """Wait until `epoch` is above `seen`; return it. Raises BusUnavailable once closed."""
        return await self._broker.next_epoch(seen)

    async def publish(self, event: Event, *, event_id: str | None = None) -> None:
        """Store `event`. Raises BusUnavailable; MalformedEvent when it is too large."""
        await self._publisher.publish(event, event_id=event_id)

    @asynccontextmanager
    async def follow(self, *patterns: str) -> AsyncIterator[JetStreamFeed]:
        """See `bus.ports.StateFollower`; waits for a broker. Raises ValueError for bad patterns."""
        feed = JetStreamFeed(self._broker, self._publisher, selected(patterns))
        try:
            await feed.start()
            yield feed
        finally:
            await feed.close()

    @asynccontextmanager
    async def share(
        self, consumer: str, *patterns: str
    ) -> AsyncIterator[AsyncIterator[JetStreamDelivery]]:
        """See `bus.ports.WorkSharer`; waits for a broker. Raises ValueError for bad patterns."""
        share = JetStreamShare(self._broker, self._publisher, consumer, selected(patterns))
        try:
            await share.start()
            yield share
        finally:
            await share.close()
