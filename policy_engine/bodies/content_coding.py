"""Bodies as they were before they were compressed, as far as a policy may want to read.

Source: RFC 9110, section 8.4 (content codings), RFC 7932 (br), RFC 8878 and RFC 9659 (zstd)
"""

import sys
import zlib
from collections.abc import Callable
from typing import Final, Protocol

from policy_engine.hooks import Headers

LONGEST_BYTES: Final = 16 << 20
"""A body that is longer than this when it is decompressed is not read."""

_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
_RAW: Final = -zlib.MAX_WBITS
_ZLIB_HEADER_BYTES: Final = 2
_AS_IT_IS: Final = ("", "identity")
_MOST_MEMBERS: Final = 64
_ZSTD_WINDOW_LOG: Final = 23
"""8 MiB, what RFC 9659 lets senders use: a frame that needs more is not read."""


class Unreadable(Exception):
    """The body cannot be decompressed: another coding, broken, or far too long."""


def coding(headers: Headers) -> str:
    """How the body of the message is compressed; empty: not at all."""
    name = (headers.get("content-encoding") or "").strip().lower()
    return "" if name in _AS_IT_IS else name


def decoded(headers: Headers, body: bytes) -> bytes:
    """The whole `body`, decompressed if it is compressed. Raises Unreadable."""
    name = coding(headers)
    if not name or not body:
        return body
    decoder = Decoder(name)
    content = decoder.add(body)
    decoder.end()
    return content


class _Member(Protocol):
    """What was compressed in one go: a gzip member, a zstd frame, a whole brotli stream."""

    @property
    def may_repeat(self) -> bool:
        """Whether another may stand behind it."""
        ...

    def add(self, part: bytes, most: int) -> bytes:
        """What `part` adds to the content, about `most` bytes at most. Raises Unreadable."""
        ...

    @property
    def ended(self) -> bool:
        """Whether all of it has come."""
        ...

    @property
    def behind(self) -> bytes:
        """What has come behind its end."""
        ...


class Decoder:
    """A body that arrives in parts."""

    def __init__(self, name: str) -> None:
        """`name` is that of the coding. Raises Unreadable for one that is not known."""
        if name not in _MEMBERS:
            raise Unreadable(
                f"content coding {name!r} cannot be read, only gzip, deflate, br and zstd"
            )
        self._begun = _MEMBERS[name]
        self._member: _Member | None = None
        self._left = LONGEST_BYTES
        self._members = 0

    def add(self, part: bytes) -> bytes:
        """What `part` adds to the content. Raises Unreadable."""
        pieces: list[bytes] = []
        while part:
            if self._member is None or (self._member.ended and self._member.may_repeat):
                self._members += 1
                if self._members > _MOST_MEMBERS:
                    raise Unreadable(f"compressed in more than {_MOST_MEMBERS} pieces")
                self._member = self._begun()
            piece = self._member.add(part, self._left)
            self._left -= len(piece)
            if self._left <= 0:
                raise Unreadable(f"longer than {LONGEST_BYTES} bytes when decompressed")
            pieces.append(piece)
            part = self._member.behind if self._member.ended else b""
        return b"".join(pieces)

    def end(self) -> None:
        """The body is whole. Raises Unreadable when it is not."""
        if self._member is not None and not self._member.ended:
            raise Unreadable("compressed body ends too early")


class _Zlib:
    """gzip; deflate, with the zlib header that RFC 9110 asks for."""

    may_repeat = True
    _name = "gzip"

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)

    def add(self, part: bytes, most: int) -> bytes:
        try:
            return self._inflate.decompress(part, most)
        except zlib.error as error:
            raise Unreadable(f"not {self._name}: {error}") from None

    @property
    def ended(self) -> bool:
        return self._inflate.eof

    @property
    def behind(self) -> bytes:
        return self._inflate.unused_data


class _Deflate(_Zlib):
    """Some send deflate without the zlib header."""

    _name = "deflate"

    def __init__(self) -> None:
        super().__init__()
        self._head = b""  # what has come, until it shows whether there is a header

    def add(self, part: bytes, most: int) -> bytes:
        if len(self._head) >= _ZLIB_HEADER_BYTES:
            return super().add(part, most)
        self._head += part
        if len(self._head) < _ZLIB_HEADER_BYTES:
            return b""
        try:
            return super().add(self._head, most)
        except Unreadable:
            self._inflate = zlib.decompressobj(_RAW)
            return super().add(self._head, most)


class _Brotli:
    """br. Nothing may stand behind its end: the library says so."""

    may_repeat = False
    behind = b""

    def __init__(self) -> None:
        import brotli  # noqa: PLC0415 - only for bodies that are compressed so

        self._decompressor = brotli.Decompressor()
        self._error = brotli.error

    def add(self, part: bytes, most: int) -> bytes:
        try:
            made: bytes = self._decompressor.process(part, output_buffer_limit=most)
        except self._error as error:
            raise Unreadable(f"not br: {error}") from None
        return made

    @property
    def ended(self) -> bool:
        return bool(self._decompressor.is_finished())


class _Zstd:
    """zstd, without dictionaries."""

    may_repeat = True

    def __init__(self) -> None:
        if sys.version_info >= (3, 14):
            from compression import zstd  # noqa: PLC0415 - only for bodies compressed so
        else:
            from backports import zstd  # noqa: PLC0415

        largest: dict[int, int] = {zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
        self._decompressor = zstd.ZstdDecompressor(options=largest)
        self._error = zstd.ZstdError

    def add(self, part: bytes, most: int) -> bytes:
        try:
            return self._decompressor.decompress(part, most)
        except self._error as error:
            raise Unreadable(f"not zstd: {error}") from None

    @property
    def ended(self) -> bool:
        return self._decompressor.eof

    @property
    def behind(self) -> bytes:
        return self._decompressor.unused_data


_MEMBERS: Final[dict[str, Callable[[], _Member]]] = {
    "gzip": _Zlib,
    "x-gzip": _Zlib,
    "deflate": _Deflate,
    "br": _Brotli,
    "zstd": _Zstd,
}
