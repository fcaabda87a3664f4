"""Parameters as they travel: how text becomes the value that a schema is about.

Source: https://spec.openapis.org/oas/v3.1.1.html#style-values
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, Literal
from urllib.parse import unquote

from policy_engine.bodies.json_path import Json
from policy_engine.bodies.json_text import NotJson, document
from policy_engine.hooks import Headers
from policy_engine.openapi.document import resolved

In = Literal["path", "query", "header", "cookie"]
STYLES: Final[dict[In, tuple[str, ...]]] = {  # the first is the default
    "path": ("simple", "label", "matrix"),
    "query": ("form", "spaceDelimited", "pipeDelimited", "deepObject"),
    "header": ("simple",),
    "cookie": ("form",),
}

_INTEGER: Final = re.compile(r"-?(0|[1-9][0-9]{0,30})")
_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?")
_SEPARATORS: Final = {"spaceDelimited": " ", "pipeDelimited": "|"}
_DEEPEST: Final = 2  # a member that is a list of numbers


class Malformed(Exception):
    """The text is not written as the parameter, or the body, must be."""

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(message)
        self.where = where  # in the body; empty: not told, or all of it


@dataclass(frozen=True, slots=True)
class Shape:
    """What a schema says of the kind of a value, as far as its text must be read."""

    kinds: frozenset[str] = frozenset()  # JSON Schema's types; empty: any
    items: "Shape | None" = None
    members: Mapping[str, "Shape"] | None = None

    def read(self, text: str) -> Json:
        """`text` as the first of these it can be: number, truth value, null, text."""
        if "integer" in self.kinds and _INTEGER.fullmatch(text):
            return int(text)
        if "number" in self.kinds and _NUMBER.fullmatch(text):
            return float(text) if not _INTEGER.fullmatch(text) else int(text)
        if "boolean" in self.kinds and text in ("true", "false"):
            return text == "true"
        if "null" in self.kinds and "string" not in self.kinds and text in ("", "null"):
            return None
        return text

    def read_all(self, texts: Iterable[str]) -> list[Json]:
        """Each as an item of the array."""
        shape = self.items or _ANY
        return [shape.read(one) for one in texts]

    def read_members(self, pairs: Iterable[tuple[str, str]]) -> dict[str, Json]:
        """Each as a member of the object."""
        members = self.members or {}
        return {name: members.get(name, _ANY).read(text) for name, text in pairs}


_ANY: Final = Shape()


class Shapes:
    """The shapes of a document's schemas: as deep as text goes, each looked at once."""

    def __init__(self, root: dict[str, Any]) -> None:
        self._root = root
        self._known: dict[tuple[int, int], Shape] = {}

    def of(self, schema: Json, below: int = _DEEPEST) -> Shape:
        """What `schema` says of kinds, its references and parts taken together.

        `below`: how many levels of items and members are looked at. What refers to itself is
        anything.
        """
        if not isinstance(schema, dict):
            return _ANY
        key = (id(schema), below)
        if key not in self._known:
            self._known[key] = _ANY
            self._known[key] = self._looked_at(schema, below)
        return self._known[key]

    def _looked_at(self, schema: dict[str, Any], below: int) -> Shape:
        if "$ref" in schema:
            try:
                return self.of(resolved(self._root, schema, ""), below)
            except ValueError:
                return _ANY
        kind = schema.get("type")
        kinds = set(kind if isinstance(kind, list) else [kind] if isinstance(kind, str) else ())
        items: Shape | None = None
        members: dict[str, Shape] = {}
        if below:
            items = self.of(schema["items"], below - 1) if "items" in schema else None
            properties = schema.get("properties")
            if isinstance(properties, dict):
                members = {name: self.of(one, below - 1) for name, one in properties.items()}
        for word in ("allOf", "anyOf", "oneOf"):
            for part in schema.get(word) or ():
                other = self.of(part, below)
                kinds |= other.kinds
                items = items or other.items
                members |= other.members or {}
        if members and not kinds:
            kinds.add("object")
        return Shape(frozenset(kinds), items, members or None)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of an operation."""

    name: str
    place: In
    required: bool
    key: str  # under which the description's schemas know it
    shape: Shape
    style: str
    explode: bool
    json: bool = False  # the text is JSON
    may_be_empty: bool = False

    def value(self, carried: "Carried") -> Json:
        """Its value; raises Malformed, and LookupError when it is not there."""
        if self.json:
            try:
                return document(self._one(carried))
            except NotJson as error:
                raise Malformed(f"is not JSON: {error}") from None
        if "object" in self.shape.kinds:
            return self.shape.read_members(self._pairs(carried))
        if "array" in self.shape.kinds:
            return self.shape.read_all(self._texts(carried))
        return self.shape.read(self._one(carried))

    def text(self, carried: "Carried") -> str:
        """What is given for it, as it is. Raises Malformed and LookupError."""
        return self._one(carried)

    def _one(self, carried: "Carried") -> str:
        texts = carried.texts(self)
        if len(texts) > 1 and self.place in ("query", "cookie"):
            raise Malformed("is given more than once")
        return self._bare(texts[0])

    def _bare(self, text: str) -> str:
        if self.style == "label":
            return text.removeprefix(".")
        if self.style == "matrix":
            return text.removeprefix(f";{self.name}").removeprefix("=")
        return text

    def _texts(self, carried: "Carried") -> list[str]:
        texts = carried.texts(self)
        if self.explode and self.place in ("query", "cookie"):
            return list(texts)
        if self.explode and self.style == "matrix":
            prefix = f";{self.name}="
            return texts[0].removeprefix(prefix).split(prefix)
        separator = "." if self.explode and self.style == "label" else ","
        return _split(self._bare(texts[0]), _SEPARATORS.get(self.style, separator))

    def _pairs(self, carried: "Carried") -> list[tuple[str, str]]:
        if self.style == "deepObject":
            pairs = carried.deep(self.name)
        elif self.explode and self.place in ("query", "cookie"):
            pairs = carried.members(self.shape.members or {}, self)
        elif self.explode:
            separator = {"label": ".", "matrix": ";"}.get(self.style, ",")
            text = carried.texts(self)[0].removeprefix(separator)
            return [_pair(one) for one in _split(text, separator)]
        else:
            text = self._bare(carried.texts(self)[0])
            flat = _split(text, _SEPARATORS.get(self.style, ","))
            if len(flat) % 2:
                raise Malformed("is not a list of names and values")
            return list(zip(flat[::2], flat[1::2], strict=True))
        if not pairs:
            raise LookupError(self.name)
        return pairs


def _split(text: str, separator: str) -> list[str]:
    return text.split(separator) if text else []


def _pair(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not found:
        raise Malformed("is not a list of names and values")
    return name, value


class Carried:
    """All that a message carries as text, read where it is asked for."""

    def __init__(self, headers: Headers, path: str, in_path: Mapping[str, str]) -> None:
        """`path` with its query, `in_path` the decoded values of its parameters."""
        self._headers = headers
        self._path = path
        self._in_path = in_path

    @cached_property
    def _query(self) -> dict[str, list[str]]:
        return _by_name(query_of(self._path))

    @cached_property
    def _cookies(self) -> dict[str, list[str]]:
        return _by_name(cookies_of(self._headers.get("cookie") or ""))

    def texts(self, parameter: Parameter) -> tuple[str, ...]:
        """What is given for it. Raises LookupError for nothing."""
        match parameter.place:
            case "path":
                return (self._in_path[parameter.name],)
            case "header":
                text = self._headers.get(parameter.name)
                if text is None:
                    raise LookupError(parameter.name)
                return (text,)
            case "query":
                return tuple(self._query[parameter.name])
            case _:
                return tuple(self._cookies[parameter.name])

    def deep(self, name: str) -> list[tuple[str, str]]:
        """`name[member]=value` of the query."""
        start = f"{name}["
        return [
            (key[len(start) : -1], values[0])
            for key, values in self._query.items()
            if key.startswith(start) and key.endswith("]")
        ]

    def members(self, names: Iterable[str], parameter: Parameter) -> list[tuple[str, str]]:
        """Members of an object that stand in the query or in cookies by themselves."""
        given = self._query if parameter.place == "query" else self._cookies
        return [(name, given[name][0]) for name in names if name in given]


def _by_name(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def query_of(path: str) -> Iterator[tuple[str, str]]:
    """Names and values of the query of `path`, decoded."""
    return form_of(path.partition("?")[2].partition("#")[0])


def form_of(text: str) -> Iterator[tuple[str, str]]:
    """Names and values of a form in `application/x-www-form-urlencoded`."""
    for pair in text.split("&"):
        if pair:
            name, _, value = pair.replace("+", " ").partition("=")
            yield unquote(name), unquote(value)


def cookies_of(header: str) -> Iterator[tuple[str, str]]:
    """Names and values of a Cookie header."""
    for pair in header.split(";"):
        name, found, value = pair.strip().partition("=")
        if found:
            yield name, value.strip('"')
