"""Events as they pass on the bus, for people who watch: nothing is acknowledged, nothing created.

What is past is read from the streams, what comes is a plain subscription, which outlives restarts
of the broker. What both show is shown once.
"""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import unquote

import nats
import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from bus.subjects import STREAMS, Stream, matches
from ctl.errors import Misused, NotReachable

CONNECT_TIMEOUT_S = 5.0
_FETCH = 256
_FETCH_TIMEOUT_S = 2.0
_REMEMBERED = 100_000
"""How many ids of past events are compared with what comes."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the bus is."""

    url: str
    user: str = ""
    password: str = ""


@dataclass(frozen=True, slots=True)
class Observed:
    """One event as it passed, read as far as it can be."""

    subject: str  # of the message
    attributes: dict[str, str]  # CloudEvents' own names, and extensions such as traceparent
    data: Any  # JSON, or the text when it is none

    @property
    def event_id(self) -> str:
        """The event's id."""
        return self.attributes.get("id", "")

    @property
    def kind(self) -> str:
        """The event's kind, such as `rest-api.published`."""
        return self.attributes.get("type", "?").removeprefix("sbx.")

    @property
    def time(self) -> str:
        """When it happened, as its sender says."""
        return self.attributes.get("time", "")

    def cloud_event(self) -> dict[str, Any]:
        """The event in CloudEvents' JSON format.

        Source: https://github.com/cloudevents/spec/blob/main/cloudevents/formats/json-format.md
        """
        return {**self.attributes, "data": self.data}


async def follow(
    broker: Broker, patterns: Sequence[str], since: datetime | None
) -> AsyncGenerator[Observed]:
    """Events under `patterns`: those since then in their order, then what comes, for ever.

    Raises NotReachable, Misused.
    """
    client, lost = await _connect(broker)
    try:
        waiting: asyncio.Queue[Msg] = asyncio.Queue()
        for pattern in patterns:
            await client.subscribe(pattern, cb=waiting.put)
        await client.flush()
        shown: deque[str] = deque(maxlen=_REMEMBERED)
        if since is not None:
            async with contextlib.aclosing(_past(client, patterns, since)) as past:
                async for event in past:
                    shown.append(event.event_id)
                    yield event
        ids = frozenset(shown)
        while True:
            event = observed(await _next(waiting, lost))
            if event.event_id not in ids:
                yield event
    except nats.errors.BadSubjectError:
        raise Misused(f"not a subject: {', '.join(patterns)}") from None
    except nats.errors.Error as error:
        raise NotReachable(f"the bus at {broker.url}: {error}") from error
    finally:
        with contextlib.suppress(nats.errors.Error, AssertionError):
            await client.close()


def observed(msg: Msg) -> Observed:
    """What a message says. Anything can be observed, also what is not an event."""
    return read(msg.subject, msg.headers, msg.data)


def read(subject: str, headers: Mapping[str, str] | None, body: bytes) -> Observed:
    """The event of a message in CloudEvents' binary mode."""
    attributes: dict[str, str] = {}
    for name, value in (headers or {}).items():
        lower = name.lower()
        if lower.startswith("ce-"):
            attributes[lower.removeprefix("ce-")] = unquote(value)
        elif lower in ("traceparent", "tracestate"):
            attributes[lower] = value
    try:
        data = json.loads(body) if body else None
    except ValueError:
        data = body.decode(errors="replace")
    return Observed(subject, attributes, data)


async def _connect(broker: Broker) -> tuple[Client, "asyncio.Future[str]"]:
    """A connection that outlives restarts, and why it ended if it ends. Raises NotReachable."""
    lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    client, tried = Client(), Client()

    async def on_closed() -> None:
        if not lost.done():
            lost.set_result(str(client.last_error or "closed"))

    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await tried.connect(  # tells at once why not
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                **_options(broker),
            )
            await tried.close()
            await client.connect(
                max_reconnect_attempts=-1,
                reconnect_time_wait=0.2,  # type: ignore[arg-type]
                closed_cb=on_closed,
                **_options(broker),
            )
    except (nats.errors.Error, OSError, TimeoutError, ValueError) as error:
        reason = str(tried.last_error or client.last_error or error or type(error).__name__)
        raise NotReachable(
            f"no bus answers at {broker.url} ({reason})",
            ["is the gateway up? `signalbox up` starts one; --nats names another address"],
        ) from error
    return client, lost


