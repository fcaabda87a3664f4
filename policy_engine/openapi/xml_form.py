"""Bodies in XML as the values that schemas are about.

What a schema says of its form in XML (`name`, `attribute`, `wrapped`, `namespace`) decides what is
read as which property. What it does not describe is a property of its local name, so that schemas
without additional properties refuse it. No document type is read: there are no entities, and
nothing is fetched; depth and number of elements are bounded.

Source: https://spec.openapis.org/oas/v3.1.1.html#xml-object
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from policy_engine.bodies.json_path import Json
from policy_engine.bodies.xml_events import UNREADABLE, read
from policy_engine.bodies.xml_json import DEPTH_MAX
from policy_engine.openapi.document import resolved
from policy_engine.openapi.parameters import Malformed, Shape

MOST_NAMES: Final = 50_000
"""Elements and attributes of a body; so many take 0.3 s."""

_SEPARATOR: Final = " "  # between namespace and name: no namespace has one
_INSTANCE: Final = "http://www.w3.org/2001/XMLSchema-instance"
_PARTS: Final = ("allOf", "anyOf", "oneOf")
_TRUE: Final = ("true", "1")


class XmlShape:
    """A schema as its form in XML: references followed, parts taken together, looked at late."""

    def __init__(self, root: dict[str, Any], schema: Json) -> None:
        self._root = root
        self._schemas = tuple(_all(root, schema))

    @cached_property
    def kinds(self) -> frozenset[str]:
        """JSON Schema's types; empty: any."""
        found: set[str] = set()
        for one in self._schemas:
            kind = one.get("type")
            found.update(
                kind if isinstance(kind, list) else [kind] if isinstance(kind, str) else []
            )
        return frozenset(found or ({"object"} if self.members else ()))

    @cached_property
    def members(self) -> "dict[str, XmlShape]":
        """The properties."""
        found: dict[str, XmlShape] = {}
        for one in self._schemas:
            properties = one.get("properties")
            for name, said in properties.items() if isinstance(properties, dict) else ():
                found.setdefault(name, XmlShape(self._root, said))
        return found

    @cached_property
    def items(self) -> "XmlShape":
        """Of an array."""
        found = (one["items"] for one in self._schemas if "items" in one)
        return XmlShape(self._root, next(found, {}))

    @cached_property
    def text(self) -> Shape:
        """How its text is read."""
        return Shape(self.kinds)

    @property
    def is_array(self) -> bool:
        """Whether it is a list, and nothing else."""
        return "array" in self.kinds and "string" not in self.kinds

    @property
    def name(self) -> str | None:
        """Of the element or attribute; None: the property's."""
        found = self._said("name")
        return found if isinstance(found, str) else None

    @property
    def namespace(self) -> str | None:
        """Which the element or attribute is in; None: any."""
        found = self._said("namespace")
        return found if isinstance(found, str) else None

    @property
    def is_attribute(self) -> bool:
        """Whether it is an attribute of the element of its object."""
        return self._said("attribute") is True

    @property
    def is_wrapped(self) -> bool:
        """Whether the items of an array have an element around them."""
        return self._said("wrapped") is True

    def _said(self, word: str) -> object:
        found = (one["xml"] for one in self._schemas if isinstance(one.get("xml"), dict))
        return next((one[word] for one in found if word in one), None)


def _all(root: dict[str, Any], schema: Json) -> list[dict[str, Any]]:
    """The schema, what it refers to, and its parts: the nearest first."""
    found: list[dict[str, Any]] = []
    waiting = [schema]
    while waiting:
        one = waiting.pop(0)
        if not isinstance(one, dict) or any(one is known for known in found):
            continue
        found.append(one)
        if isinstance(one.get("$ref"), str):
            try:
                waiting.append(resolved(root, {"$ref": one["$ref"]}, ""))
            except ValueError:
                continue
        for word in _PARTS:
            waiting += one.get(word) or ()
    return found


@dataclass(slots=True)
class _Element:
    """An element; names are a namespace, which may be empty, and a local name."""

    name: tuple[str, str]
    attributes: dict[tuple[str, str], str]
    children: "list[_Element]" = field(default_factory=list)
    text: str = ""


def in_xml(shape: XmlShape, body: bytes, charset: str | None) -> Json:
    """What `body` says, as `shape` has it in XML. Raises Malformed."""
    document = _parsed(body, charset)
    wanted, namespace = shape.name, shape.namespace
    if wanted is not None and document.name[1] != wanted:
        raise Malformed(f"is an element {document.name[1]!r}, not {wanted!r}")
    if namespace is not None and document.name[0] != namespace:
        raise Malformed(f"is an element {document.name[1]!r} outside the namespace {namespace!r}")
    if shape.is_array:
        return _items(document, shape, shape.items.name, "")
    return _value(document, shape, "")


def _value(element: _Element, shape: XmlShape, where: str) -> Json:
    nil = element.attributes.get((_INSTANCE, "nil"), "")
    if nil in _TRUE and not element.children and not element.text.strip():
        return None
    if shape.is_array:
        return _items(element, shape, shape.items.name, where)
    if "object" in shape.kinds:
        return _object(element, shape, where)
    if not shape.kinds:
        return _anything(element)
    if element.children:
        raise Malformed(f"holds the element {element.children[0].name[1]!r} instead of text", where)
    for _, name in _attributes(element):
        raise Malformed("is not described", _below(where, name))
    return shape.text.read(element.text if "string" in shape.kinds else element.text.strip())


