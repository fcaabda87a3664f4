"""Sharing work: durable pull consumers with explicit acknowledgements.

As in the feed, everything happens in the task that iterates. Deliveries are asked for in batches
that wait at the broker, so an event reaches an idle worker at once.
"""

import asyncio
import json
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
from bus.jetstream.position import Position, position
from bus.jetstream.publisher import JetStreamPublisher
from bus.subjects import token

log = structlog.get_logger()

_NANOSECONDS = 1_000_000_000
_ACK = b"+ACK"
_RETRY = b"-NAK"
_RETRY_S = 0.1
_CLOSE_S = 2.0
_SILENT_HEARTBEATS = 2.5
_PULL_HEARTBEATS = 10  # a request for deliveries ends after so many heartbeats
_ENDED = ("404", "408")  # no messages, request timeout: ask again


class JetStreamDelivery:
    """One event, handed out until it is acknowledged. See `bus.ports.Delivery`."""

    def __init__(
        self, event: Event, event_id: str, msg: Msg, where: Position, line: "Line"
    ) -> None:
        self.event = event
        self.event_id = event_id
        self.attempt = where.attempt
        self._msg = msg
        self._where = where
        self._line = line
        self._life = line.life

    async def ack(self) -> None:
        """Dealt with; while the broker is away the acknowledgement is kept until it is back."""
        await self._line.settle(self._msg, _ACK, self._life)

    async def retry(self, delay_s: float = 0) -> None:
        """Deliver again after `delay_s` seconds."""
        await self._line.settle(self._msg, _again(delay_s), self._life)

    async def dead_letter(self, reason: str) -> None:
        """Keep the message with `reason`, then acknowledge it. Raises BusUnavailable."""
        await self._line.share.bury(reason, self._msg, self._where)
        await self.ack()


def _again(delay_s: float) -> bytes:
    if delay_s <= 0:
        return _RETRY
    return _RETRY + b" " + json.dumps({"delay": int(delay_s * _NANOSECONDS)}).encode()


class Line:
    """The consumer of one stream, and what was asked of it."""

    def __init__(self, share: "JetStreamShare", stream: str, filters: tuple[str, ...]) -> None:
        self.share = share
        self.stream = stream
        self.filters = filters
        self.life = 0  # the stream's, when the consumer was put in place
        self.inbox = ""
        self.subscription: Subscription | None = None
        self.asked = 0  # deliveries asked for that have not come
        self.seen_at = 0.0  # when the broker last said anything, loop time

    async def settle(self, msg: Msg, answer: bytes, life: int) -> None:
        """Answer a delivery that was made in `life`."""
        await self.share.broker.settle(msg.reply, answer, self.stream, life)


