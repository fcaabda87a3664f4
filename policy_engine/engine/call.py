"""One exchange with Envoy: messages in, hooks run, answers out.

Hooks that are plain functions run at once, without a task; the first that has to wait makes the
call a task, and what Envoy sends meanwhile waits its turn.
"""
# ruff: noqa: ANN401 - upb messages have no static type

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Coroutine, Generator, Mapping
from time import perf_counter
from typing import Any, Final

from policy_engine.engine.driving import Work, driven
from policy_engine.engine.errors import TooSlow
from policy_engine.engine.exchange import LiveExchange, LiveResponse
from policy_engine.engine.messages import (
    GO_ON,
    NOTHING,
    Kind,
    ProcessingRequest,
    ReceivedHeaders,
    changed,
    immediate,
)
from policy_engine.engine.program import Program, Side
from policy_engine.engine.running import (
    ENGINE,
    TOO_LONG_ANSWER,
    TOO_LONG_REQUEST,
    UNAVAILABLE,
    UPGRADE_REFUSED,
    Given,
    Running,
)
from policy_engine.engine.runtime import Runtime
from policy_engine.hooks import CHOICE_NAMESPACE, EXCHANGE_NAMESPACE, SHADOW_NAMESPACE, Answer
from xds.wire.h2 import RpcRefused, Status, Stream

_EVENT_STREAM: Final = "text/event-stream"
_ALL: Final = -1  # nothing is left: the end was told to the policies
_SENT_ONCE_BYTES: Final = 64 << 10  # longer ones before trailers Envoy 1.40 sends on twice


