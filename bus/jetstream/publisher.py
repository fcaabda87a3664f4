"""Publishing to JetStream: acknowledged, repeated within a bounded time, stored once."""

import asyncio
import uuid

import nats.errors
import structlog
from nats.aio.msg import Msg

from bus import metrics
from bus.dead_letter import dead_letter, is_dead_letter, without_body
from bus.envelope import Message, encode
from bus.errors import BusError, BusUnavailable, MalformedEvent
from bus.events import Event
from bus.jetstream.broker import Broker
from bus.jetstream.link import bus_error

log = structlog.get_logger()

_FIRST_PAUSE_S = 0.02
_LONGEST_PAUSE_S = 0.5


class JetStreamPublisher:
    """Puts events on the broker's streams."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._source = f"/signalbox/{broker.name}"

    async def publish(self, event: Event, *, event_id: str | None = None) -> None:
        """Store `event`. Raises BusUnavailable after `publish_timeout_s`, MalformedEvent at once.

        Malformed is what no broker will ever take: an event larger than its messages may be.
        """
        message = encode(event, event_id or str(uuid.uuid4()), source=self._source)
        try:
            await self._store(message)
        except BusError:
            metrics.PUBLISH_FAILURES.labels(event.kind).inc()
            raise
        metrics.PUBLISHED.labels(event.kind).inc()

    async def bury(self, consumer: str, reason: str, msg: Msg, place: str) -> None:
        """Put `msg` on the dead letter once for its `place` (stream and number). Raises BusError.

        What is malformed on the dead letter itself stays there and is only logged.
        """
        log.warning("dead letter", consumer=consumer, reason=reason, subject=msg.subject)
        if is_dead_letter(msg.subject):
            return
        letter = dead_letter(consumer, reason, msg.subject, msg.headers, msg.data)
        event_id = f"dead-letter.{consumer}.{place}"
        try:
            try:
                await self.publish(letter, event_id=event_id)
            except MalformedEvent:
                await self.publish(without_body(letter), event_id=event_id)
        except BusError:
            metrics.DEAD_LETTER_FAILURES.labels(consumer).inc()
            raise
        metrics.DEAD_LETTERED.labels(consumer).inc()

    async def _store(self, message: Message) -> None:
        loop = asyncio.get_running_loop()
        settings = self._broker.settings
        deadline = loop.time() + settings.publish_timeout_s
        pause_s = _FIRST_PAUSE_S
        while True:
            attempt_ends = min(deadline, loop.time() + settings.publish_attempt_timeout_s)
            try:
                async with asyncio.timeout_at(attempt_ends):
                    return await self._attempt(message)
            except TimeoutError:  # not the library's: `_attempt` has mapped those
                where = "no acknowledgement" if self._broker.connected else "not connected"
                failure = BusUnavailable(f"{where} in time")
            except BusUnavailable as error:
                failure = error
            if loop.time() + pause_s >= deadline:
                raise failure
            log.info("publishing again", reason=failure.reason, subject=message.subject)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)

    async def _attempt(self, message: Message) -> None:
        """Store once. Raises BusUnavailable, MalformedEvent."""
        link = await self._broker.link()
        try:
            ack = await link.store(*message)
        except nats.errors.NoRespondersError as error:  # the stream is gone, the broker is not
            await self._broker.ensure_streams(link)
            raise BusUnavailable("no stream took the message") from error
        except nats.errors.TimeoutError as error:
            raise BusUnavailable(str(error)) from error
        except (nats.errors.Error, OSError, ValueError, KeyError) as error:
            raise bus_error(error) from error
        self._broker.stored(ack["stream"], ack["seq"])
