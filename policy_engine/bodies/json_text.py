"""JSON as callers write it: read so that whoever reads it behind the gateway reads the same.

Source: RFC 8259, sections 4 (names that come twice), 7 (escapes) and 8.1 (encoding)
"""

import json
import re
from functools import lru_cache
from typing import Final

import orjson

from policy_engine.bodies.json_path import Json

_ESCAPE: Final = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|.)",
    re.DOTALL,
)
_BEGINS: Final = ("{", "[", '"')
_PLAIN: Final = {"\\/": "/"}
_SPACES: Final = {**_PLAIN, "\\n": "\n", "\\r": "\r", "\\t": "\t", "\\f": "\f"}
_ONE: Final = len("\\u0061")
_PAIR: Final = 2 * _ONE


class NotJson(ValueError):
    """The text is not JSON, or means one thing to one reader and another to the next."""


class _Twice(Exception):
    """A member has come twice."""


def _once(pairs: list[tuple[str, Json]]) -> None:
    names: set[str] = set()
    for name, _ in pairs:
        if name in names:
            raise _Twice(name[:100])
        names.add(name)


_CHECK: Final = json.JSONDecoder(object_pairs_hook=_once)


def document(content: bytes | str) -> Json:
    """What `content` says; members that stand twice are refused: some readers take the first.

    Raises NotJson.
    """
    try:
        found = orjson.loads(content)
        _CHECK.decode(content if isinstance(content, str) else content.decode())
    except orjson.JSONDecodeError as error:
        raise NotJson(str(error)) from None
    except _Twice as error:
        raise NotJson(f"member {error.args[0]!r} stands twice in one object") from None
    except RecursionError:
        raise NotJson("nested too deeply") from None
    return found


def unescaped(text: str, *, spaces: bool = False) -> str:
    """`text` without the escapes that JSON does not need, if it may be JSON: it says the same.

    `spaces`: line ends and tabs become what they stand for, too: to look at, it is JSON no more.
    """
    if "\\" not in text or not text.lstrip("\ufeff \t\r\n").startswith(_BEGINS):
        return text

    return _ESCAPE.sub(lambda match: _written(match[0], spaces), text)


@lru_cache(maxsize=4096)
def _written(escape: str, spaces: bool) -> str:
    """What `escape` is when JSON does not need it; otherwise it stays."""
    if escape[1] != "u":
        return _SPACES.get(escape, escape) if spaces else _PLAIN.get(escape, escape)
    if len(escape) == _PAIR:
        high, low = int(escape[2:6], 16), int(escape[8:], 16)
        return chr(0x10000 + ((high & 0x3FF) << 10) + (low & 0x3FF))
    if len(escape) != _ONE:
        return escape
    character = chr(int.from_bytes(bytes.fromhex(escape[2:])))
    if spaces and character.isspace():
        return character
    needed = character < " " or "\ud800" <= character < "\ue000" or character in '"\\'
    return escape if needed else character
