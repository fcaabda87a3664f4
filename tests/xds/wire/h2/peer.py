"""A client in memory, frame by frame, and small services for it to call."""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import hpack

from xds.wire.h2 import Counters, Limits, Stream, StreamHandler
from xds.wire.h2 import frames as wire
from xds.wire.h2.connection import Connection
from xds.wire.h2.frames import ErrorCode, frame

GREETING = wire.PREFACE + wire.settings({})
REQUEST_BLOCK = hpack.Encoder().encode(
    [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/test.Service/Method"),
        (":authority", "test"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ]
)


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def split(data: bytes) -> Iterator[Frame]:
    """Every frame of `data`, which must end with one."""
    at = 0
    while at < len(data):
        high, low, kind, flags, stream = wire.FRAME_HEADER.unpack_from(data, at)
        at += wire.HEADER_BYTES
        size = high << 8 | low
        assert at + size <= len(data), "the server has written half a frame"
        yield Frame(kind, flags, stream, data[at : at + size])
        at += size


def prefixed(message: bytes, *, compressed: int = 0) -> bytes:
    """A message as gRPC puts it into DATA frames."""
    return bytes((compressed,)) + len(message).to_bytes(4, "big") + message


def headers(stream: int, flags: int = wire.END_HEADERS, block: bytes = REQUEST_BLOCK) -> bytes:
    return frame(wire.HEADERS, flags, stream, block)


def data(stream: int, payload: bytes, flags: int = 0) -> bytes:
    return frame(wire.DATA, flags, stream, payload)


def call(stream: int, message: bytes) -> bytes:
    """A whole unary request of one short message."""
    return headers(stream) + data(stream, prefixed(message), wire.END_STREAM)


@dataclass
class Answer:
    """What came back on one stream."""

    messages: list[bytes] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)
    ended: bool = False
    reset: ErrorCode | None = None
    pending: bytes = b""  # of a message that is not whole yet

    @property
    def status(self) -> int | None:
        return int(self.fields["grpc-status"]) if "grpc-status" in self.fields else None


class Wire(asyncio.Transport):
    """A transport whose other end is a list."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.closed = False
        self.aborted = False
        self.unread_bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.closed, "written after the end"
        self.written.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return self.unread_bytes


class Peer:
    """A client of one connection; `answers` grows with every `read`."""

    def __init__(
        self, factory: Callable[[Stream], StreamHandler], limits: Limits | None = None
    ) -> None:
        self.counters = Counters()
        self.gone = False
        self.wire = Wire()
        self.connection = Connection(factory, limits or Limits(), self.counters, self._gone)
        self.connection.connection_made(self.wire)
        self.answers: dict[int, Answer] = {}
        self.goaways: list[tuple[int, ErrorCode]] = []
        self.writes = 0
        self._decoder = hpack.Decoder()

    def _gone(self, _: Connection) -> None:
        self.gone = True

    def send(self, *pieces: bytes) -> "Peer":
        self.connection.data_received(b"".join(pieces))
        return self

    def read(self) -> list[Frame]:
        """The frames since the last time, checked by an HPACK decoder that is not ours."""
        if not self.wire.closed:
            self.connection.outbound.flush()
        self.writes += len(self.wire.written)
        new = list(split(b"".join(self.wire.written)))
        self.wire.written.clear()
        for one in new:
            self._note(one)
        return new

    def _note(self, one: Frame) -> None:
        if one.kind == wire.GOAWAY:
            last, code = (int.from_bytes(one.payload[at : at + 4], "big") for at in (0, 4))
            self.goaways.append((last, ErrorCode(code)))
        if one.kind not in (wire.HEADERS, wire.DATA, wire.RST_STREAM):
            return
        answer = self.answers.setdefault(one.stream, Answer())
        if one.kind == wire.RST_STREAM:
            assert answer.reset is None
            answer.reset = ErrorCode(int.from_bytes(one.payload, "big"))
            return
        assert not answer.ended
        assert answer.reset is None
        if one.kind == wire.HEADERS:
            assert one.flags & wire.END_HEADERS
            answer.fields |= dict(self._decoder.decode(one.payload))
        else:
            assert ":status" in answer.fields
            answer.pending += one.payload
            while len(answer.pending) >= 5:
                size = int.from_bytes(answer.pending[1:5], "big")
                if len(answer.pending) < 5 + size:
                    break
                answer.messages.append(answer.pending[5 : 5 + size])
                answer.pending = answer.pending[5 + size :]
        answer.ended = bool(one.flags & wire.END_STREAM)

    def answer(self, stream: int) -> Answer:
        """What has come back on `stream` so far."""
        self.read()
        return self.answers.get(stream, Answer())

    def refused(self) -> ErrorCode:
        """The code of the GOAWAY that ended the connection."""
        self.read()
        assert self.wire.closed
        return self.goaways[-1][1]


class Echo:
    """Says every message back, and ends when the client does."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.was_lost = 0

    def message(self, data: bytes) -> None:
        self.stream.send(data)

    def half_closed(self) -> None:
        self.stream.finish()

    def lost(self) -> None:
        self.was_lost += 1


class Kept:
    """Makes handlers of one kind and keeps them, in order."""

    def __init__(self, kind: type[Echo] = Echo) -> None:
        self.kind = kind
        self.handlers: list[Echo] = []

    def __call__(self, stream: Stream) -> Echo:
        self.handlers.append(self.kind(stream))
        return self.handlers[-1]


def greeted(
    factory: Callable[[Stream], StreamHandler] = Echo,
    limits: Limits | None = None,
    settings: dict[wire.Setting, int] | None = None,
) -> Peer:
    """A client that has said hello and read the server's greeting."""
    peer = Peer(factory, limits)
    peer.send(wire.PREFACE, wire.settings(settings or {}), frame(wire.SETTINGS, wire.ACK, 0))
    peer.read()
    return peer