class Call:
    """The StreamHandler of one call of the hop."""

    __slots__ = (
        "_chunked",
        "_dropping",
        "_exchange",
        "_first",
        "_left",
        "_program",
        "_published",
        "_queue",
        "_request_body",
        "_running",
        "_runtime",
        "_stream",
        "_task",
        "_upstream",
    )

    def __init__(self, runtime: Runtime, stream: Stream) -> None:
        self._runtime = runtime
        self._stream = stream
        self._program: Program | None = None
        self._exchange: LiveExchange | None = None
        self._running: Running | None = None
        self._task: asyncio.Task[None] | None = None
        self._first: Awaitable[Any] | None = None  # what the task waits for when it starts
        self._queue: deque[bytes] | None = None
        self._request_body = b""
        self._chunked = False  # the body of this direction comes in chunks
        self._left = 0  # bytes of it that are still to come; 0: its length was not told
        self._dropping = False  # a policy has answered amid a streamed answer
        self._published: dict[str, Any] = {}  # what Envoy knows
        self._upstream: str | None = None  # the choice that Envoy knows

    # -- xds.wire.h2.StreamHandler ----------------------------------------------------------------

    def message(self, data: bytes) -> None:
        """Envoy has sent a part of the request or of its answer."""
        if self._task is not None:
            if self._stream.hold(len(data)):
                self._waiting().append(data)
            return
        work = self._work(data)
        try:
            awaited = work.send(None)
        except StopIteration:
            return
        self._stream.hold(len(data))
        self._first = awaited[0]
        self._task = self._runtime.task(self._later(work, awaited))

    def half_closed(self) -> None:
        """Envoy needs no more answers."""
        self._stream.finish()
        self._end()

    def lost(self) -> None:
        """The request is over, or Envoy waits no longer."""
        self._end()

    def _end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
        first, self._first = self._first, None
        if isinstance(first, Coroutine):
            first.close()  # the task has not come to it

    def _waiting(self) -> deque[bytes]:
        if self._queue is None:
            self._queue = deque()
        return self._queue

    async def _later(self, work: Work, awaited: tuple[Awaitable[Any], float]) -> None:
        """Go on with `work`, which waits, and then with what has come meanwhile."""
        self._first = None
        try:
            await driven(work, awaited)
            queue = self._waiting()
            while queue and not self._stream.finished:
                work = self._work(queue.popleft())
                try:
                    awaited = work.send(None)
                except StopIteration:
                    continue
                await driven(work, awaited)
            self._task = None
        except asyncio.CancelledError:
            work.close()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, Envoy gets an answer
            self._stream.failed(error)

    # -- the messages -----------------------------------------------------------------------------

    def _work(self, data: bytes) -> Work:
        """Deal with one message; yields what has to be waited for, and for how long at most."""
        started = perf_counter()
        request = ProcessingRequest.FromString(data)
        kind = request.WhichOneof("request")
        if kind == "request_headers":
            if self._program is not None:
                raise RpcRefused(Status.INVALID_ARGUMENT, "a call is of one request")
            yield from self._request_headers(request)
        elif self._program is None:
            # the request was answered before it came here: its policies have not seen it
            self._say(GO_ON.get(kind) or b"", last=True)
        else:
            if self._program.reads_metadata and self._exchange is not None:
                self._exchange.forwarded_with(request)
            if kind == "request_body":
                yield from self._request_data(request.request_body)
            elif kind == "response_headers":
                yield from self._response_headers(request.response_headers)
            elif kind == "response_body":
                yield from self._response_data(request.response_body)
            else:
                raise RpcRefused(Status.UNIMPLEMENTED, f"{kind} is not asked for")
        self._runtime.figures.requests_s.add(perf_counter() - started)

    def _request_headers(self, request: Any) -> Work:
        runtime = self._runtime
        runtime.figures.requests += 1
        name = self._stream.field
        program = runtime.programs.get(name) or runtime.program(name)
        if program is None:
            program = yield from self._unknown(name)
        self._program = program
        began = perf_counter()
        message = request.request_headers
        self._exchange = exchange = LiveExchange(
            program.place,
            ReceivedHeaders(message.headers.headers),
            runtime.outside,
            runtime.catalogue.system,
        )
        if program.reads_metadata:
            exchange.forwarded_with(request)
        self._running = running = Running(runtime, program, exchange)
        runtime.figures.contexts_s.add(perf_counter() - began)
        if program.broken:
            yield from self._broken(program)
            return
        side, ended = program.request, message.end_of_stream
        body: bytes | None = None
        given: Given | None = None
        override = None
        refused = None if ended else self._refused_at_once(program, exchange.request.headers)
        if refused is not None:
            yield from self._answered(Given(refused, ENGINE, 0), "request_headers")
            return
        if side.mode != "none" and not ended:
            length = _content_length(exchange.request.headers)
            self._chunked = side.mode == "chunks" or (
                side.mode == "either" and length > runtime.max_body_bytes
            )
            self._left = length
            if self._chunked and not side.only_looks:
                exchange.request.headers.remove("content-length")
            override = program.override("request", chunked=self._chunked)
        if side.headers:
            given, _ = yield from running.turns(side.headers, b"", last=True)
        if given is None and ended and side.mode != "none":
            given, body = yield from running.turns(side.body, b"", last=True)
            if body:
                exchange.request.headers.set("content-length", str(len(body)))
        if given is not None:
            yield from self._answered(given, "request_headers")
            return
        over = (ended or side.mode == "none") and program.response.idle
        self._reply("request_headers", exchange.request.headers, body or None, override, last=over)

    def _refused_at_once(self, program: Program, headers: Any) -> Answer | None:
        """What is said to a request with a body that its policies will never get as a whole."""
        if program.waits_for_bodies and "upgrade" in headers:
            return UPGRADE_REFUSED  # its body never ends
        whole = program.request.mode == "whole"
        if whole and _content_length(headers) > self._runtime.max_body_bytes:
            return TOO_LONG_REQUEST
        return None

    def _request_data(self, message: Any) -> Work:
        program, exchange, running = self._known()
        body: bytes = message.body
        runtime, side, ended = self._runtime, program.request, message.end_of_stream
        runtime.figures.body_bytes += len(body)
        if self._chunked:
            given, made = yield from self._chunk(side, body, ended)
            last = ended and program.response.idle
        else:
            headers = exchange.request.headers
            part = program.gets_parts("request") and not ended and not _is_whole(body, headers)
            if part or len(body) > runtime.max_body_bytes:
                yield from self._answered(Given(TOO_LONG_REQUEST, ENGINE, 0), "request_body")
                return
            if program.keeps_request_body:
                running.request_body = body
            given, made = yield from running.turns(side.body, body, last=True)
            last = program.response.idle
            if made is not None:
                exchange.request.headers.set("content-length", str(len(made)))
        if given is not None:
            yield from self._answered(given, "request_body")
            return
        self._reply("request_body", exchange.request.headers, made, None, last=last)

    def _response_headers(self, message: Any) -> Work:
        program, exchange, running = self._known()
        runtime, side, ended = self._runtime, program.response, message.end_of_stream
        headers = ReceivedHeaders(message.headers.headers)
        exchange.response = LiveResponse(headers)
        body: bytes | None = None
        given: Given | None = None
        override = None
        self._chunked, self._left = False, 0
        last = ended or side.mode == "none"
        if not last:
            self._left = _content_length(headers)
            too_long = self._left > runtime.max_answer_bytes
            self._chunked = side.mode == "chunks" or (
                side.mode == "either" and (too_long or _is_event_stream(headers))
            )
            if self._chunked:
                if not side.only_looks:
                    headers.remove("content-length")
            elif too_long:
                yield from self._answer_too_long("response_headers")
                return
            override = program.override("response", chunked=self._chunked)
        if side.headers:
            given, _ = yield from running.turns(side.headers, b"", last=True)
        if given is None and ended and side.mode != "none":
            given, body = yield from running.turns(side.body, b"", last=True)
            if body and exchange.request.method == "HEAD":
                body = None
            if body:
                headers.set("content-length", str(len(body)))
        if given is not None:
            yield from self._answered(given, "response_headers")
            return
        self._reply("response_headers", headers, body or None, override, last=last)

    def _response_data(self, message: Any) -> Work:
        program, exchange, running = self._known()
        body: bytes = message.body
        runtime, side, ended = self._runtime, program.response, message.end_of_stream
        runtime.figures.body_bytes += len(body)
        if exchange.response is None:
            raise RpcRefused(Status.INVALID_ARGUMENT, "an answer begins with its headers")
        headers = exchange.response.headers
        if self._dropping:
            self._say(NOTHING["response_body"], last=ended)
            return
        if self._chunked:
            given, made = yield from self._chunk(side, body, ended)
            if given is not None and not given.failed:
                self._dropping, made, given = True, given.answer.body, None
        else:
            part = program.gets_parts("response") and not ended and not _is_whole(body, headers)
            if part or len(body) > runtime.max_answer_bytes:
                yield from self._answer_too_long("response_body")
                return
            running.response_body = body
            given, made = yield from running.turns(side.body, body, last=True)
            ended = True
            if made is not None:
                headers.set("content-length", str(len(made)))
        if given is not None:
            yield from self._answered(given, "response_body")
            return
        self._reply("response_body", headers, made, None, last=ended)

    def _chunk(
        self, side: Side, body: bytes, ended: bool
    ) -> Generator[tuple[Awaitable[Any], float], Any, tuple[Given | None, bytes | None]]:
        """The end is that of what the length has told: trailers may follow, and nothing is said."""
        _, _, running = self._known()
        if self._left > 0:
            self._left = self._left - len(body) or _ALL
            ended = ended or self._left < 0
        elif self._left < 0 and not body:
            return None, None  # only says that no trailers follow
        return (yield from running.turns(side.chunks, body, last=ended))

    # -- answers ----------------------------------------------------------------------------------

    def _reply(
        self,
        kind: Kind,
        headers: Any,
        body: bytes | None,
        override: Mapping[str, int] | None,
        *,
        last: bool,
    ) -> None:
        """Go on, with what the policies have changed. `last`: nothing else needs to come here."""
        edits = headers.take_edits()
        published = self._unpublished()
        if edits or body is not None or override is not None or published:
            self._say(
                changed(kind, edits=edits, body=body, override=override, published=published),
                last=last,
            )
        else:
            self._say(GO_ON[kind], last=last)

    def _say(self, reply: bytes, *, last: bool) -> None:
        if last:
            self._stream.send_and_finish(reply)
        else:
            self._stream.send(reply)

    def _answered(self, given: Given, kind: Kind) -> Work:
        """A policy has answered itself: those before it see its answer on the way back."""
        program, _, running = self._known()
        answer, by = given.answer, given.by
        if given.failed:
            self._runtime.figures.request_errors += 1
        if program.response.idle or not given.position:
            self._say(immediate(answer, by, published=self._unpublished()), last=True)
            return
        status, headers, body, by = yield from running.way_back(given, kind)
        told = immediate(
            answer,
            by,
            headers=headers,
            body=body,
            status=status,
            published=self._unpublished(),
        )
        self._say(told, last=True)

    def _answer_too_long(self, kind: Kind) -> Work:
        """The upstream's answer cannot be buffered: it passes as it is, or is not given at all."""
        program, exchange, _ = self._known()
        if not program.opens:
            yield from self._answered(Given(TOO_LONG_ANSWER, ENGINE, 0, failed=True), kind)
            return
        assert exchange.response is not None
        self._reply(kind, exchange.response.headers, None, None, last=True)

    def _broken(self, program: Program) -> Work:
        if program.opens:
            self._say(GO_ON["request_headers"], last=True)
            return
        given = Given(UNAVAILABLE, program.hop.policies[0].name, 0, failed=True)
        yield from self._answered(given, "request_headers")

    def _unknown(self, name: str) -> Generator[tuple[Awaitable[Any], float], Any, Program]:
        runtime = self._runtime
        with contextlib.suppress(TooSlow):
            yield runtime.wanted(name), runtime.hop_wait_s
        program = runtime.program(name)
        if program is None:
            runtime.figures.lookup_failures += 1
            runtime.figures.request_errors += 1
            raise RpcRefused(Status.UNAVAILABLE, "hop not known")
        return program

    def _unpublished(self) -> dict[str, dict[str, Any]] | None:
        """What Envoy does not know yet of what the policies have published."""
        running = self._running
        if running is None:
            return None
        told: dict[str, dict[str, Any]] = {}
        published = running.exchange.published
        if published and published != self._published:
            self._published = dict(published)
            told[EXCHANGE_NAMESPACE] = published
        upstream = running.exchange.upstream
        if upstream != self._upstream:
            self._upstream = upstream
            told[CHOICE_NAMESPACE] = {"upstream": upstream}
        if running.shadow:
            told[SHADOW_NAMESPACE] = running.shadow
            running.shadow = {}
        return told or None

    def _known(self) -> tuple[Program, LiveExchange, Running]:
        assert self._program is not None
        assert self._exchange is not None
        assert self._running is not None
        return self._program, self._exchange, self._running


def _content_length(headers: Any) -> int:
    text = headers.get("content-length")
    return int(text) if text is not None and text.isdigit() else 0


def _is_whole(body: bytes, headers: Any) -> bool:
    """Whether a body that has not ended lacks its trailers only, and Envoy sends it on once."""
    return 0 < len(body) < _SENT_ONCE_BYTES and len(body) == _content_length(headers)


def _is_event_stream(headers: Any) -> bool:
    return bool((headers.get("content-type") or "").lower().startswith(_EVENT_STREAM))
