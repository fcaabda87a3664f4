"""What a connection receives: frames, checked and acted on, for one gRPC method.

The peer is trusted to be a gRPC client: Envoy, on a socket that serves one method only. Therefore
request headers decide nothing and, unless the service asks for a field of them, their blocks are
passed over without HPACK decoding. RFC 9113
(section 4.3) wants a receiver that does not decompress a block to end the connection, because its
dynamic table would be out of step with the peer's from then on. Here there is no table: no block
is ever looked into, before or after, so nothing can be misread. HPACK has no feedback from decoder
to encoder (RFC 7541, section 2.2): a peer cannot tell the difference, except that a malformed
block is not answered with COMPRESSION_ERROR. Frames, order, lengths and padding of header blocks
are checked as for any other server.

Sources: https://www.rfc-editor.org/rfc/rfc9113.html,
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Final

import structlog

from xds.wire.h2 import frames
from xds.wire.h2.errors import ConnectionFailed, StreamFailed
from xds.wire.h2.frames import ErrorCode, Setting
from xds.wire.h2.limits import Counters, Limits
from xds.wire.h2.outbound import Outbound
from xds.wire.h2.request_fields import RequestField
from xds.wire.h2.stream import OVER, Stream, StreamHandler

log = structlog.get_logger()

_ANY: Final = -1
DRAIN_PING: Final = b"draining"
_STREAM_ID_MASK: Final = frames.STREAM_ID_MAX  # the first bit is reserved, section 4.1


class Inbound(ABC):
    """The receiving half of one connection."""

    outbound: Outbound

    def __init__(
        self,
        factory: Callable[[Stream], StreamHandler],
        limits: Limits,
        counters: Counters,
        field: str | None = None,
    ) -> None:
        self.limits = limits
        self.counters = counters
        self._factory = factory
        self._streams: dict[int, Stream] = {}
        self._last_id = 0  # highest stream of the peer that we have acted on
        self._wanted_bytes = len(frames.PREFACE)  # of the next frame, as far as it is known
        self._greeted = False  # the preface was received
        self._expected = frames.SETTINGS  # the only type of frame that may come, or _ANY
        self._block: tuple[int, int, int] = (0, 0, 0)  # open header block: stream, flags, bytes
        self._block_parts = b""  # of an open header block, if it is read
        self._field = None if field is None else RequestField(field)
        self._held_bytes = 0
        self._window = limits.connection_window_bytes
        # Until our settings are acknowledged the peer may rely on the default window.
        # https://www.rfc-editor.org/rfc/rfc9113.html#section-6.9.2
        self._stream_window = max(limits.stream_window_bytes, frames.DEFAULT_WINDOW_BYTES)
        self._stream_window_low = (self._stream_window + 1) >> 1
        self._peer_window = frames.DEFAULT_WINDOW_BYTES  # where new streams start
        self._over = False
        self._draining = False  # the first GOAWAY is sent
        self._refusing = False  # the last GOAWAY is sent: higher streams are passed over
        self._control: dict[int, Callable[[int, int, bytes], None]] = {
            frames.PRIORITY: self._on_priority,
            frames.RST_STREAM: self._on_rst_stream,
            frames.SETTINGS: self._on_settings,
            frames.PUSH_PROMISE: self._on_push_promise,
            frames.PING: self._on_ping,
            frames.GOAWAY: self._on_goaway,
            frames.WINDOW_UPDATE: self._on_window_update,
            frames.CONTINUATION: self._on_continuation,
        }

    @abstractmethod
    def _refuse_new_streams(self) -> None:
        """Send the last GOAWAY and close when the streams in flight are finished."""

    @abstractmethod
    def _idle(self) -> None:
        """The last open stream is closed."""

    # -- for the outbound half and streams ----------------------------------------------------

    def forget(self, stream: Stream) -> None:
        """The stream is closed on both sides."""
        if stream.over:
            return
        if stream.finished:
            stream.handler = OVER  # it has ended the call itself, nothing more is told
        stream.over = stream.finished = True
        self._streams.pop(stream.id, None)
        self.counters.streams_open -= 1
        self._held_bytes -= stream.released()
        if stream.unsent:
            self.outbound.drop(stream)
        if not self._streams:
            self._idle()

    def hold(self, size_bytes: int) -> bool:
        """Account for request bytes that are kept; False when there is no room."""
        if self._held_bytes + size_bytes > self.limits.held_max_bytes:
            return False
        self._held_bytes += size_bytes
        return True

    def release(self, size_bytes: int) -> None:
        """Request bytes are no longer kept."""
        self._held_bytes -= size_bytes

    def _lose_streams(self) -> None:
        for stream in tuple(self._streams.values()):
            unfinished = not stream.finished
            self.forget(stream)
            if unfinished:
                stream.tell_lost()

    # -- frames -------------------------------------------------------------------------------

    def _frames(self, data: bytes) -> int:
        """Act on every whole frame; the place behind the last. Raises ConnectionFailed."""
        end = len(data)
        at = 0
        if not self._greeted:
            at = self._on_preface(data)
        unpack, size_max = frames.FRAME_HEADER.unpack_from, self.limits.frame_max_bytes
        while end - at >= frames.HEADER_BYTES and self._greeted:
            high, low, kind, flags, number = unpack(data, at)
            size = high << 8 | low
            if size > size_max:  # section 4.2
                raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, f"frame of {size} bytes")
            if kind != self._expected != _ANY:
                # section 3.4: SETTINGS come first; section 6.10: nothing within a header block
                raise ConnectionFailed(
                    ErrorCode.PROTOCOL_ERROR,
                    f"frame type {kind} where only {self._expected} may come",
                )
            start = at + frames.HEADER_BYTES
            stop = start + size
            if stop > end:
                self._wanted_bytes = stop - at
                return at
            at = stop
            number &= _STREAM_ID_MASK
            try:
                if kind == frames.DATA:
                    self._on_data(flags, number, data, start, stop)
                elif kind == frames.HEADERS:
                    self._on_headers(flags, number, data, start, stop)
                else:
                    action = self._control.get(kind)  # unknown ones are ignored, section 4.1
                    if action is not None:
                        action(flags, number, data[start:stop])
            except StreamFailed as error:
                self._fail_stream(error)
            if self._over:
                return end
        self._wanted_bytes = frames.HEADER_BYTES
        return at

    def _on_preface(self, data: bytes) -> int:
        """Source: https://www.rfc-editor.org/rfc/rfc9113.html#section-3.4."""
        preface = frames.PREFACE
        if data.startswith(preface):
            self._greeted = True
            return len(preface)
        if not preface.startswith(data):
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "no HTTP/2 connection preface")
        return 0

    def _fail_stream(self, error: StreamFailed) -> None:
        log.info("rpc stream failed", code=error.code.name, reason=error.reason)
        self.counters.stream_errors += 1
        stream = self._streams.get(error.stream_id)
        if stream is None:
            self.outbound.put(frames.rst_stream(error.stream_id, error.code))
        else:
            stream.lose(error.code)

    def _on_data(self, flags: int, number: int, data: bytes, start: int, stop: int) -> None:
        """Source: https://www.rfc-editor.org/rfc/rfc9113.html#section-6.1."""
        size = stop - start
        self._window -= size  # padding counts, and so does what is dropped: section 6.9.1
        if self._window < self.limits.connection_window_bytes >> 1:
            if self._window < 0:
                raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "connection window overrun")
            self.outbound.put(
                frames.window_update(0, self.limits.connection_window_bytes - self._window)
            )
            self._window = self.limits.connection_window_bytes
        if flags & frames.PADDED:
            start, stop = _unpadded(data, start, stop)
        stream = self._streams.get(number)
        if stream is None:
            self._expect_not_idle(number, "DATA")
            return  # closed: discarded, section 5.1
        if stream.remote_ended:
            raise StreamFailed(number, ErrorCode.STREAM_CLOSED, "DATA after END_STREAM")
        stream.receive_window -= size
        if stream.receive_window < 0:
            raise StreamFailed(number, ErrorCode.FLOW_CONTROL_ERROR, "stream window overrun")
        if flags & frames.END_STREAM:
            stream.remote_ended = True
            stream.received(data, start, stop)
            stream.half_close()
            return
        stream.received(data, start, stop)
        if stream.receive_window < self._stream_window_low and not stream.over:
            self._refill(stream)

    def _refill(self, stream: Stream) -> None:
        more = self._stream_window - stream.receive_window
        self.outbound.put(frames.window_update(stream.id, more))
        stream.receive_window = self._stream_window

    def _on_headers(self, flags: int, number: int, data: bytes, start: int, stop: int) -> None:
        """Source: https://www.rfc-editor.org/rfc/rfc9113.html#section-6.2."""
        if not number & 1:  # section 5.1.1: a client's streams have odd numbers
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, f"HEADERS on stream {number}")
        if flags & (frames.PADDED | frames.PRIORITY_FIELDS):
            if flags & frames.PADDED:
                start, stop = _unpadded(data, start, stop)
            if flags & frames.PRIORITY_FIELDS:
                start += frames.PRIORITY_BYTES
            if start > stop:
                raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short")
        if stop - start > self.limits.header_block_max_bytes:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "header block too large")
        if flags & frames.END_HEADERS:
            field = self._field
            value = "" if field is None else field.of(data[start:stop])
            self._headers_complete(number, flags, value)
        else:
            self._block_parts = data[start:stop]
            self._block = (number, flags, stop - start)
            self._expected = frames.CONTINUATION

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        """Source: https://www.rfc-editor.org/rfc/rfc9113.html#section-6.10."""
        block_stream, block_flags, size = self._block
        if self._expected != frames.CONTINUATION or number != block_stream:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "CONTINUATION of no header block")
        size += frames.HEADER_BYTES + len(payload)  # empty ones count, too
        if size > self.limits.header_block_max_bytes:
            raise ConnectionFailed(ErrorCode.ENHANCE_YOUR_CALM, "header block too large")
        self._block = (number, block_flags, size)
        self._block_parts += payload
        if flags & frames.END_HEADERS:
            self._expected = _ANY
            block, self._block_parts = self._block_parts, b""
            value = "" if self._field is None else self._field.of(block)
            self._headers_complete(number, block_flags, value)

    def _headers_complete(self, number: int, flags: int, field: str) -> None:
        """A call begins, or its request ends with trailers."""
        ended = bool(flags & frames.END_STREAM)
        stream = self._streams.get(number)
        if stream is not None:
            if stream.remote_ended:  # section 5.1, half-closed (remote)
                raise StreamFailed(number, ErrorCode.STREAM_CLOSED, "HEADERS after END_STREAM")
            if not ended:  # section 8.1: trailers end the request
                raise StreamFailed(number, ErrorCode.PROTOCOL_ERROR, "trailers without END_STREAM")
            stream.remote_ended = True
            stream.half_close()
            return
        if number <= self._last_id:
            if not ended:  # not the trailers of a stream that we have reset: section 5.1.1
                raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, f"stream {number} is used again")
            return
        if self._refusing:
            return  # section 6.8: above the last stream of our GOAWAY
        self._last_id = number
        if len(self._streams) >= self.limits.streams_max:  # section 5.1.2
            self.counters.streams_refused += 1
            self.outbound.put(frames.rst_stream(number, ErrorCode.REFUSED_STREAM))
            return
        stream = Stream(self, number, self._peer_window, self._stream_window)
        stream.field = field
        self._streams[number] = stream
        self.counters.streams += 1
        self.counters.streams_open += 1
        stream.remote_ended = ended
        try:
            stream.handler = self._factory(stream)
        except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets an answer
            stream.handler = OVER
            stream.failed(error)
            return
        if ended:
            stream.half_close()

    def _on_priority(self, _flags: int, number: int, payload: bytes) -> None:
        """Checked and ignored. Source: https://www.rfc-editor.org/rfc/rfc9113.html#section-6.3."""
        if number == 0:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        if len(payload) != frames.PRIORITY_BYTES:
            raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY is not 5 bytes")

    def _on_rst_stream(self, _flags: int, number: int, payload: bytes) -> None:
        """Source: https://www.rfc-editor.org/rfc/rfc9113.html#section-6.4."""
        if len(payload) != 4:
            raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "RST_STREAM is not 4 bytes")
        self._expect_not_idle(number, "RST_STREAM")
        stream = self._streams.get(number)
        if stream is not None:
            self.counters.resets_received += 1
            unfinished = not stream.finished
            self.forget(stream)
            if unfinished:
                stream.tell_lost()

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        """Source: https://www.rfc-editor.org/rfc/rfc9113.html#section-6.5."""
        if number != 0:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, f"SETTINGS on stream {number}")
        if flags & frames.ACK:
            if payload:
                raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS ACK with content")
            if self._expected == frames.SETTINGS:
                raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "SETTINGS ACK before SETTINGS")
            self._announced_window_applies()
            return
        if len(payload) % 6:
            raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "SETTINGS cut short")
        for name, value in frames.settings_of(payload):
            self._on_setting(name, value)
        self._expected = _ANY
        self.outbound.put(frames.frame(frames.SETTINGS, frames.ACK, 0))

    def _on_setting(self, name: int, value: int) -> None:
        """Source: https://www.rfc-editor.org/rfc/rfc9113.html#section-6.5.2."""
        match name:
            case Setting.INITIAL_WINDOW_SIZE:
                if value > frames.WINDOW_MAX_BYTES:
                    raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, f"window of {value} bytes")
                change, self._peer_window = value - self._peer_window, value
                for stream in tuple(self._streams.values()):  # section 6.9.2
                    if not self.outbound.grow_stream(stream, change):
                        raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "window above 2^31-1")
            case Setting.MAX_FRAME_SIZE:
                if not frames.FRAME_SIZE_MIN_BYTES <= value <= frames.FRAME_SIZE_MAX_BYTES:
                    raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, f"frame size {value}")
                self.outbound.frame_max = value
            case Setting.ENABLE_PUSH:
                if value > 1:
                    raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH is {value}")
            case _:
                # HEADER_TABLE_SIZE: our table is 0, see fields.NO_DYNAMIC_TABLE.
                # MAX_CONCURRENT_STREAMS: we open none. MAX_HEADER_LIST_SIZE: ours are tiny.
                pass

    def _announced_window_applies(self) -> None:
        """The peer has taken our settings: streams may start with less than the default now."""
        change = self.limits.stream_window_bytes - self._stream_window
        if change:
            self._stream_window += change
            self._stream_window_low = (self._stream_window + 1) >> 1
            for stream in self._streams.values():
                stream.receive_window += change
                if stream.receive_window < self._stream_window_low and not stream.remote_ended:
                    self._refill(stream)

    def _on_push_promise(self, _flags: int, _number: int, _payload: bytes) -> None:
        """Source: https://www.rfc-editor.org/rfc/rfc9113.html#section-8.4."""
        raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE from a client")

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        """Source: https://www.rfc-editor.org/rfc/rfc9113.html#section-6.7."""
        if number != 0:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, f"PING on stream {number}")
        if len(payload) != 8:
            raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "PING is not 8 bytes")
        if not flags & frames.ACK:
            self.outbound.put(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif self._draining and payload == DRAIN_PING:
            self._refuse_new_streams()

    def _on_goaway(self, _flags: int, number: int, payload: bytes) -> None:
        """The peer leaves: its streams are finished, then the connection is closed.

        Source: https://www.rfc-editor.org/rfc/rfc9113.html#section-6.8
        """
        if number != 0:
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, f"GOAWAY on stream {number}")
        if len(payload) < 8:
            raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "GOAWAY cut short")
        self._refuse_new_streams()

    def _on_window_update(self, _flags: int, number: int, payload: bytes) -> None:
        """Source: https://www.rfc-editor.org/rfc/rfc9113.html#section-6.9."""
        if len(payload) != 4:
            raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "WINDOW_UPDATE is not 4 bytes")
        (increment,) = frames.U32.unpack(payload)
        increment &= frames.WINDOW_MAX_BYTES
        if number == 0:
            if increment == 0:
                raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
            if not self.outbound.grow(increment):
                raise ConnectionFailed(ErrorCode.FLOW_CONTROL_ERROR, "window above 2^31-1")
            return
        self._expect_not_idle(number, "WINDOW_UPDATE")
        stream = self._streams.get(number)
        if stream is None:
            return
        if increment == 0:
            raise StreamFailed(number, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE of 0")
        if not self.outbound.grow_stream(stream, increment):
            raise StreamFailed(number, ErrorCode.FLOW_CONTROL_ERROR, "window above 2^31-1")

    def _expect_not_idle(self, number: int, kind: str) -> None:
        """Source: https://www.rfc-editor.org/rfc/rfc9113.html#section-5.1-7.2.1."""
        if number == 0 or not number & 1 or (number > self._last_id and not self._refusing):
            raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, f"{kind} on idle stream {number}")


def _unpadded(data: bytes, start: int, stop: int) -> tuple[int, int]:
    """Where the content of a padded frame is.

    Source: https://www.rfc-editor.org/rfc/rfc9113.html#section-6.1-4
    """
    if start == stop:
        raise ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "no pad length")
    padding = data[start]
    if padding >= stop - start:
        raise ConnectionFailed(ErrorCode.PROTOCOL_ERROR, f"padding of {padding} bytes")
    return start + 1, stop - padding
