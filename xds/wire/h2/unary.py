"""Unary calls: one message in, one out, at once or later.

A handler that returns bytes costs neither task nor callback; one that returns a Future costs one
callback, which is for services that answer many calls together; a coroutine becomes a task.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from xds.wire.h2.errors import RpcRefused
from xds.wire.h2.limits import Counters
from xds.wire.h2.status import Status
from xds.wire.h2.stream import Stream

UnaryHandler = Callable[[bytes], bytes | Awaitable[bytes]]
"""The reply to one request message. A Future it returns is cancelled when the call is lost."""


class UnaryService:
    """Answers calls with `handler`, each in `timeout_s`. It owns the tasks of coroutines."""

    def __init__(self, handler: UnaryHandler, timeout_s: float, counters: Counters) -> None:
        self.handler = handler
        self._timeout_s = timeout_s
        self._counters = counters
        self._deadlines: dict[UnaryCall, float] = {}  # oldest first: all wait equally long
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Every call is over by now; wait for what they have left behind."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def open(self, stream: Stream) -> "UnaryCall":
        """The handler of a new stream."""
        return UnaryCall(self, stream)

    def later(self, call: "UnaryCall", reply: Awaitable[bytes]) -> asyncio.Future[Any]:
        """Have `call` answered when `reply` is there; the Future ends the waiting when cancelled.

        Raises TypeError when nobody can wait for it.
        """
        waiting: asyncio.Future[Any]
        if isinstance(reply, asyncio.Future):
            reply.add_done_callback(call.replied)
            waiting = reply
        elif isinstance(reply, Awaitable):
            task = asyncio.get_running_loop().create_task(call.answer(reply), name="rpc")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            waiting = task
        else:
            raise TypeError(f"a unary handler returned {type(reply).__name__}, not bytes")
        loop = asyncio.get_running_loop()
        self._deadlines[call] = deadline = loop.time() + self._timeout_s
        if self._timer is None:
            self._timer = loop.call_at(deadline, self._expire)
        return waiting

    def done(self, call: "UnaryCall") -> None:
        """The call waits no longer."""
        self._deadlines.pop(call, None)

    def _expire(self) -> None:
        """End the calls whose time is over; one timer serves them all."""
        loop = asyncio.get_running_loop()
        self._timer = None
        now = loop.time()
        late = []
        for call, deadline in self._deadlines.items():
            if deadline > now:
                self._timer = loop.call_at(deadline, self._expire)
                break
            late.append(call)
        for call in late:
            self._counters.handler_timeouts += 1
            call.timed_out()


class UnaryCall:
    """The StreamHandler of one call."""

    __slots__ = ("_held", "_request", "_service", "_stream", "_waiting")

    def __init__(self, service: UnaryService, stream: Stream) -> None:
        self._service = service
        self._stream = stream
        self._request: bytes | None = None
        self._held = False
        self._waiting: asyncio.Future[Any] | None = None

    def message(self, data: bytes) -> None:
        """Keep the request until it has ended: there may be only one.

        Source: https://github.com/grpc/grpc/blob/master/doc/statuscodes.md (cardinality violation)
        """
        if self._request is not None:
            raise RpcRefused(Status.UNIMPLEMENTED, "a unary call has one request message")
        self._request = data
        if not self._stream.remote_ended:
            self._held = self._stream.hold(len(data))

    def half_closed(self) -> None:
        """The request is whole: answer it."""
        request = self._request
        if request is None:
            raise RpcRefused(Status.UNIMPLEMENTED, "a unary call has one request message")
        reply = self._service.handler(request)
        if type(reply) is bytes:
            self._stream.send_and_finish(reply)
            return
        waiting = self._service.later(self, reply)  # type: ignore[arg-type]
        self._waiting = waiting
        if not self._held:
            self._stream.hold(len(request))

    def lost(self) -> None:
        """Nobody waits for the answer any more."""
        self._service.done(self)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting.cancel()

    def timed_out(self) -> None:
        """The handler has had its time."""
        self._stream.refuse(Status.DEADLINE_EXCEEDED, "the service did not answer in time")

    def replied(self, reply: asyncio.Future[bytes]) -> None:
        """The Future of the handler is done."""
        if reply.cancelled():
            self._cancelled()
            return
        error = reply.exception()
        if error is None:
            self._finish(reply.result())
        else:
            self._failed(error)

    async def answer(self, reply: Awaitable[bytes]) -> None:
        """Wait for the coroutine of the handler."""
        try:
            message = await reply
        except asyncio.CancelledError:
            self._waiting = None  # this task is what is being cancelled
            self._cancelled()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer
            self._failed(error)
        else:
            self._finish(message)

    def _finish(self, message: object) -> None:
        self._service.done(self)
        self._waiting = None
        if isinstance(message, bytes):
            self._stream.send_and_finish(message)
        else:
            kind = type(message).__name__
            self._stream.failed(TypeError(f"a unary handler returned {kind}, not bytes"))

    def _failed(self, error: BaseException) -> None:
        self._service.done(self)
        self._waiting = None
        self._stream.failed(error)

    def _cancelled(self) -> None:
        """By its own service, unless the call was lost before: then this changes nothing."""
        self._service.done(self)
        self._waiting = None
        self._stream.refuse(Status.CANCELLED, "the service gave up")
