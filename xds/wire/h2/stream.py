"""One call: gRPC messages cut out of DATA frames, and the answers to them.

Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

from collections import deque
from struct import Struct
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from xds.wire.h2 import fields
from xds.wire.h2.errors import RpcRefused, StreamFailed
from xds.wire.h2.frames import ErrorCode
from xds.wire.h2.status import Status

if TYPE_CHECKING:
    from xds.wire.h2.inbound import Inbound

log = structlog.get_logger()

_PREFIX: Final = Struct(">BL")
_PREFIX_BYTES: Final = 5
_HANDLER_FAILED: Final = "the service failed"


class StreamHandler(Protocol):
    """What a service does with one call. Methods are called in order, never at the same time.

    A method that raises RpcRefused ends the call with its status; any other exception is logged
    and ends it with status 13, without details.
    """

    def message(self, data: bytes) -> None:
        """One request message has arrived whole."""
        ...

    def half_closed(self) -> None:
        """The client will send nothing more. A handler that is done calls `stream.finish()`."""
        ...

    def lost(self) -> None:
        """The call is over without `finish`: reset, timed out, refused, or the peer is gone.

        Comes at most once, and nothing comes after it. What it raises is only logged.
        """
        ...


class _Over:
    """Hears what nobody wants to know any more."""

    def message(self, data: bytes) -> None:
        """Nothing to do."""

    def half_closed(self) -> None:
        """Nothing to do."""

    def lost(self) -> None:
        """Nothing to do."""


OVER: Final[StreamHandler] = _Over()
"""The handler of a stream that is over or never had one.

