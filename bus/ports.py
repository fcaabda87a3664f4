"""What components ask of the bus. Two adapters: `bus.jetstream` and `bus.memory`."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import bus.policy
import bus.quota
import bus.usage  # noqa: F401  they register their events wherever the bus is used
from bus.events import Event


class Publisher(Protocol):
    """Puts events on the bus."""

    async def publish(self, event: Event, *, event_id: str | None = None) -> None:
        """Store `event`; it is durable when this returns. Raises BusUnavailable.

        A second event with the same `event_id` (default: a new UUID) is stored once.
        """
        ...


class StateFeed(Protocol):
    """Current state first (the last event of each subject), then what changes, in stream order."""

    backlog: int
    """How many events of current state come first; 0 when there is none."""

    def __aiter__(self) -> AsyncIterator[Event]:
        """Each event once, except that after a reconnect current state may come again."""
        ...


class StateFollower(Protocol):
    """Follows the state of the system; leaves nothing behind at the broker."""

    def follow(self, *patterns: str) -> AbstractAsyncContextManager[StateFeed]:
        """Follow all subjects under `patterns` (see `bus.subjects.pattern`).

        Outlives broker restarts. Events of unknown kinds are skipped and counted; malformed
        ones are put on the dead letter, and the feed goes on.
        """
        ...


class Delivery(Protocol):
    """One event of a shared subscription; it comes again unless acknowledged."""

    event: Event
    event_id: str
    attempt: int  # 1 for the first delivery

    async def ack(self) -> None:
        """The event is dealt with, for ever."""
        ...

    async def retry(self, delay_s: float = 0) -> None:
        """Not now: deliver it again after `delay_s` seconds."""
        ...

    async def dead_letter(self, reason: str) -> None:
        """Give it up: put it on the dead letter with `reason`, then acknowledge."""
        ...


class WorkSharer(Protocol):
    """Shares the events of a durable subscription among all processes that name it."""

    def share(
        self, consumer: str, *patterns: str
    ) -> AbstractAsyncContextManager[AsyncIterator[Delivery]]:
        """Deliveries of durable consumer `consumer`, at least once each, oldest first."""
        ...


class Bus(Publisher, StateFollower, WorkSharer, Protocol):
    """All of it."""

    @property
    def connected(self) -> bool:
        """Whether the broker is reachable, and its streams are in place, right now."""
        ...

    @property
    def epoch(self) -> int:
        """How often the broker was found to have lost what it had stored, 0 at first."""
        ...

    async def next_epoch(self, seen: int) -> int:
        """Wait until `epoch` is above `seen`; return it. Who owns the record tells it all again."""
        ...
