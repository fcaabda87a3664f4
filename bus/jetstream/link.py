"""One connection to a NATS broker, from its opening to its loss; it never reconnects.

A lost link is replaced by a new one (`bus.jetstream.broker`), so nothing that was buffered for one
life of the broker is sent to the next: an old acknowledgement could hit a new message.
"""

import asyncio
import contextlib
import itertools
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

import nats.errors
import nats.js.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from bus.errors import BusError, BusUnavailable, MalformedEvent
from bus.settings import BusSettings

log = structlog.get_logger()

Handler = Callable[[Msg], Awaitable[None]]
API_TIMEOUT_S = 5.0
_PENDING_LIMIT = -1  # our own queues are bounded by flow control and by the size of a pull
_HEADER_FRAME_BYTES = len("NATS/1.0\r\n\r\n")
_NO_RESPONDERS = "503"
_TOO_LARGE = 10054  # JetStream's error code: message size exceeds the maximum allowed
_NEVER_WORKS = (
    nats.errors.MaxPayloadError,
    nats.errors.BadSubjectError,
    nats.errors.BadHeaderError,
)


def bus_error(error: Exception) -> BusError:
    """What `error` of the NATS library, or of the socket below it, means for a publisher."""
    if isinstance(error, BusError):
        return error
    if isinstance(error, _NEVER_WORKS) or (
        isinstance(error, nats.js.errors.APIError) and getattr(error, "err_code", 0) == _TOO_LARGE
    ):
        return MalformedEvent(_words(error))
    return BusUnavailable(_words(error))


def _words(error: Exception) -> str:
    try:
        text = str(error)
    except (AttributeError, TypeError):  # the library's own texts need fields it does not set
        text = ""
    return text or type(error).__name__


class Link:
    """A live connection: requests, plain publishing, subscriptions."""

    def __init__(self) -> None:
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._client = Client()
        self._inbox = ""
        self._answers: dict[str, asyncio.Future[Msg]] = {}
        self._numbers = itertools.count()
        self._last_error = ""

    @classmethod
    async def open(cls, settings: BusSettings, name: str) -> Self:
        """Connect once. Raises BusUnavailable."""
        link = cls()
        try:
            await link._connect(settings, name)
        except (nats.errors.Error, OSError, TimeoutError, ValueError) as error:
            await link.close()
            raise BusUnavailable(link._last_error or _words(error)) from error
        except BaseException:
            await link.close()
            raise
        return link

    async def _connect(self, settings: BusSettings, name: str) -> None:
        await self._client.connect(
            servers=[url.strip() for url in settings.nats_url.split(",")],
            name=name,
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=2,
            flush_timeout=2,
            ping_interval=settings.nats_ping_interval_s,  # type: ignore[arg-type]
            max_outstanding_pings=2,
            error_cb=self._on_error,
            closed_cb=self._on_closed,
            **_credentials(settings),
        )
        self._inbox = self._client.new_inbox()
        await self._client.subscribe(
            f"{self._inbox}.*",
            cb=self._on_answer,
            pending_msgs_limit=_PENDING_LIMIT,
            pending_bytes_limit=_PENDING_LIMIT,
        )

    async def close(self) -> None:
        """End the connection; whoever waits for an answer is told."""
        with contextlib.suppress(AssertionError):  # the library's answer when it never connected
            await self._client.close()
        self._lose("closed")

    async def request(
        self, subject: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Msg:
        """The answer, without a deadline. Raises BusUnavailable, as soon as the link is lost."""
        if self.lost.done():
            raise BusUnavailable(self.lost.result())
        headers_bytes = sum(len(name) + len(value) + 4 for name, value in (headers or {}).items())
        if len(body) + headers_bytes + _HEADER_FRAME_BYTES > self._client.max_payload:
            raise nats.errors.MaxPayloadError  # the broker would end the connection
        number = str(next(self._numbers))
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        try:
            await self._client.publish(
                subject, body, f"{self._inbox}.{number}", dict(headers) if headers else None
            )
            msg = await answer
        finally:
            self._answers.pop(number, None)
        if not msg.data and msg.headers and msg.headers.get("Status") == _NO_RESPONDERS:
            raise nats.errors.NoRespondersError
        return msg

    async def store(self, subject: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
        """Publish to a stream and return the broker's acknowledgement. Raises the library's own."""
        return _answer(await self.request(subject, body, headers))

    async def api(self, call: str, **arguments: object) -> dict[str, Any]:
        """Ask JetStream; `call` such as `STREAM.INFO.name`. Raises BusError, or NotFoundError."""
        try:
            async with asyncio.timeout(API_TIMEOUT_S):
                msg = await self.request(f"$JS.API.{call}", json.dumps(arguments).encode())
            return _answer(msg)
        except nats.js.errors.NotFoundError:
            raise
        except (nats.errors.Error, TimeoutError) as error:
            raise BusUnavailable(f"{call}: {_words(error)}") from error

    async def send(self, subject: str, body: bytes = b"", reply: str = "") -> None:
        """Publish without an acknowledgement. Raises BusUnavailable."""
        try:
            await self._client.publish(subject, body, reply)
        except nats.errors.Error as error:
            raise BusUnavailable(_words(error)) from error

    async def subscribe(self, handler: Handler) -> tuple[str, Subscription]:
        """A new inbox whose messages go to `handler`, and its subscription."""
        inbox = self._client.new_inbox()
        try:
            subscription = await self._client.subscribe(
                inbox,
                cb=handler,
                pending_msgs_limit=_PENDING_LIMIT,
                pending_bytes_limit=_PENDING_LIMIT,
            )
        except nats.errors.Error as error:
            raise BusUnavailable(_words(error)) from error
        return inbox, subscription

    async def _on_answer(self, msg: Msg) -> None:
        answer = self._answers.get(msg.subject.rpartition(".")[2])
        if answer is not None and not answer.done():
            answer.set_result(msg)

    async def _on_error(self, error: Exception) -> None:
        self._last_error = _words(error)
        log.debug("nats client reports an error", error=self._last_error)

    async def _on_closed(self) -> None:
        self._lose(self._last_error or _words(self._client.last_error or Exception("closed")))

    def _lose(self, reason: str) -> None:
        if not self.lost.done():
            self.lost.set_result(reason)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(BusUnavailable(f"connection lost: {reason}"))


def _answer(msg: Msg) -> dict[str, Any]:
    try:
        said: dict[str, Any] = json.loads(msg.data)
    except ValueError as error:
        raise BusUnavailable(f"the broker's answer is not JSON: {error}") from error
    if "error" in said:
        # from_error raises instead of returning, which its type does not say
        raise nats.js.errors.APIError.from_error(said["error"])
    return said


def _credentials(settings: BusSettings) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if settings.nats_credentials_file:
        options["user_credentials"] = settings.nats_credentials_file
    elif settings.nats_user:
        options["user"] = settings.nats_user
        options["password"] = settings.nats_password.get_secret_value()
    if settings.nats_tls_ca_file or settings.nats_tls_certificate_file:
        context = ssl.create_default_context(cafile=settings.nats_tls_ca_file or None)
        if settings.nats_tls_certificate_file:
            context.load_cert_chain(
                settings.nats_tls_certificate_file, settings.nats_tls_key_file or None
            )
        options["tls"] = context
    return options
