"""An OpenAPI document compiled: operations by path and method, all schemas in one validator.

One validator a document, not one a schema: schemas refer to each other, and each validator holds
all that its schema reaches. A value is checked as the member of an object that has a member for
every place in the document where a schema stands.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, cast

from policy_engine.bodies.json_path import Json
from policy_engine.bodies.json_schema import compiled
from policy_engine.bodies.json_schema import faults as schema_faults
from policy_engine.openapi.bodies import MULTIPART, URLENCODED, Media
from policy_engine.openapi.document import for_direction, read, resolved
from policy_engine.openapi.forms import FormField, form_fields
from policy_engine.openapi.parameters import STYLES, In, Parameter, Shapes
from policy_engine.openapi.templates import Templates
from policy_engine.openapi.xml_form import XmlShape

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_NOT_PARAMETERS: Final = frozenset({"accept", "content-type", "authorization"})
_NOT_HEADERS: Final = frozenset({"content-type"})
_STATUS_LENGTH: Final = 3


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing in which a message differs from what the document says."""

    place: str  # path, query, header, cookie, body, status
    name: str  # of the parameter, or where in the body: `items.0.price`; may be empty
    message: str

    def document(self) -> dict[str, str]:
        """As callers see it."""
        named = {"name": self.name} if self.name else {}
        return {"in": self.place, **named, "message": self.message}


@dataclass(frozen=True, slots=True)
class Body:
    """What a message carries."""

    required: bool
    media: dict[str, Media]  # by media type or range, lower-case

    def medium(self, content_type: str) -> Media | None:
        """The most exact that fits."""
        kind = content_type.partition(";")[0].strip().lower()
        for one in (kind, f"{kind.partition('/')[0]}/*", "*/*"):
            if one in self.media:
                return self.media[one]
        return None


@dataclass(frozen=True, slots=True)
class Answered:
    """What an answer of one status is."""

    body: Body
    headers: tuple[Parameter, ...]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the document."""

    parameters: tuple[Parameter, ...]
    body: Body | None
    answers: dict[str, Answered]  # by `200`, `2XX`, `default`

    def answered(self, status: int) -> Answered | None:
        """What the document says of answers with `status`."""
        for one in (str(status), f"{status // 100}XX", "default"):
            if one in self.answers:
                return self.answers[one]
        return None


@dataclass(slots=True)
class _Schemas:
    """The schemas of one direction, on their way into one validator."""

    root: dict[str, Any]
    members: dict[str, Json] = field(default_factory=dict)
    shapes: Shapes = field(init=False)

    def __post_init__(self) -> None:
        self.shapes = Shapes(self.root)

    def key(self, schema: Json) -> str:
        key = f"s{len(self.members)}"
        self.members[key] = schema
        return key


class Description:
    """What a document says. Raises ValueError when it is none, or says what cannot be checked."""

    def __init__(self, document: Json, *, answers: bool) -> None:
        """`answers`: whether answers will be checked, too."""
        whole = read(document)
        old = whole["openapi"].startswith("3.0")
        asked = _Schemas(for_direction(whole, answers=False, old=old))
        told = _Schemas(for_direction(whole, answers=True, old=old) if answers else {})
        items = whole.get("paths") or {}
        if not isinstance(items, dict):
            raise ValueError("paths is not an object")  # noqa: TRY004 - what a user wrote
        operations = {
            path: _operations(path, item, asked, told)
            for path, item in items.items()
            if not path.startswith("x-")
        }
        self._templates = Templates(operations)
        self._asked = _validator(asked)
        self._told = _validator(told) if answers else None
        self.has_bodies = any(
            one.body is not None for several in operations.values() for one in several.values()
        )

    def operation(self, method: str, path: str) -> tuple[Operation, dict[str, str]] | None:
        """The operation that a request is for, and the values in its path."""
        found = self._templates.find(path)
        operation = found and found[0].get(method.lower())
        return (operation, found[1]) if found and operation else None

    def fits(self, key: str, value: Json, *, answer: bool = False) -> bool:
        """Whether `value` fits the schema of `key`."""
        validator = self._told if answer else self._asked
        return validator is None or bool(validator.is_valid({key: value}))

    def faults(self, key: str, value: Json) -> Iterator[tuple[str, str]]:
        """Where in a request's value something is wrong, and what."""
        for error in schema_faults(self._asked, {key: value}):
            yield ".".join(map(str, error.instance_path[1:])), error.message[:500]

    def broken_rules(self, key: str, value: Json) -> Iterator[tuple[str, str]]:
        """Where in an answer's value something is wrong, and which rule: no values."""
        if self._told is None:
            return
        for error in schema_faults(self._told, {key: value}):
            rule = f"does not keep to {error.kind.name!r} of its schema"
            yield ".".join(map(str, error.instance_path[1:])), rule


