"""One document as XML and as JSON.

XML to JSON: an element is a member; its attributes are members that start with `@`, its text is its
value, or `#text` beside attributes and children; elements of one name under one parent are a list;
an empty element is null. JSON to XML: the same backwards, and a list is an element that holds one
element per item, called by the singular of its name (`items`: `item`), or `item`. What JSON has no
name for is under an element `root`, and what is in an element `root` needs none.

No document type is read, so that there are no entities and nothing is fetched; depth and number of
elements are bounded.

Source: XML 1.0, https://www.w3.org/TR/xml/.
"""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from json import JSONDecoder
from typing import Any
from xml.parsers import expat
from xml.sax.saxutils import escape, quoteattr

import orjson

from policy_engine.bodies.xml_events import UNREADABLE, read

DEPTH_MAX = 100
ELEMENTS_MAX = 100_000

ROOT = "root"
_ATTRIBUTE, _TEXT = "@", "#text"
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]*(:[A-Za-z_][A-Za-z0-9_.\-]*)?")
_NO_NAME_CHARACTER = re.compile(r"[^\w.\-]")
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_.\-]")
_NOT_IN_XML = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_LONGEST_KEPT = 64  # of names whose form in XML is remembered, characters
_DIGITS_EXACT = 15  # so many decimal digits a double holds
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d{1,12})?")
_LINE_END = {"\r": "&#13;"}


class NotConverted(Exception):
    """The document is not what it should be, or holds what the other form cannot."""


@dataclass(slots=True)
class _Element:
    name: str
    members: dict[str, Any] = field(default_factory=dict)
    text: list[str] = field(default_factory=list)


def xml_to_json(data: bytes, *, encoding: str | None = None, detect_types: bool = False) -> bytes:
    """`data`, XML, as JSON; `encoding` goes before what the document says of itself.

    Texts stay texts unless `detect_types`: then numbers and `true` and `false` become what they
    look like. Raises NotConverted.
    """
    reading = _Reading(detect_types)
    try:
        read(data, reading, encoding)
    except UNREADABLE as error:
        raise NotConverted(f"not well-formed XML: {error}") from None
    name, value = reading.document
    return orjson.dumps(value if name == ROOT and value is not None else {name: value})


def json_to_xml(data: bytes) -> bytes:
    """`data`, JSON, as XML in UTF-8, numbers as they are written. Raises NotConverted."""
    try:
        document = _JSON.decode(data.decode())
    except RecursionError:
        raise NotConverted(f"more than {DEPTH_MAX} levels") from None
    except ValueError as error:
        raise NotConverted(f"not valid JSON: {error}") from None
    writing = _Writing()
    writing.element(ROOT, document, 1)
    return (_HEAD + "".join(writing.parts)).encode()


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member stands twice in one object")
    return members


def _constant(name: str) -> None:
    raise ValueError(f"{name} is none of its numbers")


_JSON = JSONDecoder(
    object_pairs_hook=_members, parse_int=str, parse_float=str, parse_constant=_constant
)


class _Reading:
    def __init__(self, detect_types: bool) -> None:
        self._detect_types = detect_types
        self._open: list[_Element] = []
        self._count = 0
        self.document: tuple[str, Any] = (ROOT, None)

    def doctype(self, *_: object) -> None:
        raise NotConverted("document types are not allowed")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1
        if self._count > ELEMENTS_MAX:
            raise NotConverted(f"more than {ELEMENTS_MAX} elements")
        if len(self._open) >= DEPTH_MAX:
            raise NotConverted(f"more than {DEPTH_MAX} levels")
        members = {f"{_ATTRIBUTE}{key}": value for key, value in attributes.items()}
        self._open.append(_Element(name, members))

    def characters(self, text: str) -> None:
        self._open[-1].text.append(text)

    def end(self, name: str) -> None:
        element = self._open.pop()
        value = self._value(element)
        if not self._open:
            self.document = (name, value)
            return
        members = self._open[-1].members
        if name not in members:
            members[name] = value
        elif isinstance(members[name], list):
            members[name].append(value)
        else:
            members[name] = [members[name], value]

    def _value(self, element: _Element) -> Any:  # noqa: ANN401 - whatever JSON has
        text = "".join(element.text)
        if not element.members:
            return self._typed(text) if text.strip() else None
        if text.strip():
            element.members[_TEXT] = text.strip()
        return element.members

    def _typed(self, text: str) -> str | float | bool:
        if not self._detect_types:
            return text
        bare = text.strip()
        if bare in ("true", "false"):
            return bare == "true"
        if len(bare) <= _DIGITS_EXACT + len("-.") and _NUMBER.fullmatch(bare):
            return float(bare) if "." in bare else int(bare)
        return text