A stream and its handler know each other: were they not parted, each call would be a cycle that
only a garbage collection frees, and every call would be made in memory that is cold.
"""


class Stream:
    """One call, as its handler sees it; attributes belong to the connection.

    `send` and `finish` may be called at any time, from the event loop's thread.
    """

    __slots__ = (
        "_connection",
        "_held_bytes",
        "_partial",
        "field",
        "finished",
        "handler",
        "id",
        "over",
        "receive_window",
        "remote_ended",
        "responded",
        "send_window",
        "trailers",
        "unsent",
        "unsent_bytes",
    )

    handler: StreamHandler
    field: str
    """Value of the request header that the service has asked for, empty without one."""

    def __init__(
        self, connection: Inbound, number: int, send_window: int, receive_window: int
    ) -> None:
        self.id = number
        self._connection = connection
        self._partial: bytearray | None = None
        self._held_bytes = 0
        self.send_window = send_window  # bytes the peer takes on this stream, may be negative
        self.receive_window = receive_window  # bytes the peer may still send
        self.remote_ended = False  # END_STREAM has been received
        self.responded = False  # response headers are sent
        self.finished = False  # `finish` was called
        self.over = False  # nothing more is sent or received
        self.trailers: bytes | None = None
        self.unsent: deque[memoryview] | None = None
        self.unsent_bytes = 0

    # -- for handlers -------------------------------------------------------------------------

    def send(self, message: bytes) -> None:
        """Answer with one message. When the call is over it is dropped, and counted as such.

        A peer that does not take its answers has its stream reset at the limit: `lost`.
        """
        if self.finished:
            self._connection.counters.replies_dropped += 1
            return
        self._connection.outbound.message(self, message)

    def finish(self, status: int = Status.OK, message: str = "") -> None:
        """End the call, after what was sent. Later calls do nothing."""
        if self.finished:
            return
        self.finished = True
        self.trailers = fields.trailers(int(status), message)
        self._connection.outbound.end(self)

    def send_and_finish(self, message: bytes) -> None:
        """`send` and `finish` with status 0, cheaper than one after the other."""
        if self.finished:
            self._connection.counters.replies_dropped += 1
            return
        self.finished = True
        self._connection.outbound.unary(self, message)

    def hold(self, size_bytes: int) -> bool:
        """Count request bytes that the handler keeps until the end of the call.

        False when that is too much for the connection: the call has then ended with status 8.
        """
        if self._connection.hold(size_bytes):
            self._held_bytes += size_bytes
            return True
        self.refuse(Status.RESOURCE_EXHAUSTED, "too many requests wait on this connection")
        return False

    def failed(self, error: BaseException) -> None:
        """End the call as `error`, raised by its handler, wants it."""
        if isinstance(error, RpcRefused):
            self.refuse(error.status, error.message)
            return
        self._connection.counters.handler_errors += 1
        log.error("rpc handler failed", stream=self.id, exc_info=error)
        self.refuse(Status.INTERNAL, _HANDLER_FAILED)

    def lose(self, code: ErrorCode) -> None:
        """Reset the stream and tell the handler."""
        if self.over:
            return
        unfinished = not self.finished
        self._connection.outbound.reset(self, code)
        if unfinished:
            self.tell_lost()

    # -- for the connection -------------------------------------------------------------------

    def received(self, data: bytes, start: int, end: int) -> None:
        """The payload of a DATA frame is `data[start:end]`. Raises StreamFailed."""
        if self.finished:
            return  # answered in full; what still comes is read and dropped
        if self._partial is not None:
            self._received_more(data, start, end)
            return
        size_max = self._connection.limits.message_max_bytes
        while end - start >= _PREFIX_BYTES:
            compressed, size = _PREFIX.unpack_from(data, start)
            if compressed or size > size_max:
                self._refuse_prefix(compressed, size)
                return
            behind = start + _PREFIX_BYTES + size
            if behind > end:
                break
            self._deliver(data[start + _PREFIX_BYTES : behind])
            if self.finished:
                return
            start = behind
        if start < end and self.hold(end - start):
            self._partial = bytearray(data[start:end])

    def half_close(self) -> None:
        """END_STREAM has been received and everything before it was delivered."""
        if self.finished:
            return
        if self._partial is not None:
            self.refuse(Status.INTERNAL, "the request ends within a message")
            return
        try:
            self.handler.half_closed()
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer
            self.failed(error)

    def tell_lost(self, handler: StreamHandler | None = None) -> None:
        """The handler, this one or else its own, learns that the call is over without it."""
        handler, self.handler = handler or self.handler, OVER
        try:
            handler.lost()
        except Exception:
            self._connection.counters.handler_errors += 1
            log.exception("rpc handler failed when its call was lost", stream=self.id)

    def released(self) -> int:
        """The bytes that were held for this stream, which is over."""
        held, self._held_bytes = self._held_bytes, 0
        self._partial = None
        return held

    def _deliver(self, message: bytes) -> None:
        self._connection.counters.messages_received += 1
        try:
            self.handler.message(message)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer
            self.failed(error)

    def _received_more(self, data: bytes, start: int, end: int) -> None:
        partial = self._partial
        assert partial is not None
        if not self.hold(end - start):
            return
        partial += memoryview(data)[start:end]
        size_max = self._connection.limits.message_max_bytes
        at = 0
        while len(partial) - at >= _PREFIX_BYTES:
            compressed, size = _PREFIX.unpack_from(partial, at)
            if compressed or size > size_max:
                self._refuse_prefix(compressed, size)
                return
            behind = at + _PREFIX_BYTES + size
            if behind > len(partial):
                break
            with memoryview(partial) as view:
                message = bytes(view[at + _PREFIX_BYTES : behind])
            at = behind
            self._connection.release(_PREFIX_BYTES + size)
            self._held_bytes -= _PREFIX_BYTES + size
            self._deliver(message)
            if self.finished:
                return
        del partial[:at]
        if not partial:
            self._partial = None

    def _refuse_prefix(self, compressed: int, size: int) -> None:
        """Source: https://github.com/grpc/grpc/blob/master/doc/compression.md."""
        if compressed == 1:
            self.refuse(
                Status.UNIMPLEMENTED, "compressed messages are not taken", fields.IDENTITY_ONLY
            )
        elif compressed:
            raise StreamFailed(
                self.id, ErrorCode.PROTOCOL_ERROR, f"compressed flag is {compressed}"
            )
        else:
            limit = self._connection.limits.message_max_bytes
            self.refuse(
                Status.RESOURCE_EXHAUSTED, f"message of {size} bytes, at most {limit} are taken"
            )

    def refuse(self, status: int, message: str, more_fields: bytes = b"") -> None:
        """End the call with an error that its handler did not send itself, and tell it."""
        if self.finished:
            return
        self.finished = True
        self.trailers = fields.trailers(int(status), message) + more_fields
        handler = self.handler
        self._connection.outbound.end(self)
        self.tell_lost(handler)
