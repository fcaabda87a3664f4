"""JSON values to the scalars of protobuf: one converter per type, each refusing what does not fit.

Source: https://protobuf.dev/programming-guides/json/
"""
# ruff: noqa: ANN401 - JSON values and upb messages have no static type

import base64
import binascii
import math
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor

from xds.wire.errors import BadDocument

Convert = Callable[[Any], Any]

_WHOLE = re.compile(r"-?[0-9]{1,20}")
_DURATION = re.compile(r"(-?)([0-9]{1,12})(?:\.([0-9]{1,9}))?s")
_MAX_DURATION_S = 315_576_000_000
_MAX_FLOAT = 3.4028234663852886e38
_SHOWN = 60  # characters of a refused value that a message shows


def shown(value: object) -> str:
    """`value` as it appears in a message, cut to fit."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def text(value: Any) -> str:
    """A string that UTF-8 can say."""
    if not isinstance(value, str):
        raise BadDocument(f"expected a string, not {shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadDocument(f"{shown(value)} is not Unicode text") from None
    return str(value)


def _bytes(value: Any) -> bytes:
    if type(value) is bytes:
        return value
    if type(value) is not str:
        raise BadDocument(f"expected base64 text, not {shown(value)}")
    # Both alphabets are JSON, with and without padding.
    text = value.replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise BadDocument(f"{shown(value)} is not base64") from None


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        raise BadDocument(f"expected true or false, not {shown(value)}")
    return value


def _is_whole_in_disguise(value: Any) -> bool:
    """Whether it is "5" (as JSON writes 64-bit numbers) or 5.0."""
    if type(value) is str:
        return _WHOLE.fullmatch(value) is not None
    return type(value) is float and value.is_integer()


def _integer(low: int, high: int) -> Convert:
    def convert(value: Any) -> int:
        number = value
        if _is_whole_in_disguise(value):
            number = int(value)
        elif type(value) is not int:
            raise BadDocument(f"expected a whole number, not {shown(value)}")
        if not low <= number <= high:
            raise BadDocument(f"{number} is not between {low} and {high}")
        return int(number)

    return convert


def _real(*, single: bool) -> Convert:
    names = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}

    def convert(value: Any) -> float:
        if type(value) is str:
            try:
                number = names[value] if value in names else float(value)
            except ValueError:
                raise BadDocument(f"expected a number, not {shown(value)}") from None
        elif type(value) is int or type(value) is float:
            number = float(value)
        else:
            raise BadDocument(f"expected a number, not {shown(value)}")
        if single and math.isfinite(number) and abs(number) > _MAX_FLOAT:
            raise BadDocument(f"{number!r} is too large")
        return number

    return convert


@lru_cache(maxsize=1024)
def _duration(text: str) -> dict[str, int]:
    match = _DURATION.fullmatch(text)
    if match is None:
        raise BadDocument(f"expected a duration in seconds like '1.5s', not {shown(text)}")
    sign, whole, fraction = match.groups()
    seconds, nanos = int(whole), int((fraction or "").ljust(9, "0"))
    if seconds > _MAX_DURATION_S:
        raise BadDocument(f"{text} is longer than 10,000 years")
    return {"seconds": -seconds, "nanos": -nanos} if sign else {"seconds": seconds, "nanos": nanos}


def duration(value: Any) -> dict[str, int]:
    """The fields of a google.protobuf.Duration; the caller must not change them."""
    if type(value) is not str:
        raise BadDocument(f"expected a duration in seconds like '1.5s', not {shown(value)}")
    return _duration(value)


def enum(descriptor: EnumDescriptor) -> Convert:
    """Values by name; numbers are taken when they are known."""
    numbers = {value.name: value.number for value in descriptor.values}
    known = frozenset(numbers.values())

    def convert(value: Any) -> int:
        if type(value) is str and value in numbers:
            return int(numbers[value])
        if type(value) is int and value in known:
            return value
        raise BadDocument(f"{shown(value)} is not one of {', '.join(numbers)}")

    return convert


_Kind = FieldDescriptor
_INT32, _INT64 = _integer(-(1 << 31), (1 << 31) - 1), _integer(-(1 << 63), (1 << 63) - 1)
_UINT32, _UINT64 = _integer(0, (1 << 32) - 1), _integer(0, (1 << 64) - 1)

SCALARS: dict[int, tuple[type | None, Convert]] = {
    _Kind.TYPE_STRING: (str, text),
    _Kind.TYPE_BYTES: (None, _bytes),
    _Kind.TYPE_BOOL: (bool, _bool),
    _Kind.TYPE_FLOAT: (None, _real(single=True)),
    _Kind.TYPE_DOUBLE: (float, _real(single=False)),
    **dict.fromkeys((_Kind.TYPE_INT32, _Kind.TYPE_SINT32, _Kind.TYPE_SFIXED32), (int, _INT32)),
    **dict.fromkeys((_Kind.TYPE_INT64, _Kind.TYPE_SINT64, _Kind.TYPE_SFIXED64), (int, _INT64)),
    **dict.fromkeys((_Kind.TYPE_UINT32, _Kind.TYPE_FIXED32), (int, _UINT32)),
    **dict.fromkeys((_Kind.TYPE_UINT64, _Kind.TYPE_FIXED64), (int, _UINT64)),
}
"""Per field type: the Python type that upb takes or refuses itself, and what converts all else."""
