"""One field of request headers: how a call says what it is about.

We announce a dynamic table of size 0. As soon as the peer's encoder has answered that, a block is
nothing but static entries and literals and means the same wherever it comes: what a client says of
its calls is the same bytes again and again, and is decoded once. Until then, for a block or two,
its dynamic table is followed.

Source: https://www.rfc-editor.org/rfc/rfc7541.html
"""

from typing import Final

from hpack import Decoder, HPACKError

from xds.wire.h2.errors import ConnectionFailed
from xds.wire.h2.frames import ErrorCode

_NO_TABLE: Final = b"\x20"  # dynamic table size update to 0, section 6.3
_UPDATE_BITS: Final = 0xE0
_KNOWN_MAX: Final = 4_096
_KNOWN_MAX_BYTES: Final = 1_024


class RequestField:
    """The values of the field `name`, of the calls of one connection."""

    __slots__ = ("_decoder", "_known", "_name")

    def __init__(self, name: str) -> None:
        self._name = name.encode("ascii")
        self._decoder: Decoder | None = Decoder()  # while the peer may have a dynamic table
        self._known: dict[bytes, str] = {}

    def of(self, block: bytes) -> str:
        """The field's value in a header block, every one of which has to come here in its order.

        Empty without the field. Raises ConnectionFailed.
        """
        value = self._known.get(block)
        if value is not None:
            return value
        # An encoder may be at 0 only on its way to another size, section 4.2.
        if block[:1] == _NO_TABLE and not (block[1:2] and _is_update(block[1])):
            self._decoder = None
        return self._found(block)

    def _found(self, block: bytes) -> str:
        decoder = self._decoder or _without_table()
        try:
            fields = decoder.decode(block, raw=True)
        except HPACKError as error:
            raise ConnectionFailed(ErrorCode.COMPRESSION_ERROR, str(error)) from error
        value = ""
        for name, content in fields:
            if name == self._name:
                value = bytes(content).decode("latin-1")
        if self._decoder is None and len(block) <= _KNOWN_MAX_BYTES:
            if len(self._known) >= _KNOWN_MAX:
                self._known.clear()
            self._known[block] = value
        return value


def _is_update(byte: int) -> bool:
    return byte & _UPDATE_BITS == _NO_TABLE[0]


def _without_table() -> Decoder:
    decoder = Decoder()
    decoder.max_allowed_table_size = decoder.header_table_size = 0
    return decoder
