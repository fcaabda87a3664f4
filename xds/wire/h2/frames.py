"""HTTP/2 frames: their numbers, and the bytes of those that the server sends.

Source: https://www.rfc-editor.org/rfc/rfc9113.html
"""

from enum import IntEnum
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # section 3.4
HEADER_BYTES: Final = 9  # section 4.1
WINDOW_MAX_BYTES: Final = 2**31 - 1  # section 6.9.1
STREAM_ID_MAX: Final = 2**31 - 1  # section 5.1.1
DEFAULT_WINDOW_BYTES: Final = 65_535  # section 6.9.2
FRAME_SIZE_MIN_BYTES: Final = 16_384  # section 6.5.2, also the value until settings say otherwise
FRAME_SIZE_MAX_BYTES: Final = 2**24 - 1

# Plain integers, not an enum: they are compared once or more per frame.
DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FIELDS: Final = 0x20
PRIORITY_BYTES: Final = 5

FRAME_HEADER: Final = Struct(">HBBBL")  # length in 16 + 8 bits, type, flags, stream
U32: Final = Struct(">L")
_SETTING: Final = Struct(">HL")
_CONTROL: Final = Struct(">HBBBLL")  # a frame with four bytes of payload


class ErrorCode(IntEnum):
    """Why a stream or connection ended. Source: section 7."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class Setting(IntEnum):
    """What a peer tells about itself. Source: section 6.5.2."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """One frame."""
    size = len(payload)
    return FRAME_HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream_id) + payload


def settings(values: dict[Setting, int]) -> bytes:
    """SETTINGS with these values."""
    payload = b"".join(_SETTING.pack(name, value) for name, value in values.items())
    return frame(SETTINGS, 0, 0, payload)


def settings_of(payload: bytes) -> list[tuple[int, int]]:
    """The (identifier, value) pairs of a SETTINGS payload, in order; its length divides by six."""
    return list(_SETTING.iter_unpack(payload))


def rst_stream(stream_id: int, code: ErrorCode) -> bytes:
    """RST_STREAM."""
    return _CONTROL.pack(0, 4, RST_STREAM, 0, stream_id, code)


def window_update(stream_id: int, increment_bytes: int) -> bytes:
    """WINDOW_UPDATE; stream 0 is the connection."""
    return _CONTROL.pack(0, 4, WINDOW_UPDATE, 0, stream_id, increment_bytes)


def goaway(last_stream_id: int, code: ErrorCode, reason: str = "") -> bytes:
    """GOAWAY; the reason is for whoever debugs the peer."""
    payload = U32.pack(last_stream_id) + U32.pack(code) + reason.encode()
    return frame(GOAWAY, 0, 0, payload)
