"""An OpenAPI document as it is written: read, bounded, references inside it followed."""

import re
from collections.abc import Callable
from typing import Any, Final, cast
from urllib.parse import unquote

import orjson
import yaml

from bus.resources.bounded_yaml import BoundedLoader, TooMuch, check_depth
from policy_engine.bodies.json_path import Json

LONGEST_BYTES: Final = 512 << 10
MOST_NODES: Final = 100_000
"""YAML's aliases can say much in a few lines: mappings, lists and scalars, aliases followed."""

_DEEPEST: Final = 100
_TOO_MUCH: Final = f"has more than {MOST_NODES} values, or is deeper than {_DEEPEST}"
_DIALECTS: Final = (
    "https://spec.openapis.org/oas/3.1/dialect/base",
    "https://json-schema.org/draft/2020-12/schema",
)
_VERSION: Final = re.compile(r"3\.[01]\.\d+(-.*)?")


class _Yaml(BoundedLoader):
    """YAML 1.2's scalars: dates are text, and so are `yes` and `off`."""


_Yaml.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool")
    ]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_Yaml.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def read(document: Json) -> dict[str, Any]:
    """`document` (an object, or JSON or YAML text) as a mapping of JSON values.

    Raises ValueError.
    """
    if isinstance(document, str):
        if len(document.encode()) > LONGEST_BYTES:
            raise ValueError(f"must be at most {LONGEST_BYTES} bytes long")
        document = _parsed(document)
    if not isinstance(document, dict):
        raise ValueError("is not an OpenAPI document: it is not an object")  # noqa: TRY004
    document = _Copy().of(document, 0)
    if len(_written(document)) > LONGEST_BYTES:
        raise ValueError(f"must be at most {LONGEST_BYTES} bytes long")
    version = document.get("openapi")
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        found = version or document.get("swagger")
        raise ValueError(f"must be OpenAPI 3.0 or 3.1, it says {found!r}")
    dialect = document.get("jsonSchemaDialect", _DIALECTS[0])
    if dialect not in _DIALECTS:
        raise ValueError(f"jsonSchemaDialect {dialect!r} is not known")
    return cast("dict[str, Any]", document)


def _written(document: Json) -> bytes:
    try:
        return orjson.dumps(document)
    except orjson.JSONEncodeError as error:
        raise ValueError(f"holds a value that JSON cannot: {error}") from None


def _parsed(text: str) -> Json:
    try:
        if text.lstrip().startswith("{"):
            return orjson.loads(text)
        check_depth(text, _DEEPEST, _Yaml)
        return yaml.load(text, _Yaml)  # noqa: S506 - a safe loader
    except orjson.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from None
    except TooMuch:
        raise ValueError(_TOO_MUCH) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ValueError(f"is not YAML: {' '.join(str(error).split())}") from None


class _Copy:
    """A copy whose keys are text. Raises ValueError when it gets too large."""

    def __init__(self) -> None:
        self._left = MOST_NODES

    def of(self, node: Json, depth: int) -> Json:
        self._left -= 1
        if self._left < 0 or depth > _DEEPEST:
            raise ValueError(_TOO_MUCH)
        match node:
            case dict():
                return {_key(key): self.of(value, depth + 1) for key, value in node.items()}
            case list() | tuple():
                return [self.of(one, depth + 1) for one in node]
            case None | str() | bool() | int() | float():
                return node
            case _:
                raise ValueError(f"holds a value that JSON cannot: {node!r}")


def _key(key: object) -> str:
    match key:
        case bool():
            return "true" if key else "false"
        case str() | int() | float():
            return str(key)
        case _:
            raise ValueError(f"holds a key that is no text: {key!r}")


def resolved(root: dict[str, Any], node: Json, place: str) -> dict[str, Any]:
    """`node`, or what its `$ref` leads to. Raises ValueError."""
    seen: set[str] = set()
    while isinstance(node, dict) and isinstance(node.get("$ref"), str):
        reference = node["$ref"]
        if reference in seen:
            raise ValueError(f"{place}: {reference} refers to itself")
        seen.add(reference)
        node = _target(root, reference, place)
    if not isinstance(node, dict):
        raise ValueError(f"{place} is not an object")  # noqa: TRY004 - what a user wrote
    return node


def _target(root: dict[str, Any], reference: str, place: str) -> Json:
    if not reference.startswith("#/"):
        raise ValueError(f"{place}: {reference} stands in another document; bundle them first")
    node: Json = root
    for step in reference[2:].split("/"):
        key = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
            node = node[int(key)]
        elif isinstance(node, dict) and key in node:
            node = node[key]
        else:
            raise ValueError(f"{place}: {reference} does not exist")
    return node


def for_direction(root: Json, *, answers: bool, old: bool) -> Json:
    """`root` with its schemas as JSON Schema has them.

    What only answers have (`readOnly`) need not be in requests, and the other way round. `old`: it
    is written in the words of OpenAPI 3.0.
    """
    hidden = "writeOnly" if answers else "readOnly"

    def schema(node: dict[str, Any]) -> dict[str, Any]:
        properties, required = node.get("properties"), node.get("required")
        if isinstance(properties, dict) and isinstance(required, list):
            needed = [one for one in required if not _is(root, properties.get(one), hidden)]
            node = {key: value for key, value in node.items() if key != "required"}
            if needed:
                node["required"] = needed
        return _modern(node) if old else node

    return _walked(root, schema, names=False)


def _modern(node: dict[str, Any]) -> dict[str, Any]:
    """A schema of OpenAPI 3.0 in the words of JSON Schema 2020-12."""
    if isinstance(node.get("$ref"), str):
        return {"$ref": node["$ref"]}  # nothing beside it counts
    modern = dict(node)
    if node.get("nullable") is True and isinstance(node.get("type"), str):
        modern["type"] = [node["type"], "null"]
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(node.get(exclusive), bool):
            del modern[exclusive]
            if node[exclusive] and bound in node:
                modern[exclusive] = modern.pop(bound)
    return modern


_NAMES: Final = frozenset({"properties", "patternProperties", "definitions", "$defs", "schemas"})
_VALUES: Final = frozenset({"example", "examples", "default", "enum", "const"})


def _walked(node: Json, change: Callable[[dict[str, Any]], dict[str, Any]], *, names: bool) -> Json:
    """Every mapping changed, except those that hold names of properties, and example values."""
    match node:
        case dict():
            walked = {
                key: value
                if key in _VALUES and not names
                else _walked(value, change, names=key in _NAMES and not names)
                for key, value in node.items()
            }
            return walked if names else change(walked)
        case list():
            return [_walked(one, change, names=False) for one in node]
        case _:
            return node


def _is(root: Json, schema: Json, word: str) -> bool:
    if isinstance(schema, dict) and isinstance(schema.get("$ref"), str):
        try:
            schema = resolved(root, schema, "")
        except ValueError:
            return False
    return isinstance(schema, dict) and schema.get(word) is True
