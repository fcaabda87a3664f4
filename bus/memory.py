"""The bus without a broker: the same envelope, the same order, the same guarantees, in one process.

For tests and for components that are embedded; nothing outlives the process.
"""

import asyncio
import heapq
import uuid
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from bus import metrics
from bus.dead_letter import dead_letter, is_dead_letter
from bus.envelope import MESSAGE_ID, Message, decode, encode, resume_trace
from bus.errors import BusUnavailable, MalformedEvent, UnknownEvent
from bus.events import Event
from bus.selection import selected
from bus.settings import BusSettings
from bus.subjects import STREAMS, Stream, matches

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Stored:
    """A message in its stream."""

    stream: str
    sequence: int  # from 1, within the stream
    message: Message

    @property
    def place(self) -> str:
        """The message's name among all that this bus has stored."""
        return f"{self.stream}.{self.sequence}"


@dataclass(slots=True)
class _Log:
    """One stream's messages, bounded as the stream says."""

    stream: Stream
    messages: deque[tuple[float, Stored]] = field(default_factory=deque)  # with the time stored
    ids: dict[str, float] = field(default_factory=dict)  # event id -> when it is forgotten
    count: int = 0
    size_bytes: int = 0

    def append(self, message: Message, now: float) -> Stored | None:
        """The message as stored; None when its id was stored within the duplicate window."""
        self._forget(now)
        event_id = message.headers.get(MESSAGE_ID)
        if event_id is not None:
            if event_id in self.ids:
                return None
            self.ids[event_id] = now + self.stream.duplicate_window_s
        self.count += 1
        stored = Stored(self.stream.name, self.count, message)
        self.messages.append((now, stored))
        self.size_bytes += len(message.body)
        self._forget(now)
        return stored

    def _forget(self, now: float) -> None:
        while self.ids and next(iter(self.ids.values())) <= now:
            del self.ids[next(iter(self.ids))]
        oldest = now - (self.stream.max_age_s or now)
        bound = self.stream.max_bytes
        while self.messages and (self.messages[0][0] < oldest or 0 <= bound < self.size_bytes):
            self.size_bytes -= len(self.messages.popleft()[1].message.body)


class MemoryFeed:
    """Current state, then changes. See `bus.ports.StateFeed`."""

    def __init__(self, bus: "MemoryBus", patterns: tuple[str, ...]) -> None:
        self.backlog = 0
        self._bus = bus
        self._patterns = patterns
        self._changes: asyncio.Queue[Stored] = asyncio.Queue()
        self._ready: deque[tuple[Event, dict[str, str]]] = deque()

    def __aiter__(self) -> "MemoryFeed":
        return self

    async def __anext__(self) -> Event:
        while not self._ready:
            await self._read(await self._changes.get())
        event, headers = self._ready.popleft()
        resume_trace(headers)
        return event

    async def start(self, current: list[Stored]) -> None:
        """Take in the current state."""
        for stored in current:
            await self._read(stored)
        self.backlog = len(self._ready)

    def offer(self, stored: Stored) -> None:
        """Take `stored` if it was subscribed to."""
        if any(matches(pattern, stored.message.subject) for pattern in self._patterns):
            self._changes.put_nowait(stored)

    async def _read(self, stored: Stored) -> None:
        message = stored.message
        try:
            self._ready.append((decode(*message).event, message.headers))
        except UnknownEvent as error:
            metrics.skipped(error.kind)
        except MalformedEvent as error:
            try:
                await self._bus.bury(self._bus.name, error.reason, stored)
            except BusUnavailable as failure:
                log.error("not dead-lettered", reason=failure.reason, subject=message.subject)  # noqa: TRY400


