"""Protobuf's base-128 integers and the walk over a message's fields.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Iterator
from typing import Literal

LENGTH_DELIMITED: Literal[2] = 2
VARINT: Literal[0] = 0


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The integer at `at` and the place behind it. Raises IndexError, ValueError."""
    number = shift = 0
    while True:
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
        if shift > 63:
            raise ValueError("varint of more than ten bytes")


def fields(data: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field number, start, end) of each length-delimited field; varints are passed over."""
    at = start
    while at < end:
        tag, at = read_varint(data, at)
        if tag & 7 == LENGTH_DELIMITED:
            size, at = read_varint(data, at)
            yield tag >> 3, at, at + size
            at += size
        elif tag & 7 == VARINT:
            _, at = read_varint(data, at)
        else:
            raise ValueError(f"wire type {tag & 7} has no place in a file descriptor")
