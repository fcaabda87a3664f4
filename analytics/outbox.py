"""Usage events on their way to the bus: a bounded buffer, and a count of what does not fit.

Routers get no acknowledgement and cannot be asked again, so while the bus is away events wait here;
when the buffer is full, new ones are dropped, counted, and told as AccessLogGap once the bus is
back. The id of an event is made when it enters, so that publishing again stores it once.
"""

import asyncio
from collections import deque
from contextlib import suppress
from time import time
from typing import Literal, NamedTuple
from uuid import uuid4

import structlog

from analytics import metrics
from bus.errors import BusUnavailable, MalformedEvent
from bus.events import Event
from bus.ports import Publisher
from bus.usage import AccessLogGap, RequestsServed

log = structlog.get_logger()

Reason = Literal["buffer-full", "unreadable", "refused"]

_EVENT_BYTES = 2_500
_ENTRY_BYTES = 230  # six numbers, each an object and a reference; measured with tracemalloc
_GROUP_BYTES = 700
_UNDER_WAY = 8  # events that may wait while the bus takes them
_RETRY_S = 0.1
_RETRY_MAX_S = 5.0


class _Waiting(NamedTuple):
    node: str
    event: Event
    event_id: str
    entries: int
    size_bytes: int


class Outbox:
    """Publishes in the order of arrival; `run` must be running."""

    def __init__(self, bus: Publisher, buffer_bytes: int) -> None:
        self._bus = bus
        self._buffer_bytes = buffer_bytes
        self._source = uuid4().hex
        self._made = 0
        self._queue: deque[_Waiting] = deque()
        self._size_bytes = 0
        self._gaps: dict[tuple[str, Reason], AccessLogGap] = {}
        self._work = asyncio.Event()
        self._away = False  # the bus, when last asked
        self._moved = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()

    def put(self, event: RequestsServed) -> None:
        """Take `event` over; it is dropped and counted when the buffer is full."""
        entries = len(event.group)
        size_bytes = _EVENT_BYTES + entries * _ENTRY_BYTES + len(event.groups) * _GROUP_BYTES
        if self._size_bytes + size_bytes > self._buffer_bytes:
            self.lose(event.node, entries, "buffer-full")
            return
        self._append(event.node, event, entries, size_bytes)

    def lose(self, node: str, entries: int, reason: Reason) -> None:
        """Count entries that cannot be kept."""
        metrics.DROPPED.labels(reason).inc(entries)
        now_ms = int(time() * 1000)
        known = self._gaps.get((node, reason))
        if known is None:
            log.error("access log entries dropped", node=node, reason=reason, entries=entries)
        self._gaps[node, reason] = AccessLogGap(
            node=node,
            entries=entries + (known.entries if known else 0),
            since_ms=known.since_ms if known else now_ms,
            until_ms=now_ms,
            reason=reason,
        )
        self._wake()

    async def room(self) -> None:
        """Wait while the bus is slow, so that little is in this process when it is killed.

        While the bus is away there is room, until the buffer is full.
        """
        while len(self._queue) >= _UNDER_WAY and not self._away:
            self._moved.clear()
            await self._moved.wait()

    async def run(self) -> None:
        """Publish what comes, for ever."""
        delay_s = 0.0
        while True:
            await self._work.wait()
            waiting = self._queue[0] if self._queue else self._next_gap()
            try:
                await self._bus.publish(waiting.event, event_id=waiting.event_id)
            except BusUnavailable as error:
                if not delay_s:
                    log.warning("usage events wait for the bus", reason=error.reason)
                delay_s = min(max(2 * delay_s, _RETRY_S), _RETRY_MAX_S)
                self._away = True
                self._moved.set()
                await asyncio.sleep(delay_s)
                continue
            except MalformedEvent as error:  # too large for the broker
                log.warning("usage event refused by the bus", reason=error.reason)
                self._forget_first()
                if waiting.entries:
                    self.lose(waiting.node, waiting.entries, "refused")
                continue
            if delay_s:
                log.info("usage events flow again", waiting=len(self._queue))
                delay_s = 0.0
                self._away = False
            metrics.PUBLISHED.inc(waiting.entries)
            self._forget_first()
            if not self._queue and not self._gaps:
                self._work.clear()
                self._idle.set()

    async def drained(self, within_s: float) -> None:
        """Wait until all is published; after `within_s` seconds, log what is given up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        if self._queue:
            entries = sum(waiting.entries for waiting in self._queue)
            log.error("usage events lost at shutdown: the bus is away", entries=entries)

    def _append(self, node: str, event: Event, entries: int, size_bytes: int) -> _Waiting:
        event_id = f"{self._source}-{self._made:08x}"  # neighbours in an index of ids
        self._made += 1
        waiting = _Waiting(node, event, event_id, entries, size_bytes)
        self._queue.append(waiting)
        self._size_bytes += size_bytes
        metrics.BUFFERED.set(self._size_bytes)
        self._wake()
        return waiting

    def _forget_first(self) -> None:
        self._size_bytes -= self._queue.popleft().size_bytes
        self._moved.set()
        metrics.BUFFERED.set(self._size_bytes)

    def _next_gap(self) -> _Waiting:
        place = next(iter(self._gaps))
        return self._append(place[0], self._gaps.pop(place), 0, _EVENT_BYTES)

    def _wake(self) -> None:
        self._idle.clear()
        self._work.set()