class JetStreamShare:
    """Deliveries of one durable consumer to this worker."""

    def __init__(
        self,
        broker: Broker,
        publisher: JetStreamPublisher,
        consumer: str,
        selection: dict[str, tuple[str, ...]],
    ) -> None:
        self.broker = broker
        self.consumer = consumer
        self._publisher = publisher
        self._durable = token(consumer)
        self._heartbeat_s = broker.settings.follow_heartbeat_s
        self._lines = [Line(self, stream, filters) for stream, filters in selection.items()]
        self._link: Link | None = None
        self._broken = ""
        self._messages: asyncio.Queue[tuple[Line, Msg] | None] = asyncio.Queue()

    def __aiter__(self) -> "JetStreamShare":
        return self

    async def __anext__(self) -> JetStreamDelivery:
        while True:
            delivery = await self._advance()
            if delivery is not None:
                return delivery

    async def start(self) -> None:
        """Put the durable consumer in place."""
        self.broker.watchers.add(self._on_lost)
        await self._open()

    async def close(self) -> None:
        """Give back what was delivered to this worker and not looked at."""
        self.broker.watchers.discard(self._on_lost)
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._hang_up(drain=True)  # what is on its way comes first
        except (BusUnavailable, TimeoutError) as error:
            log.debug("subscription left to the broker to forget", reason=str(error))
        while not self._messages.empty():
            item = self._messages.get_nowait()
            if item is not None and position(item[1].reply) is not None:
                line, msg = item
                await line.settle(msg, _RETRY, line.life)

    async def bury(self, reason: str, msg: Msg, where: Position) -> None:
        """Put `msg` on the dead letter. Raises BusError."""
        await self._publisher.bury(self.consumer, reason, msg, where.place)

    def _on_lost(self) -> None:
        self._messages.put_nowait(None)

    async def _advance(self) -> JetStreamDelivery | None:
        if self._broken:
            log.info("share begins again", reason=self._broken, consumer=self.consumer)
            await self._open()
        try:
            item = self._messages.get_nowait()
        except asyncio.QueueEmpty:
            try:
                await self._ask()
                async with asyncio.timeout(self._heartbeat_s):
                    item = await self._messages.get()
            except TimeoutError:
                self._listen_for_silence()
                return None
            except BusUnavailable as error:
                self._broken = error.reason
                return None
        if item is None:
            self._broken = "connection lost"
            return None
        line, msg = item
        where = position(msg.reply)
        if where is None:
            self._control(line, msg)
            return None
        line.asked -= 1
        return await self._read(line, msg, where)

    def _listen_for_silence(self) -> None:
        now = asyncio.get_running_loop().time()
        for line in self._lines:
            if line.asked > 0 and now - line.seen_at > _SILENT_HEARTBEATS * self._heartbeat_s:
                self._broken = f"{line.stream} is silent"

    def _control(self, line: Line, msg: Msg) -> None:
        headers = msg.headers or {}
        status = headers.get("Status", "")
        if status in _ENDED:
            line.asked = 0
        elif status != "100":
            words = headers.get("Description") or "no such consumer"
            self._broken = f"{line.stream}: {status} {words}"

    async def _read(self, line: Line, msg: Msg, where: Position) -> JetStreamDelivery | None:
        try:
            event, event_id = decode(msg.subject, msg.headers, msg.data)
        except UnknownEvent as error:
            metrics.skipped(error.kind)
        except MalformedEvent as error:
            try:
                await self.bury(error.reason, msg, where)
            except BusError as failure:  # not acknowledged: it comes again
                log.error("not dead-lettered", reason=str(failure), subject=msg.subject)  # noqa: TRY400
                return None
        else:
            resume_trace(msg.headers)
            return JetStreamDelivery(event, event_id, msg, where, line)
        await line.settle(msg, _ACK, line.life)
        return None

    async def _ask(self) -> None:
        """Ask for a batch of every stream from which none is on its way."""
        link = self._link
        if link is None:
            return
        for line in self._lines:
            if line.asked <= 0:
                request = {
                    "batch": self.broker.settings.share_batch,
                    "expires": int(_PULL_HEARTBEATS * self._heartbeat_s * _NANOSECONDS),
                    "idle_heartbeat": int(self._heartbeat_s * _NANOSECONDS),
                }
                line.asked = self.broker.settings.share_batch
                line.seen_at = asyncio.get_running_loop().time()
                await link.send(
                    f"$JS.API.CONSUMER.MSG.NEXT.{line.stream}.{self._durable}",
                    json.dumps(request).encode(),
                    line.inbox,
                )

    async def _open(self) -> None:
        """Put the consumer in place when there is a broker. Raises BusUnavailable once closed."""
        while True:
            link = await self.broker.link()
            try:
                await self._hang_up()
                for line in self._lines:
                    await self._subscribe(link, line)
            except nats.js.errors.NotFoundError:
                await self.broker.repair(link)
            except BusUnavailable as error:
                log.info("share not open yet", reason=error.reason, consumer=self.consumer)
            else:
                self._link = link
                self._broken = "connection lost" if link.lost.done() else ""
                return
            await asyncio.sleep(_RETRY_S)

    async def _hang_up(self, *, drain: bool = False) -> None:
        for line in self._lines:
            subscription, line.subscription = line.subscription, None
            line.asked = 0
            if subscription is None or self._link is None or self._link.lost.done():
                continue
            try:
                if drain:
                    await subscription.drain()  # type: ignore[no-untyped-call]
                else:
                    await subscription.unsubscribe()
            except nats.errors.Error as error:
                raise BusUnavailable(str(error)) from error

    async def _subscribe(self, link: Link, line: Line) -> None:
        loop = asyncio.get_running_loop()

        async def arrived(msg: Msg) -> None:
            line.seen_at = loop.time()
            self._messages.put_nowait((line, msg))

        line.life = self.broker.life(line.stream)
        await link.api(
            f"CONSUMER.CREATE.{line.stream}.{self._durable}",
            stream_name=line.stream,
            config=self._config(line.filters),
        )
        line.inbox, line.subscription = await link.subscribe(arrived)

    def _config(self, filters: tuple[str, ...]) -> dict[str, Any]:
        settings = self.broker.settings
        return {
            "name": self._durable,
            "durable_name": self._durable,
            "deliver_policy": "all",
            "ack_policy": "explicit",
            "ack_wait": int(settings.share_ack_wait_s * _NANOSECONDS),
            "max_deliver": -1,
            "max_ack_pending": settings.share_unacked_max,
            "filter_subjects": list(filters),
            "replay_policy": "instant",
            "num_replicas": 0,
        }
