"""Response headers and trailers as HPACK blocks that are encoded once.

Only the static table and literals without indexing are used, so nothing ever enters the dynamic
table and a block means the same on every connection.

Sources: https://www.rfc-editor.org/rfc/rfc7541.html,
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md (Responses)
"""

from functools import lru_cache
from typing import Final

_INDEXED_STATUS_200: Final = b"\x88"  # static table, index 8
_CONTENT_TYPE_INDEX: Final = 31
_MESSAGE_MAX_BYTES: Final = 4_096  # keeps every block within one frame

NO_DYNAMIC_TABLE: Final = b"\x20"
"""Dynamic table size update to 0, in front of the first block of a connection.

It answers every SETTINGS_HEADER_TABLE_SIZE, past or to come: a table of size 0 is within each.
Source: https://www.rfc-editor.org/rfc/rfc7541.html#section-4.2
"""


def _integer(value: int, prefix_bits: int, pattern: int) -> bytes:
    """Source: https://www.rfc-editor.org/rfc/rfc7541.html#section-5.1."""
    full = (1 << prefix_bits) - 1
    if value < full:
        return bytes((pattern | value,))
    encoded = [pattern | full]
    value -= full
    while value >= 0x80:
        encoded.append(0x80 | value & 0x7F)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _string(text: bytes) -> bytes:
    """Without Huffman coding: it would save bytes on a Unix socket and cost time."""
    return _integer(len(text), 7, 0) + text


def _literal(name: bytes, value: bytes) -> bytes:
    """Source: https://www.rfc-editor.org/rfc/rfc7541.html#section-6.2.2."""
    return b"\x00" + _string(name) + _string(value)


def percent_encoded(message: str) -> bytes:
    """`grpc-message`: printable ASCII except % as it is, the other bytes of its UTF-8 as %XX."""
    return b"".join(
        bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte
        for byte in message.encode(errors="replace")[:_MESSAGE_MAX_BYTES]
    )


RESPONSE: Final = (
    _INDEXED_STATUS_200 + _integer(_CONTENT_TYPE_INDEX, 4, 0) + _string(b"application/grpc")
)
"""`:status: 200`, `content-type: application/grpc`."""

IDENTITY_ONLY: Final = _literal(b"grpc-accept-encoding", b"identity")
"""What a client that compresses is told.

Source: https://github.com/grpc/grpc/blob/master/doc/compression.md
"""


@lru_cache(maxsize=256)
def trailers(status: int, message: str = "") -> bytes:
    """`grpc-status` and, unless empty, `grpc-message`."""
    block = _literal(b"grpc-status", b"%d" % status)
    if message:
        block += _literal(b"grpc-message", percent_encoded(message))
    return block