class MemoryDelivery:
    """One event, handed out until it is acknowledged. See `bus.ports.Delivery`."""

    def __init__(
        self, event: Event, event_id: str, attempt: int, stored: Stored, consumer: "_Consumer"
    ) -> None:
        self.event = event
        self.event_id = event_id
        self.attempt = attempt
        self._stored = stored
        self._consumer = consumer

    async def ack(self) -> None:
        """Dealt with."""
        self._consumer.settle(self._stored.place)

    async def retry(self, delay_s: float = 0) -> None:
        """Deliver again after `delay_s` seconds."""
        self._consumer.postpone(self._stored, delay_s)

    async def dead_letter(self, reason: str) -> None:
        """Keep the message with `reason`, then acknowledge it. Raises BusUnavailable."""
        await self._consumer.bus.bury(self._consumer.name, reason, self._stored)
        await self.ack()


class _Consumer:
    """A durable consumer: what is due when. Handing out makes a message due again later."""

    def __init__(self, bus: "MemoryBus", name: str) -> None:
        self.bus = bus
        self.name = name
        self.patterns: tuple[str, ...] = ()
        self._order = 0
        self._heap: list[tuple[float, int, Stored]] = []  # due, then in order of arrival
        self._due: dict[str, tuple[float, int]] = {}  # place -> the entry that counts
        self._attempts: dict[str, int] = {}
        self._changed = asyncio.Event()

    def offer(self, stored: Stored) -> None:
        """Take `stored` if it was subscribed to."""
        if any(matches(pattern, stored.message.subject) for pattern in self.patterns):
            self._attempts[stored.place] = 0
            self._put(stored, 0.0)

    def forget(self) -> None:
        """Drop everything that was to be handed out."""
        self._heap.clear()
        self._due.clear()
        self._attempts.clear()

    def settle(self, place: str) -> None:
        """Never hand out `place` again."""
        self._due.pop(place, None)
        self._attempts.pop(place, None)

    def postpone(self, stored: Stored, delay_s: float) -> None:
        """Hand `stored` out again in `delay_s` seconds, unless it is settled."""
        if stored.place in self._due:
            self._put(stored, asyncio.get_running_loop().time() + delay_s)

    async def next(self) -> tuple[Stored, int]:
        """The message that is due first, waited for, and which attempt this is."""
        loop = asyncio.get_running_loop()
        while True:
            self._changed.clear()
            while self._heap and self._due.get(self._heap[0][2].place) != self._heap[0][:2]:
                heapq.heappop(self._heap)  # settled or postponed since
            if self._heap and self._heap[0][0] <= loop.time():
                stored = heapq.heappop(self._heap)[2]
                self._attempts[stored.place] += 1
                self._put(stored, loop.time() + self.bus.settings.share_ack_wait_s)
                return stored, self._attempts[stored.place]
            try:
                async with asyncio.timeout_at(self._heap[0][0] if self._heap else None):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _put(self, stored: Stored, due: float) -> None:
        self._order += 1
        self._due[stored.place] = (due, self._order)
        heapq.heappush(self._heap, (due, self._order, stored))
        self._changed.set()


class MemoryShare:
    """Deliveries of one durable consumer to this worker."""

    def __init__(self, consumer: _Consumer) -> None:
        self._consumer = consumer

    def __aiter__(self) -> "MemoryShare":
        return self

    async def __anext__(self) -> MemoryDelivery:
        consumer = self._consumer
        while True:
            stored, attempt = await consumer.next()
            await asyncio.sleep(0)  # another worker may want the next one
            try:
                event, event_id = decode(*stored.message)
            except UnknownEvent as error:
                metrics.skipped(error.kind)
            except MalformedEvent as error:
                try:
                    await consumer.bus.bury(consumer.name, error.reason, stored)
                except BusUnavailable as failure:  # not acknowledged: it comes again
                    log.error("not dead-lettered", reason=failure.reason)  # noqa: TRY400
                    continue
            else:
                resume_trace(stored.message.headers)
                return MemoryDelivery(event, event_id, attempt, stored, consumer)
            consumer.settle(stored.place)


