"""What a connection sends: one write per event-loop turn, and flow control towards the peer.

A reply that fits the windows goes out at once. One that does not waits on its stream, and the
streams that may go on take turns, one frame each.

Source: https://www.rfc-editor.org/rfc/rfc9113.html#section-5.2
"""

import asyncio
from collections import OrderedDict, deque
from struct import Struct
from typing import Final, Protocol

from xds.wire.h2 import fields, frames
from xds.wire.h2.frames import ErrorCode
from xds.wire.h2.limits import Counters, Limits
from xds.wire.h2.stream import Stream

PREFIX_BYTES: Final = 5  # gRPC: compressed flag, message length
_PREFIX: Final = Struct(">BL")
_MESSAGE: Final = Struct(">HBBBLBL")  # DATA frame header and gRPC prefix in one
_HEAD_BYTES: Final = 5  # of a frame header: length, type and flags
_PIECES_MAX: Final = 64
_RESPONSE_HEAD: Final = frames.frame(frames.HEADERS, frames.END_HEADERS, 0, fields.RESPONSE)[
    :_HEAD_BYTES
]
_ENDING: Final = frames.END_HEADERS | frames.END_STREAM
_OK: Final = fields.trailers(0)
_OK_HEAD: Final = frames.frame(frames.HEADERS, _ENDING, 0, _OK)[:_HEAD_BYTES]


class Streams(Protocol):
    """The connection, as far as its outbound half must tell it something."""

    def forget(self, stream: Stream) -> None:
        """The stream is over on both sides."""
        ...

    def overflowed(self) -> None:
        """The peer does not read what it asks for."""
        ...


