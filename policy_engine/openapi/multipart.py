"""Bodies of several parts, one for each field of a form.

Read strictly: what two readers might understand differently is not read at all.

Source: RFC 7578 (multipart/form-data), RFC 2046, section 5.1
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from policy_engine.openapi.content_type import parameters
from policy_engine.openapi.parameters import Malformed

MOST_PARTS: Final = 1000
_LONGEST_HEAD_BYTES: Final = 8 << 10
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
_HEADER: Final = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f]*)")
_AS_THEY_ARE: Final = ("7bit", "8bit", "binary")


@dataclass(frozen=True, slots=True)
class Part:
    """One part."""

    name: str
    content_type: str  # empty: not said
    is_file: bool  # whether it has a file's name
    content: bytes


def parts(body: bytes, boundary: str) -> Iterator[Part]:
    """The parts of `body`, in order. Raises Malformed."""
    if not _BOUNDARY.fullmatch(boundary):
        raise Malformed("has no boundary in its Content-Type, or one that none can have")
    pieces = (b"\r\n" + body).split(b"\r\n--" + boundary.encode())
    if pieces[0].strip(b"\r\n") or len(pieces) == 1:
        raise Malformed("does not begin with its boundary")
    if pieces[-1] not in (b"--", b"--\r\n"):
        raise Malformed("does not end with its boundary")
    mark = b"--" + boundary.encode()
    if (b"\n" + body).count(b"\n" + mark) >= len(pieces) or b"\r" + mark in body:
        raise Malformed("has its boundary behind a line end that is not CRLF")
    if len(pieces) - 2 > MOST_PARTS:
        raise Malformed(f"has more than {MOST_PARTS} parts")
    for number, piece in enumerate(pieces[1:-1], 1):
        yield _part(piece, number)


def _part(piece: bytes, number: int) -> Part:
    if not piece.startswith(b"\r\n"):
        raise Malformed(f"part {number}: its boundary is followed by something else")
    head, found, content = piece.partition(b"\r\n\r\n")
    if not found or len(head) > _LONGEST_HEAD_BYTES:
        raise Malformed(f"part {number} has no headers, or very long ones")
    headers = _headers(head[2:], number)
    kind, semicolon, rest = headers.get("content-disposition", "").partition(";")
    if kind.strip().lower() != "form-data":
        raise Malformed(f"part {number}: its Content-Disposition is not form-data")
    try:
        said = parameters(semicolon + rest)
    except ValueError as error:
        raise Malformed(f"part {number}: its Content-Disposition {error}") from None
    if "name" not in said or not {"name*", "filename*"}.isdisjoint(said):
        raise Malformed(f"part {number}: its Content-Disposition names no field")
    encoding = headers.get("content-transfer-encoding", _AS_THEY_ARE[0]).strip().lower()
    if encoding not in _AS_THEY_ARE:
        raise Malformed(f"Content-Transfer-Encoding {encoding!r} cannot be read", said["name"])
    return Part(said["name"], headers.get("content-type", ""), "filename" in said, content)


def _headers(head: bytes, number: int) -> dict[str, str]:
    found: dict[str, str] = {}
    try:
        lines = head.decode().split("\r\n")
    except UnicodeDecodeError:
        raise Malformed(f"part {number} has headers that are not UTF-8") from None
    for line in lines:
        match = _HEADER.fullmatch(line)
        if match is None:
            raise Malformed(f"part {number} has a header that cannot be read")
        if match[1].lower() in found:
            raise Malformed(f"part {number} has the header {match[1]!r} twice")
        found[match[1].lower()] = match[2]
    return found