class MemoryBus:
    """Everything of `bus.ports.Bus`. Set `connected` to False to see what a lost broker does."""

    def __init__(self, settings: BusSettings | None = None, *, name: str = "memory") -> None:
        self.settings = settings or BusSettings()
        self.name = name
        self.connected = True
        self.epoch = 0
        self._new_epoch = asyncio.Event()
        self._logs = {stream.name: _Log(stream) for stream in STREAMS}
        self._feeds: set[MemoryFeed] = set()
        self._consumers: dict[str, _Consumer] = {}

    async def next_epoch(self, seen: int) -> int:
        """Wait until `epoch` is above `seen`; return it."""
        while self.epoch <= seen:
            await self._new_epoch.wait()
        return self.epoch

    async def publish(self, event: Event, *, event_id: str | None = None) -> None:
        """Store `event`. Raises BusUnavailable while `connected` is False."""
        message = encode(event, event_id or str(uuid.uuid4()), source=f"/signalbox/{self.name}")
        try:
            self.store(message)
        except BusUnavailable:
            metrics.PUBLISH_FAILURES.labels(event.kind).inc()
            raise
        metrics.PUBLISHED.labels(event.kind).inc()

    def store(self, message: Message) -> None:
        """Store a message as it is, as a foreign sender could. Raises BusUnavailable."""
        if not self.connected:
            raise BusUnavailable("not connected")
        for one in self._logs.values():
            if matches(one.stream.subjects[0], message.subject):
                stored = one.append(message, asyncio.get_running_loop().time())
                if stored is not None:
                    for feed in self._feeds:
                        feed.offer(stored)
                    for consumer in self._consumers.values():
                        consumer.offer(stored)
                return
        raise BusUnavailable(f"no stream takes {message.subject}")

    def lose_everything(self) -> None:
        """Come back empty, as a broker does that keeps its streams in memory: a new epoch."""
        self._logs = {
            name: _Log(log.stream, count=log.count)  # so that a late answer hits nothing new
            for name, log in self._logs.items()
        }
        for consumer in self._consumers.values():
            consumer.forget()
        self.epoch += 1
        self._new_epoch.set()
        self._new_epoch = asyncio.Event()

    async def bury(self, consumer: str, reason: str, stored: Stored) -> None:
        """Put a message on the dead letter, once. Raises BusUnavailable."""
        subject, headers, body = stored.message
        log.warning("dead letter", consumer=consumer, reason=reason, subject=subject)
        if is_dead_letter(subject):
            return
        try:
            await self.publish(
                dead_letter(consumer, reason, subject, headers, body),
                event_id=f"dead-letter.{consumer}.{stored.place}",
            )
        except BusUnavailable:
            metrics.DEAD_LETTER_FAILURES.labels(consumer).inc()
            raise
        metrics.DEAD_LETTERED.labels(consumer).inc()

    @asynccontextmanager
    async def follow(self, *patterns: str) -> AsyncIterator[MemoryFeed]:
        """See `bus.ports.StateFollower`. Raises ValueError for bad patterns."""
        feed = MemoryFeed(self, tuple(p for some in selected(patterns).values() for p in some))
        self._feeds.add(feed)
        try:
            await feed.start(self._current(selected(patterns)))
            yield feed
        finally:
            self._feeds.discard(feed)

    @asynccontextmanager
    async def share(
        self, consumer: str, *patterns: str
    ) -> AsyncIterator[AsyncIterator[MemoryDelivery]]:
        """See `bus.ports.WorkSharer`. Raises ValueError for bad patterns."""
        chosen = selected(patterns)
        durable = self._consumers.get(consumer)
        if durable is None:
            durable = self._consumers[consumer] = _Consumer(self, consumer)
            durable.patterns = tuple(pattern for some in chosen.values() for pattern in some)
            for stream in chosen:
                for _, stored in tuple(self._logs[stream].messages):
                    durable.offer(stored)
        durable.patterns = tuple(pattern for some in chosen.values() for pattern in some)
        yield MemoryShare(durable)

    def _current(self, chosen: Mapping[str, tuple[str, ...]]) -> list[Stored]:
        """The last message of each subject that was chosen, in stream order."""
        last: dict[tuple[str, str], Stored] = {}
        for stream, patterns in chosen.items():
            for _, stored in self._logs[stream].messages:
                if any(matches(pattern, stored.message.subject) for pattern in patterns):
                    last.pop((stream, stored.message.subject), None)
                    last[stream, stored.message.subject] = stored
        return list(last.values())