class Outbound:
    """The sending half of one connection."""

    __slots__ = (
        "_counters",
        "_first_block",
        "_limits",
        "_loop",
        "_pieces",
        "_ready",
        "_streams",
        "_transport",
        "_unsent_bytes",
        "frame_max",
        "paused",
        "scheduled",
        "window",
    )

    def __init__(
        self,
        streams: Streams,
        transport: asyncio.Transport,
        loop: asyncio.AbstractEventLoop,
        limits: Limits,
        counters: Counters,
    ) -> None:
        self._streams = streams
        self._transport = transport
        self._loop = loop
        self._limits = limits
        self._counters = counters
        self._pieces: list[bytes | memoryview] = []
        self._ready: OrderedDict[Stream, None] = OrderedDict()  # wait, but not for own window
        self._unsent_bytes = 0
        self._first_block = True
        self.window = frames.DEFAULT_WINDOW_BYTES  # bytes the peer takes on this connection
        self.frame_max = frames.FRAME_SIZE_MIN_BYTES  # bytes of payload the peer takes per frame
        self.paused = False  # the transport has enough for now
        self.scheduled = False  # a flush will come without being asked for

    # -- writing ------------------------------------------------------------------------------

    def put(self, *pieces: bytes | memoryview) -> None:
        """Write in this turn, together with everything else."""
        self._pieces += pieces
        if not self.scheduled:
            self.scheduled = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Hand everything to the transport, as one write."""
        self.scheduled = False
        pieces = self._pieces
        if not pieces:
            return
        data = b"".join(pieces) if len(pieces) > 1 else pieces[0]
        pieces.clear()
        self._counters.bytes_sent += len(data)
        self._transport.write(data)
        if self.paused and self._transport.get_write_buffer_size() > self._limits.unsent_max_bytes:
            self._streams.overflowed()

    # -- messages -----------------------------------------------------------------------------

    def message(self, stream: Stream, message: bytes) -> None:
        """One length-prefixed message, now or when the peer takes it."""
        self._counters.messages_sent += 1
        size = len(message) + PREFIX_BYTES
        if (
            size <= self.window
            and size <= stream.send_window
            and size <= self.frame_max
            and not self.paused
            and not stream.unsent
        ):
            self.window -= size
            stream.send_window -= size
            if not stream.responded:
                self._response(stream)
            head = _MESSAGE.pack(
                size >> 8, size & 0xFF, frames.DATA, 0, stream.id, 0, size - PREFIX_BYTES
            )
            self.put(head, message)
        else:
            self._queue(stream, message, size)

    def unary(self, stream: Stream, message: bytes) -> None:
        """The only message of a call, and status 0."""
        size = len(message) + PREFIX_BYTES
        if (
            size <= self.window
            and size <= stream.send_window
            and size <= self.frame_max
            and not self.paused
            and not self._first_block
            and stream.remote_ended
        ):
            self._counters.messages_sent += 1
            self.window -= size
            number = stream.id.to_bytes(4, "big")
            head = _MESSAGE.pack(
                size >> 8, size & 0xFF, frames.DATA, 0, stream.id, 0, size - PREFIX_BYTES
            )
            self.put(_RESPONSE_HEAD, number, fields.RESPONSE, head, message, _OK_HEAD, number, _OK)
            self._streams.forget(stream)
        else:
            self.message(stream, message)
            if not stream.over:
                stream.trailers = _OK
                self.end(stream)

    def end(self, stream: Stream) -> None:
        """Send the stream's trailers, after what still waits on it."""
        if stream.unsent:
            return  # the pump comes back here
        block = stream.trailers or _OK
        if not stream.responded:  # Trailers-Only
            block = self._block(fields.RESPONSE + block)
            stream.responded = True
        self.put(frames.frame(frames.HEADERS, _ENDING, stream.id, block))
        if not stream.remote_ended:
            # A complete answer before the end of the request: the rest is not wanted.
            # https://www.rfc-editor.org/rfc/rfc9113.html#section-8.1-12
            self.put(frames.rst_stream(stream.id, ErrorCode.NO_ERROR))
        self._streams.forget(stream)

    def reset(self, stream: Stream, code: ErrorCode) -> None:
        """Cut a stream short."""
        self.put(frames.rst_stream(stream.id, code))
        self._streams.forget(stream)

    def drop(self, stream: Stream) -> None:
        """Forget what waits on a stream that is over."""
        self._ready.pop(stream, None)
        self._unsent_bytes -= stream.unsent_bytes
        stream.unsent_bytes = 0
        stream.unsent = None

    def _response(self, stream: Stream) -> None:
        stream.responded = True
        block = self._block(fields.RESPONSE)
        self.put(frames.frame(frames.HEADERS, frames.END_HEADERS, stream.id, block))

    def _block(self, block: bytes) -> bytes:
        if self._first_block:
            self._first_block = False
            return fields.NO_DYNAMIC_TABLE + block
        return block

    # -- flow control -------------------------------------------------------------------------

    def grow(self, increment_bytes: int) -> bool:
        """WINDOW_UPDATE of the connection; False when the window would pass 2^31-1."""
        self.window += increment_bytes
        if self.window > frames.WINDOW_MAX_BYTES:
            return False
        self.pump()
        return True

    def grow_stream(self, stream: Stream, increment_bytes: int) -> bool:
        """WINDOW_UPDATE of a stream, or its share of a new initial size, which may be negative.

        False when the window would pass 2^31-1.
        """
        stream.send_window += increment_bytes
        if stream.send_window > frames.WINDOW_MAX_BYTES:
            return False
        if stream.unsent and stream.send_window > 0:
            self._ready[stream] = None
            self.pump()
        return True

    def _queue(self, stream: Stream, message: bytes, size: int) -> None:
        limits = self._limits
        if (
            stream.unsent_bytes + size > limits.unsent_stream_max_bytes
            or self._unsent_bytes + size > limits.unsent_max_bytes
        ):
            self._counters.stream_errors += 1
            stream.lose(ErrorCode.ENHANCE_YOUR_CALM)
            return
        self._unsent_bytes += size
        stream.unsent_bytes += size
        if stream.unsent is None:
            stream.unsent = deque()
        stream.unsent.append(memoryview(_PREFIX.pack(0, len(message)) + message))
        if stream.send_window > 0:
            self._ready[stream] = None
        if not stream.responded:  # headers are not subject to flow control
            self._response(stream)
        self.pump()

    def pump(self) -> None:
        """Send what waits, as far as the windows and the transport allow."""
        ready = self._ready
        while ready and self.window > 0 and not self.paused:
            stream, _ = ready.popitem(last=False)
            room = min(self.window, stream.send_window, self.frame_max)
            if room <= 0:
                continue  # a WINDOW_UPDATE of the stream puts it back
            unsent = stream.unsent
            assert unsent  # only then it is ready
            chunk = unsent[0]
            if len(chunk) > room:
                unsent[0] = chunk[room:]
                chunk = chunk[:room]
            else:
                unsent.popleft()
            size = len(chunk)
            self.window -= size
            self._unsent_bytes -= size
            stream.send_window -= size
            stream.unsent_bytes -= size
            self.put(frames.FRAME_HEADER.pack(size >> 8, size & 0xFF, 0, 0, stream.id), chunk)
            if unsent:
                ready[stream] = None
            elif stream.trailers is not None:
                self.end(stream)
            if len(self._pieces) >= _PIECES_MAX:
                self.flush()  # so that the transport can say when it has enough
