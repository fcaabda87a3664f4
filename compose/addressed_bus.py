"""A bus that speaks for one gateway group of one organization, whatever its user leaves open.

Components need not know whose they are: events without an address get one, subscriptions to any
organization or gateway are narrowed, and shared work is shared within the group only. What is
published is a span, whose trace the event carries on.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager

from opentelemetry.trace import SpanKind, get_tracer

from bus.events import Event
from bus.ports import Bus, Delivery, StateFeed
from bus.subjects import token

_TRACER = get_tracer("signalbox.bus")  # costs nothing to speak of until traces are switched on
_ANY = "*"
_DEFAULT = "default"


class AddressedBus:
    """Everything of `bus.ports.Bus`."""

    def __init__(self, bus: Bus, *, org: str, gateway: str) -> None:
        self._bus = bus
        self._org = org
        self._gateway = gateway
        self._own = (org, gateway) != (_DEFAULT, _DEFAULT)

    @property
    def connected(self) -> bool:
        """See Bus."""
        return self._bus.connected

    @property
    def epoch(self) -> int:
        """See Bus."""
        return self._bus.epoch

    async def next_epoch(self, seen: int) -> int:
        """See Bus."""
        return await self._bus.next_epoch(seen)

    async def publish(self, event: Event, *, event_id: str | None = None) -> None:
        """See Publisher."""
        if self._own and (event.org, event.gateway) == (_DEFAULT, _DEFAULT):
            event = event.model_copy(update={"org": self._org, "gateway": self._gateway})
        with _TRACER.start_as_current_span(f"publish {event.kind}", kind=SpanKind.PRODUCER):
            await self._bus.publish(event, event_id=event_id)

    def follow(self, *patterns: str) -> AbstractAsyncContextManager[StateFeed]:
        """See StateFollower."""
        return self._bus.follow(*map(self._narrowed, patterns))

    def share(
        self, consumer: str, *patterns: str
    ) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """See WorkSharer."""
        if self._own:
            consumer = f"{consumer}-{token(self._org)}-{token(self._gateway)}".replace("=", "_")
        return self._bus.share(consumer, *map(self._narrowed, patterns))

    def _narrowed(self, pattern: str) -> str:
        root, org, gateway, *rest = pattern.split(".")
        org = token(self._org) if org == _ANY else org
        gateway = token(self._gateway) if gateway == _ANY else gateway
        return ".".join((root, org, gateway, *rest))
