"""Where gRPC messages end on an HTTP/2 connection, without reading them.

Follows what one trusted peer sends: frame headers, and the length before each message. A router
that is held back by flow control stops within a message; one that has nothing to say, between two.

Sources: RFC 9113, section 4.1 (frames); gRPC over HTTP2, "Length-Prefixed-Message".
"""

from dataclasses import dataclass, field

_PREFACE_BYTES = 24  # PRI * HTTP/2.0
_HEAD_BYTES = 9
_PREFIX_BYTES = 5
_DATA, _RST_STREAM = 0x0, 0x3
_PADDED = 0x8


@dataclass(slots=True)
class _Message:
    """The message of one stream that is under way."""

    prefix: bytearray = field(default_factory=bytearray)
    left: int = 0  # bytes that are still to come


class Framing:
    """One direction of a connection, from its first byte."""

    def __init__(self) -> None:
        self._head = bytearray()
        self._left = _PREFACE_BYTES  # of the frame; the preface passes for one
        self._stream = 0  # whose data the frame holds; 0: something else
        self._messages: dict[int, _Message] = {}
        self._followed = True

    @property
    def between_messages(self) -> bool:
        """Whether all that has begun is complete; true, too, when it cannot be known."""
        if not self._followed:
            return True
        return not (
            self._head
            or self._left
            or any(message.prefix or message.left for message in self._messages.values())
        )

    def feed(self, chunk: bytes) -> None:
        """Take note of the bytes that come next."""
        rest = memoryview(chunk)
        while rest and self._followed:
            if self._left:
                part, rest = rest[: self._left], rest[self._left :]
                self._left -= len(part)
                if self._stream:
                    self._take(self._messages.setdefault(self._stream, _Message()), part)
            else:
                missing = _HEAD_BYTES - len(self._head)
                self._head += rest[:missing]
                rest = rest[missing:]
                if len(self._head) == _HEAD_BYTES:
                    self._begin_frame()

    def _begin_frame(self) -> None:
        kind, flags = self._head[3], self._head[4]
        stream = int.from_bytes(self._head[5:]) & 0x7FFF_FFFF
        self._left = int.from_bytes(self._head[:3])
        self._stream = stream if kind == _DATA else 0
        self._head.clear()
        if kind == _RST_STREAM:
            self._messages.pop(stream, None)
        elif kind == _DATA and flags & _PADDED:
            self._followed = False  # Envoy does not pad

    @staticmethod
    def _take(message: _Message, part: memoryview) -> None:
        while part:
            if message.left:
                taken = min(message.left, len(part))
                message.left -= taken
                part = part[taken:]
            else:
                missing = _PREFIX_BYTES - len(message.prefix)
                message.prefix += part[:missing]
                part = part[missing:]
                if len(message.prefix) == _PREFIX_BYTES:
                    message.left = int.from_bytes(message.prefix[1:])
                    message.prefix.clear()