def _options(broker: Broker) -> dict[str, Any]:
    async def on_error(error: Exception) -> None:
        """Keep quiet: the library's default prints a traceback, and it connects again."""

    options: dict[str, Any] = {
        "servers": [url.strip() for url in broker.url.split(",")],
        "name": "signalbox events tail",
        "connect_timeout": 2,
        "error_cb": on_error,
    }
    return options | ({"user": broker.user, "password": broker.password} if broker.user else {})


async def _next(waiting: "asyncio.Queue[Msg]", lost: "asyncio.Future[str]") -> Msg:
    """The next message. Raises NotReachable when the connection ended for good."""
    taking = asyncio.ensure_future(waiting.get())
    try:
        await asyncio.wait((taking, lost), return_when=asyncio.FIRST_COMPLETED)
        if taking.done():
            return taking.result()
        raise NotReachable(f"the bus ended the connection: {lost.result()}")
    finally:
        taking.cancel()


async def _past(
    client: Client, patterns: Sequence[str], since: datetime
) -> AsyncGenerator[Observed]:
    """What the streams keep since then, all streams merged by the time they stored it."""
    jetstream = client.jetstream()
    async with contextlib.AsyncExitStack() as readings:
        heads: list[tuple[Msg, AsyncGenerator[Msg]]] = []
        for pattern in patterns:
            for stream in streams_of(pattern):
                reading = await readings.enter_async_context(
                    contextlib.aclosing(_stored(jetstream, stream, pattern, since))
                )
                if (head := await anext(reading, None)) is not None:
                    heads.append((head, reading))
        while heads:
            heads.sort(key=lambda pair: pair[0].metadata.timestamp)
            head, reading = heads[0]
            yield observed(head)
            following = await anext(reading, None)
            heads[:1] = [] if following is None else [(following, reading)]


def streams_of(pattern: str) -> list[Stream]:
    """The streams that may keep subjects under `pattern`."""
    tokens = pattern.split(".")
    family = tokens[3] if len(tokens) > 3 else ">"
    return [one for one in STREAMS if family in ("*", ">", one.family)]


def narrowed(pattern: str, stream: Stream) -> str:
    """A filter within `stream` for all that `pattern` finds there; a wider one is refused."""
    tokens = pattern.split(".")
    if len(tokens) > 4:
        return ".".join((*tokens[:3], stream.family, *tokens[4:]))
    return stream.subjects[0]


async def _stored(
    jetstream: JetStreamContext, stream: Stream, pattern: str, since: datetime
) -> AsyncGenerator[Msg]:
    try:
        subscription = await jetstream.pull_subscribe(
            narrowed(pattern, stream),
            stream=stream.name,
            config=ConsumerConfig(
                deliver_policy=DeliverPolicy.BY_START_TIME,
                opt_start_time=since.isoformat(),  # type: ignore[arg-type]
                ack_policy=AckPolicy.NONE,
                mem_storage=True,
                inactive_threshold=30,
            ),
        )
    except nats.js.errors.NotFoundError:
        return  # no such stream yet, so nothing is kept
    try:
        left = (await subscription.consumer_info()).num_pending or 0
        while left > 0:
            try:
                batch = await subscription.fetch(min(_FETCH, left), timeout=_FETCH_TIMEOUT_S)
            except nats.errors.TimeoutError:
                return  # what was there has expired meanwhile
            for msg in batch:
                if matches(pattern, msg.subject):
                    yield msg
            left -= len(batch)
    finally:
        await subscription.unsubscribe()