class _Left:
    """What of an element no property has taken yet, by local names."""

    def __init__(self, element: _Element) -> None:
        self.attributes: dict[str, list[tuple[str, str]]] = {}  # namespace and text of each
        self.children: dict[str, list[_Element]] = {}
        for namespace, name in _attributes(element):
            text = element.attributes[namespace, name]
            self.attributes.setdefault(name, []).append((namespace, text))
        for one in element.children:
            self.children.setdefault(one.name[1], []).append(one)

    def attribute(self, name: str, namespace: str | None) -> str:
        """Raises LookupError when it is not there."""
        known = self.attributes.get(name, [])
        for at, (given, text) in enumerate(known):
            if namespace in (None, given):
                del known[at]
                return text
        raise LookupError(name)

    def elements(self, name: str, namespace: str | None) -> list[_Element]:
        """Raises LookupError when there are none."""
        known = self.children.get(name, [])
        taken = [one for one in known if namespace in (None, one.name[0])]
        if not taken:
            raise LookupError(name)
        self.children[name] = [one for one in known if namespace not in (None, one.name[0])]
        return taken


def _object(element: _Element, shape: XmlShape, where: str) -> dict[str, Json]:
    if element.text.strip():
        raise Malformed("holds text instead of elements", where)
    left = _Left(element)
    found: dict[str, Json] = {}
    for name, said in shape.members.items():
        try:
            found[name] = _member(left, name, said, _below(where, name))
        except LookupError:
            continue
    for name, elements in left.children.items():
        for one in elements:
            _add(found, shape, name, _anything(one), where)
    for name, attributes in left.attributes.items():
        for _, text in attributes:
            _add(found, shape, name, text, where)
    return found


def _member(left: _Left, name: str, said: XmlShape, where: str) -> Json:
    """The value of a property. Raises LookupError when it is not there."""
    own = said.name or name
    if said.is_attribute:
        return said.text.read(left.attribute(own, said.namespace))
    if said.is_array and not said.is_wrapped:
        items = left.elements(said.items.name or name, said.items.namespace)
        return [_value(one, said.items, f"{where}.{at}") for at, one in enumerate(items)]
    (first, *more) = left.elements(own, said.namespace)
    if more:
        raise Malformed("stands more than once", where)
    if said.is_array:
        return _items(first, said, said.items.name or own, where)
    return _value(first, said, where)


def _add(found: dict[str, Json], shape: XmlShape, name: str, value: Json, where: str) -> None:
    """What is not described, under its own name; never in the place of what is."""
    if name in shape.members:
        said = shape.members[name]
        how = "an attribute" if said.is_attribute else "an element"
        told = [f"called {said.name!r}"] if said.name not in (None, name) else []
        told += [f"in the namespace {said.namespace!r}"] if said.namespace else []
        told += ["around its items"] if said.is_wrapped else []
        raise Malformed(" ".join((f"must be {how}", *told)), _below(where, name))
    _join(found, name, value)


def _items(element: _Element, shape: XmlShape, name: str | None, where: str) -> list[Json]:
    """The children of an element around an array; without `name` they may be called anything."""
    if element.text.strip():
        raise Malformed("holds text instead of elements", where)
    found: list[Json] = []
    for at, one in enumerate(element.children):
        inside = _below(where, str(at))
        if name is not None and not _is(one.name, name, shape.items.namespace):
            raise Malformed(f"is an element {one.name[1]!r}, not {name!r}", inside)
        found.append(_value(one, shape.items, inside))
    return found


def _anything(element: _Element) -> Json:
    """An element that no schema describes."""
    found: dict[str, Json] = {name: element.attributes[_, name] for _, name in _attributes(element)}
    for one in element.children:
        _join(found, one.name[1], _anything(one))
    return found or element.text


def _join(found: dict[str, Json], name: str, value: Json) -> None:
    """What is there already becomes a list: of elements, none is a list by itself."""
    if name not in found:
        found[name] = value
    elif isinstance(found[name], list):
        found[name].append(value)
    else:
        found[name] = [found[name], value]


def _attributes(element: _Element) -> list[tuple[str, str]]:
    """Those that are part of the content."""
    return [key for key in element.attributes if key[0] != _INSTANCE]


def _is(given: tuple[str, str], name: str, namespace: str | None) -> bool:
    return given[1] == name and namespace in (None, given[0])


def _below(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name


def _parsed(body: bytes, charset: str | None) -> _Element:
    reading = _Reading()
    try:
        read(body, reading, charset, _SEPARATOR)
    except UNREADABLE as error:
        raise Malformed(f"is not well-formed XML: {error}") from None
    assert reading.document is not None
    return reading.document


class _Reading:
    """Events of the parser, to elements."""

    def __init__(self) -> None:
        self._open: list[_Element] = []
        self._texts: list[list[str]] = []
        self._count = 0
        self.document: _Element | None = None

    def doctype(self, *_: object) -> None:
        raise Malformed("has a document type, which is not allowed")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._count += 1 + len(attributes)
        if self._count > MOST_NAMES:
            raise Malformed(f"has more than {MOST_NAMES} elements and attributes")
        if len(self._open) >= DEPTH_MAX:
            raise Malformed(f"has more than {DEPTH_MAX} levels")
        made = _Element(_name(name), {_name(key): value for key, value in attributes.items()})
        if self._open:
            self._open[-1].children.append(made)
        else:
            self.document = made
        self._open.append(made)
        self._texts.append([])

    def characters(self, text: str) -> None:
        self._texts[-1].append(text)

    def end(self, _: str) -> None:
        self._open.pop().text = "".join(self._texts.pop())


def _name(text: str) -> tuple[str, str]:
    namespace, _, name = text.rpartition(_SEPARATOR)
    return namespace, name
