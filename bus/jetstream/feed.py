"""Following a state: ordered, ephemeral push consumers that start with the last of each subject.

Everything happens in the task that iterates: there is none in the background. When the link is
lost, a message is missing or the broker is silent, the feed begins again with current state.
"""

import asyncio
from collections import deque
from collections.abc import Iterable
from typing import Any

import nats.errors
import nats.js.errors
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bus import metrics
from bus.envelope import decode, resume_trace
from bus.errors import BusError, BusUnavailable, MalformedEvent, UnknownEvent
from bus.events import Event
from bus.jetstream.broker import Broker
from bus.jetstream.link import Link
from bus.jetstream.position import position
from bus.jetstream.publisher import JetStreamPublisher

log = structlog.get_logger()

_NANOSECONDS = 1_000_000_000
_INACTIVE_S = 5  # the broker forgets a feed that nobody has listened to for so long
_RETRY_S = 0.1
_SILENT_HEARTBEATS = 2.5
_TURN = 64  # events taken without letting other tasks run


class Tap:
    """One consumer of one stream, as the feed knows it."""

    def __init__(self, stream: str, filters: tuple[str, ...], component: str) -> None:
        self.stream = stream
        self.filters = filters
        self.consumer = ""
        self.subscription: Subscription | None = None
        self.taken = 0  # consumer sequence of the last message taken
        self.current = 0  # how many messages of current state there were at the start
        self.seen_at = 0.0  # when the broker last said anything, loop time
        self.pending = metrics.FOLLOWER_PENDING.labels(component, stream)