def _validator(schemas: _Schemas) -> Any:  # noqa: ANN401 - untyped without the library
    return compiled({**schemas.root, "$schema": _DRAFT, "properties": schemas.members})


def _operations(path: str, item: Json, asked: _Schemas, told: _Schemas) -> dict[str, Operation]:
    root = asked.root
    found = resolved(root, item, path)
    found = root["paths"][path] | found if isinstance(item, dict) and "$ref" in item else found
    shared = found.get("parameters") or []
    return {
        method: _operation(f"{method.upper()} {path}", found[method], shared, asked, told)
        for method in METHODS
        if method in found
    }


def _operation(
    place: str, written: Json, shared: list[Json], asked: _Schemas, told: _Schemas
) -> Operation:
    operation = resolved(asked.root, written, place)
    parameters: dict[tuple[str, str], Parameter] = {}
    for one in (*shared, *(operation.get("parameters") or ())):
        parameter = _parameter(place, resolved(asked.root, one, place), asked)
        if parameter is not None:
            if parameter.place == "path" and f"{{{parameter.name}}}" not in place:
                raise ValueError(f"{place}: the path has no parameter {parameter.name!r}")
            parameters[parameter.place, parameter.name] = parameter
    body = None
    if "requestBody" in operation:
        request = resolved(asked.root, operation["requestBody"], f"{place} requestBody")
        body = _body(place, request, asked)
    answers: dict[str, Answered] = {}
    if told.root:
        for status, one in (operation.get("responses") or {}).items():
            if status.startswith("x-"):
                continue
            said = resolved(told.root, one, f"{place} {status}")
            headers = said.get("headers") or {}
            answers[status.upper() if len(status) == _STATUS_LENGTH else status] = Answered(
                _body(place, said, told),
                tuple(
                    _header(f"{place} {status}", name, resolved(told.root, header, place), told)
                    for name, header in headers.items()
                    if name.lower() not in _NOT_HEADERS
                ),
            )
    return Operation(tuple(parameters.values()), body, answers)


def _body(place: str, said: dict[str, Any], schemas: _Schemas) -> Body:
    media: dict[str, Media] = {}
    for kind, written in (said.get("content") or {}).items():
        about = resolved(schemas.root, written, f"{place} {kind}")
        schema = about.get("schema")
        name = kind.partition(";")[0].strip().lower()
        media[name] = _media(f"{place} {kind}", name, schema, about.get("encoding"), schemas)
    return Body(bool(said.get("required")), media)


def _media(place: str, name: str, schema: Json, encoding: Json, schemas: _Schemas) -> Media:
    if schema is None:
        return Media()
    fields: dict[str, FormField] = {}
    if any(_covers(name, one) for one in (URLENCODED, MULTIPART)):
        try:
            fields = form_fields(schemas.root, schema, encoding, schemas.shapes.of(schema))
        except ValueError as error:
            raise ValueError(f"{place}: {error}") from None
    in_xml = name.endswith(("xml", "*"))
    return Media(schemas.key(schema), fields, XmlShape(schemas.root, schema) if in_xml else None)


def _covers(media: str, kind: str) -> bool:
    return media in (kind, f"{kind.partition('/')[0]}/*", "*/*")


def _parameter(place: str, said: dict[str, Any], schemas: _Schemas) -> Parameter | None:
    name, where = said.get("name"), said.get("in")
    if not isinstance(name, str) or where not in STYLES:
        raise ValueError(f"{place}: a parameter lacks its name, or `in` is not path, query, ...")
    if where == "header" and name.lower() in _NOT_PARAMETERS:
        return None
    return _written(f"{place}, parameter {name!r}", name, cast("In", where), said, schemas)


def _header(place: str, name: str, said: dict[str, Any], schemas: _Schemas) -> Parameter:
    return _written(f"{place}, header {name!r}", name, "header", said, schemas)


def _written(
    place: str, name: str, where: In, said: dict[str, Any], schemas: _Schemas
) -> Parameter:
    content = said.get("content")
    schema = said.get("schema")
    kind = ""
    if isinstance(content, dict) and len(content) == 1:
        kind, about = next(iter(content.items()))
        schema = resolved(schemas.root, about, place).get("schema")
    style = said.get("style", STYLES[where][0])
    if style not in STYLES[where]:
        raise ValueError(f"{place}: style {style!r} does not exist in {where}")
    return Parameter(
        name=name,
        place=where,
        required=where == "path" or bool(said.get("required")),
        key=schemas.key({} if schema is None else schema),
        shape=schemas.shapes.of(schema),
        style=style,
        explode=bool(said.get("explode", style == "form")),
        json="json" in kind,
        may_be_empty=bool(said.get("allowEmptyValue")),
    )
