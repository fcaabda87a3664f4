"""Bodies as they were before they were compressed, as far as a policy may want to read.

Source: RFC 9110, section 8.4 (content codings)
"""

import zlib
from typing import Final

from policy_engine.hooks import Headers

LONGEST_BYTES: Final = 16 << 20
"""A body that is longer than this when it is decompressed is not read."""

_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32
_RAW: Final = -zlib.MAX_WBITS
_AS_IT_IS: Final = ("", "identity")
_ZLIB: Final = ("gzip", "x-gzip", "deflate")
_MOST_MEMBERS: Final = 64


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


class Decoder:
    """A body that arrives in parts."""

    def __init__(self, name: str) -> None:
        """`name` is that of the coding. Raises Unreadable for one that is not known."""
        if name not in _ZLIB:
            raise Unreadable(f"content coding {name!r} cannot be read, only gzip and deflate")
        self._name = name
        self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._left = LONGEST_BYTES
        self._started = False
        self._members = 1

    def add(self, part: bytes) -> bytes:
        """What `part` adds to the content. Raises Unreadable."""
        content = b""
        while part:
            content += self._inflated(part)
            if self._inflate.unconsumed_tail:
                raise Unreadable(f"longer than {LONGEST_BYTES} bytes when decompressed")
            part = self._inflate.unused_data
            if part:  # another member of the same gzip file
                self._members += 1
                if self._members > _MOST_MEMBERS:
                    raise Unreadable(f"compressed in more than {_MOST_MEMBERS} pieces")
                self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
        return content

    def end(self) -> None:
        """The body is whole. Raises Unreadable when it is not."""
        if self._started and not self._inflate.eof:
            raise Unreadable("compressed body ends too early")

    def _inflated(self, part: bytes) -> bytes:
        try:
            content = self._inflate.decompress(part, self._left)
        except zlib.error as error:
            content = self._inflated_raw(part, error)
        self._started = True
        self._left -= len(content)
        if self._left <= 0:
            raise Unreadable(f"longer than {LONGEST_BYTES} bytes when decompressed")
        return content

    def _inflated_raw(self, part: bytes, error: zlib.error) -> bytes:
        """Some send `deflate` without the zlib header that RFC 9110 asks for."""
        if self._name != "deflate" or self._started:
            raise Unreadable(f"not {self._name}: {error}") from None
        self._inflate = zlib.decompressobj(_RAW)
        try:
            return self._inflate.decompress(part, self._left)
        except zlib.error as again:
            raise Unreadable(f"not deflate: {again}") from None