class JetStreamFeed:
    """Current state, then changes. See `bus.ports.StateFeed`."""

    def __init__(
        self,
        broker: Broker,
        publisher: JetStreamPublisher,
        selection: dict[str, tuple[str, ...]],
    ) -> None:
        self.backlog = 0
        self._broker = broker
        self._publisher = publisher
        self._heartbeat_s = broker.settings.follow_heartbeat_s
        self._taps = [Tap(stream, filters, broker.name) for stream, filters in selection.items()]
        self._link: Link | None = None
        self._broken = ""  # why the feed has to begin again; empty while it need not
        self._messages: asyncio.Queue[tuple[Tap, Msg] | None] = asyncio.Queue()
        self._ready: deque[tuple[Event, dict[str, str] | None]] = deque()
        self._turn = 0

    def __aiter__(self) -> "JetStreamFeed":
        return self

    async def __anext__(self) -> Event:
        while not self._ready:
            await self._advance()
        event, headers = self._ready.popleft()
        resume_trace(headers)
        return event

    async def start(self) -> None:
        """Take in the whole current state, so that `backlog` counts exactly what is to come."""
        self._broker.watchers.add(self._on_lost)
        await self._open()
        while any(tap.taken < tap.current for tap in self._taps):
            await self._advance()
        self.backlog = len(self._ready)

    async def close(self) -> None:
        """Leave nothing behind at the broker."""
        self._broker.watchers.discard(self._on_lost)
        if self._link is None or self._link.lost.done():
            return
        for tap in self._taps:
            try:
                await self._forget(self._link, tap)
            except (BusError, nats.js.errors.NotFoundError) as error:
                log.debug("consumer left to the broker to forget", reason=str(error))

    def _on_lost(self) -> None:
        self._messages.put_nowait(None)

    async def _advance(self) -> None:
        """Take one message, or begin again. What is an event goes to `_ready`."""
        if self._broken:
            log.info("feed begins again", reason=self._broken, component=self._broker.name)
            metrics.FEED_RESTARTS.labels(self._broker.name).inc()
            self._ready.clear()
            await self._open()
        self._turn += 1
        if self._turn % _TURN == 0:
            await asyncio.sleep(0)
        try:
            item = self._messages.get_nowait()
        except asyncio.QueueEmpty:
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    item = await self._messages.get()
            except TimeoutError:
                self._listen_for_silence()
                return
        if item is None:
            self._broken = "connection lost"
        else:
            await self._take(*item)

    def _listen_for_silence(self) -> None:
        now = asyncio.get_running_loop().time()
        for tap in self._taps:
            if now - tap.seen_at > _SILENT_HEARTBEATS * self._heartbeat_s:
                self._broken = f"{tap.stream} is silent"

    async def _take(self, tap: Tap, msg: Msg) -> None:
        where = position(msg.reply)
        if where is None:
            await self._control(tap, msg)
        elif where.consumer_seq != tap.taken + 1:
            self._broken = f"{tap.stream}: {where.consumer_seq} came after {tap.taken}"
        else:
            tap.taken = where.consumer_seq
            tap.pending.set(where.pending)
            await self._read(msg, where.place)

    async def _read(self, msg: Msg, place: str) -> None:
        try:
            self._ready.append((decode(msg.subject, msg.headers, msg.data).event, msg.headers))
        except UnknownEvent as error:
            metrics.skipped(error.kind)
        except MalformedEvent as error:
            try:
                await self._publisher.bury(self._broker.name, error.reason, msg, place)
            except BusError as failure:  # it stays in the stream; a later feed tries again
                log.error("not dead-lettered", reason=str(failure), subject=msg.subject)  # noqa: TRY400

    async def _control(self, tap: Tap, msg: Msg) -> None:
        """Heartbeats, flow control, and the end of the consumer.

        Source: https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-9.md
        """
        headers = msg.headers or {}
        if headers.get("Status") != "100":
            self._broken = f"{tap.stream}: {headers.get('Description') or 'status without words'}"
            return
        wanted_reply = msg.reply or headers.get("Nats-Consumer-Stalled", "")
        if wanted_reply and self._link is not None:
            try:
                await self._link.send(wanted_reply)
            except BusUnavailable:
                return  # the loss is on its way through the queue
        last = headers.get("Nats-Last-Consumer")
        if last is not None and int(last) != tap.taken:
            self._broken = f"{tap.stream}: {last} was sent, {tap.taken} has come"
        elif last is not None:
            tap.current = tap.taken  # nothing more to come: what it counted has expired

    async def _open(self) -> None:
        """Begin, or begin again, when there is a broker. Raises BusUnavailable once closed."""
        while True:
            link = await self._broker.link()
            try:
                self._messages = asyncio.Queue()
                for tap in self._taps:
                    await self._tap(link, tap)
            except nats.js.errors.NotFoundError:
                log.warning("stream is missing", component=self._broker.name)
                await self._broker.repair(link)
            except BusUnavailable as error:
                log.info("feed not open yet", reason=error.reason, component=self._broker.name)
            else:
                self._link = link
                # lost while it was opened: the watcher may have spoken to the queue before this one
                self._broken = "connection lost" if link.lost.done() else ""
                return
            await asyncio.sleep(_RETRY_S)

    async def _tap(self, link: Link, tap: Tap) -> None:
        if tap.subscription is not None and link is self._link:
            await self._forget(link, tap)
        loop = asyncio.get_running_loop()
        messages = self._messages

        async def arrived(msg: Msg) -> None:
            tap.seen_at = loop.time()
            messages.put_nowait((tap, msg))

        inbox, tap.subscription = await link.subscribe(arrived)
        info = await link.api(
            f"CONSUMER.CREATE.{tap.stream}",
            stream_name=tap.stream,
            config=self._config(inbox, tap.filters),
        )
        tap.consumer = info["name"]
        tap.taken = 0
        tap.current = info["num_pending"] + info["delivered"]["consumer_seq"]
        tap.seen_at = loop.time()

    async def _forget(self, link: Link, tap: Tap) -> None:
        subscription, tap.subscription = tap.subscription, None
        if subscription is not None:
            try:
                await subscription.unsubscribe()
            except nats.errors.Error as error:
                raise BusUnavailable(str(error)) from error
            await link.api(f"CONSUMER.DELETE.{tap.stream}.{tap.consumer}")

    def _config(self, inbox: str, filters: Iterable[str]) -> dict[str, Any]:
        return {
            "deliver_subject": inbox,
            "deliver_policy": "last_per_subject",
            "ack_policy": "none",
            "replay_policy": "instant",
            "filter_subjects": list(filters),
            "flow_control": True,
            "idle_heartbeat": int(self._heartbeat_s * _NANOSECONDS),
            "inactive_threshold": _INACTIVE_S * _NANOSECONDS,
            "mem_storage": True,
            "num_replicas": 1,
        }
