"""Request bodies: JSON or YAML in, one JSON-shaped document out; and documents as YAML.

YAML is read by the core schema of YAML 1.2, as its users expect: `on`, `no` and dates are text.
"""

import re
from collections.abc import Hashable
from typing import Any, cast

import orjson
import yaml

from bus.resources.bounded_yaml import MERGE, BoundedLoader, TooMuch, check_depth
from controller.errors import ParseFailed

Document = dict[str, Any]

MAX_DEPTH = 64
MAX_NODES = 200_000  # aliases make a small text a large document

_TOO_MUCH = "the document is nested too deeply or too large"


class _Loader(BoundedLoader):
    """YAML 1.2 core schema; a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """The mapping, unless a key comes twice."""
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != MERGE:
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"key {key.value!r} is given twice", key.start_mark
                    )
                seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first)
    )


def _int(loader: yaml.CSafeLoader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).lower()
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    base = {"0o": 8, "0x": 16}.get(digits[:2], 10)
    return sign * int(digits[2:] if base != 10 else digits, base)


_Loader.add_constructor("tag:yaml.org,2002:int", _int)


def read(body: bytes, content_type: str) -> Document:
    """The document in `body`; with no telling content type, JSON is tried before YAML.

    Raises ParseFailed.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type.endswith(("/json", "+json")):
        value = _json(body)
    elif media_type.endswith(("yaml", "+yml", "/yml")):
        value = _yaml(body)
    else:
        value = _json(body) if body.lstrip()[:1] in (b"{", b"[") else _yaml(body)
    if not isinstance(value, dict):
        raise ParseFailed("the body must be one object")
    return cast("Document", _plain(value, _Budget()))


def _json(body: bytes) -> object:
    try:
        value: object = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ParseFailed(f"failed to parse JSON: {error}") from error
    return value


def _yaml(body: bytes) -> object:
    try:
        check_depth(body, MAX_DEPTH, _Loader)
        return yaml.load(body, Loader=_Loader)  # noqa: S506  (it is a SafeLoader)
    except TooMuch:
        raise ParseFailed(_TOO_MUCH) from None
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise ParseFailed(f"failed to parse YAML: {reason}") from error
    except (ValueError, OverflowError, RecursionError) as error:
        raise ParseFailed(f"failed to parse YAML: {error}") from error


class _Budget:
    def __init__(self) -> None:
        self.nodes = 0


def _plain(value: object, budget: _Budget, depth: int = 0) -> object:
    """`value` if it is JSON-shaped and of a sane size. Raises ParseFailed."""
    budget.nodes += 1
    if budget.nodes > MAX_NODES or depth > MAX_DEPTH:
        raise ParseFailed(_TOO_MUCH)
    match value:
        case dict():
            for key in value:
                if not isinstance(key, str):
                    raise ParseFailed(f"the key {key!r} must be text")
            return {key: _plain(below, budget, depth + 1) for key, below in value.items()}
        case list():
            return [_plain(below, budget, depth + 1) for below in value]
        case bool() | str() | None:
            return value
        case int() if -(2**63) <= value < 2**64:
            return value
        case float() if value == value and abs(value) != float("inf"):  # noqa: PLR0124
            return value
        case _:
            raise ParseFailed(f"the value {value!r} cannot be written as JSON")


class _Dumper(yaml.CSafeDumper):
    """Texts of several lines as blocks."""


def _text(dumper: yaml.CSafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def to_yaml(document: Document) -> bytes:
    """`document` as YAML, keys in their order."""
    text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text.encode()