class _Writing:
    def __init__(self) -> None:
        self.parts: list[str] = []
        self._count = 0

    def element(self, name: str, value: Any, depth: int) -> None:  # noqa: ANN401
        self._count += 1
        if self._count > ELEMENTS_MAX:
            raise NotConverted(f"more than {ELEMENTS_MAX} elements")
        if depth > DEPTH_MAX:
            raise NotConverted(f"more than {DEPTH_MAX} levels")
        tag = element_name(name)
        match value:
            case dict():
                self._object(tag, value, depth)
            case list():
                item = singular(tag)
                self.parts.append(f"<{tag}>")
                for one in value:
                    self.element(item, one, depth + 1)
                self.parts.append(f"</{tag}>")
            case None:
                self.parts.append(f"<{tag}/>")
            case _:
                self.parts.append(f"<{tag}>{_escaped(value)}</{tag}>")

    def _object(self, tag: str, members: dict[str, Any], depth: int) -> None:
        attributes = {
            name: value
            for name, value in members.items()
            if len(name) > 1 and name.startswith(_ATTRIBUTE) and not isinstance(value, dict | list)
        }
        text = members.get(_TEXT)
        texts = {} if isinstance(text, dict | list | None) else {_TEXT: text}
        self.parts.append(f"<{tag}")
        given: set[str] = set()
        for name, value in attributes.items():
            attribute = element_name(name[1:])
            if attribute in given:
                raise NotConverted(f"two members of one object are the attribute {attribute!r}")
            given.add(attribute)
            self.parts.append(f" {attribute}={_attribute(value)}")
        self.parts.append(">")
        self.parts += [_escaped(value) for value in texts.values()]
        for name, value in members.items():
            if name not in attributes and name not in texts:
                self.element(name, value, depth + 1)
        self.parts.append(f"</{tag}>")


def element_name(name: str) -> str:
    """`name` as XML takes it: other characters are `_`, and one stands before what cannot begin."""
    if _PLAIN_NAME.fullmatch(name):
        return name
    return _made_name(name) if len(name) <= _LONGEST_KEPT else _made_name.__wrapped__(name)


@lru_cache(maxsize=4096)
def _made_name(name: str) -> str:
    bare = _NO_NAME_CHARACTER.sub("_", name)
    if bare.isascii():
        return bare if _PLAIN_NAME.fullmatch(bare) else f"_{bare}"
    plain = _NOT_PLAIN.sub("_", bare)
    return next(one for one in (bare, f"_{bare}", plain, f"_{plain}") if _is_name(one))


def _is_name(name: str) -> bool:
    """Whether parsers take it: Unicode has more letters than XML."""
    if not name:
        return False
    try:
        expat.ParserCreate().Parse(f"<{name}/>", True)
    except expat.ExpatError:
        return False
    return True


def singular(name: str) -> str:
    """What one of `name` is called in English, `item` when that is not known."""
    lower = name.lower()
    if lower.endswith("ies") and len(name) > len("ties"):
        return name[:-3] + "y"
    if lower.endswith(("sses", "shes", "ches", "xes", "zes")):
        return name[:-2]
    if lower.endswith("s") and not lower.endswith(("ss", "us", "is")) and len(name) > 1:
        return name[:-1]
    return "item"


def _plain(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if _NOT_IN_XML.search(text):
        raise NotConverted("holds control characters, which XML cannot")
    return text


def _escaped(value: object) -> str:
    return escape(_plain(value), _LINE_END)


def _attribute(value: object) -> str:
    return '""' if value is None else quoteattr(_plain(value))
