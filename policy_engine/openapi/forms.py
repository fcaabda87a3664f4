"""Forms: fields and parts of a body as members of the object that a schema is about.

Source: https://spec.openapis.org/oas/v3.1.1.html#encoding-object
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from policy_engine.bodies.json_path import Json
from policy_engine.bodies.json_text import NotJson, document
from policy_engine.openapi.content_type import split
from policy_engine.openapi.document import resolved
from policy_engine.openapi.multipart import parts
from policy_engine.openapi.parameters import Malformed, Shape, form_of

_STRUCTURED: Final = frozenset({"object"})
_TEXT: Final = "text/plain"
_BYTES: Final = "application/octet-stream"
_SEPARATORS: Final = {"form": ",", "spaceDelimited": " ", "pipeDelimited": "|"}


@dataclass(frozen=True, slots=True)
class FormField:
    """How one member of the object travels."""

    shape: Shape
    several: bool = False  # an array: one part, or one pair, for each item
    binary: bool = False  # bytes, whose length the schema's lengths are
    least_bytes: int = 0
    most_bytes: int | None = None
    media: tuple[str, ...] = ()  # media types or ranges that a part may be of; empty: any
    json: bool = False  # its text is JSON
    separator: str | None = None  # between items that stand in one pair


_ANY: Final = FormField(Shape())


@dataclass(frozen=True, slots=True)
class Filled:
    """A form that was read."""

    members: dict[str, Json]
    binary: frozenset[str] = field(default_factory=frozenset)  # members that hold bytes, as Latin-1


def form_fields(
    root: dict[str, Any], schema: Json, encoding: Json, shape: Shape
) -> dict[str, FormField]:
    """The fields that `schema` describes, as `encoding` has them travel. Raises ValueError."""
    said = encoding if isinstance(encoding, dict) else {}
    schemas = _members(root, schema)
    return {
        name: _field(root, schemas.get(name), said.get(name), one)
        for name, one in (shape.members or {}).items()
    }


def urlencoded(fields: Mapping[str, FormField], body: bytes) -> Filled:
    """A form in `application/x-www-form-urlencoded`. Raises Malformed."""
    many: dict[str, list[str]] = {}
    for name, text in form_of(body.decode("utf-8", "replace")):
        many.setdefault(name, []).append(text)
    return Filled(
        {name: _of_pairs(name, fields.get(name, _ANY), all_) for name, all_ in many.items()}
    )


def multipart(fields: Mapping[str, FormField], body: bytes, boundary: str) -> Filled:
    """A form in `multipart/form-data`. Raises Malformed."""
    members: dict[str, Json] = {}
    for part in parts(body, boundary):
        one = fields.get(part.name, _ANY)
        value = _of_part(part.name, one, part.content_type, part.content, is_file=part.is_file)
        if one.several:
            members.setdefault(part.name, []).append(value)
        elif part.name in members:
            raise Malformed("is given more than once", part.name)
        else:
            members[part.name] = value
    for name, one in fields.items():
        if one.several and one.json and len(given := members.get(name, ())) == 1:
            (whole,) = given
            members[name] = whole if isinstance(whole, list) else given
    return Filled(members, frozenset(name for name, one in fields.items() if one.binary))


def _of_pairs(name: str, said: FormField, texts: list[str]) -> Json:
    if len(texts) > 1 and not said.several:  # readers take the first, or the last
        raise Malformed("is given more than once", name)
    if said.json:
        values = [_json(name, one) for one in texts]
        return values if said.several else values[0]
    if not said.several:
        return said.shape.read(texts[0])
    if said.separator is not None and len(texts) == 1:
        texts = texts[0].split(said.separator) if texts[0] else []
    return said.shape.read_all(texts)


def _of_part(
    name: str, said: FormField, content_type: str, content: bytes, *, is_file: bool
) -> Json:
    kind, charset = _TEXT, "utf-8"
    shape = (said.shape.items or Shape()) if said.several else said.shape
    if content_type:
        try:
            kind, more = split(content_type)
        except ValueError as error:
            raise Malformed(f"its Content-Type {error}", name) from None
        charset = more.get("charset", charset).lower()
    elif said.json:
        kind = "application/json"
    elif said.binary or is_file:
        kind = _BYTES
    if said.media and content_type and not any(_fits(kind, one) for one in said.media):
        allowed = ", ".join(said.media)
        raise Malformed(f"its Content-Type is {kind!r}; it may be {allowed}", name)
    if said.binary:
        return _bytes(name, said, content)
    is_text = not said.json and "string" in shape.kinds  # whatever the caller calls it
    if kind.endswith(("/json", "+json")) and not is_text:
        return _json(name, content)
    if charset not in ("utf-8", "us-ascii"):
        raise Malformed(f"is text in {charset[:40]!r}, not UTF-8", name)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        if shape.kinds:
            raise Malformed("is not text in UTF-8", name) from None
        return content.decode("latin-1")  # anything will do
    return shape.read(text)


def _bytes(name: str, said: FormField, content: bytes) -> str:
    length = len(content)
    if said.most_bytes is not None and length > said.most_bytes:
        raise Malformed(f"is {length} bytes long, at most {said.most_bytes} are allowed", name)
    if length < said.least_bytes:
        raise Malformed(f"is {length} bytes long, at least {said.least_bytes} are needed", name)
    return content.decode("latin-1")


def _json(name: str, text: str | bytes) -> Json:
    try:
        return document(text)
    except NotJson as error:
        raise Malformed(f"is not JSON: {error}", name) from None


def _fits(kind: str, media: str) -> bool:
    return media in (kind, "*/*") or (media.endswith("/*") and kind.startswith(media[:-1]))


def _field(root: dict[str, Any], schema: Json, encoding: Json, shape: Shape) -> FormField:
    said = encoding if isinstance(encoding, dict) else {}
    several = "array" in shape.kinds and "string" not in shape.kinds
    item_shape = (shape.items or Shape()) if several else shape
    items = _looked_at(root, schema)
    if several:
        items = _looked_at(root, items.get("items"))
    media = tuple(
        one.strip().lower() for one in str(said.get("contentType", "")).split(",") if one.strip()
    )
    binary = _is_binary(items, media)
    style = str(said.get("style", "form"))
    if style not in (*_SEPARATORS, "deepObject"):
        raise ValueError(f"style {style!r} does not exist in forms")
    explode = bool(said.get("explode", style == "form"))
    written_as_json = any(one.endswith(("/json", "+json")) for one in media)
    structured = not media and not _STRUCTURED.isdisjoint(item_shape.kinds)
    return FormField(
        shape=shape,
        several=several,
        binary=binary,
        least_bytes=(_length(items.get("minLength")) or 0) if binary else 0,
        most_bytes=_length(items.get("maxLength")) if binary else None,
        media=media,
        json=not binary and (written_as_json or structured),
        separator=None if explode else _SEPARATORS.get(style),
    )


def _length(written: Json) -> int | None:
    return written if isinstance(written, int) else None


def _is_binary(schema: Mapping[str, Json], media: tuple[str, ...]) -> bool:
    """Whether a field holds bytes: version 3.0 calls them a format, 3.1 says what they are."""
    if schema.get("format") == "binary":
        return True
    if "contentEncoding" in schema or schema.get("type", "string") != "string":
        return False
    kinds = (*media, str(schema.get("contentMediaType", ""))) if schema else media
    return any(one and not one.startswith("text/") and "json" not in one for one in kinds)


def _members(root: dict[str, Any], schema: Json) -> dict[str, Json]:
    found: dict[str, Json] = {}
    waiting = [schema]
    seen: set[int] = set()
    while waiting:
        one = _looked_at(root, waiting.pop())
        if id(one) in seen:
            continue
        seen.add(id(one))
        properties = one.get("properties")
        if isinstance(properties, dict):
            found = properties | found
        for word in ("allOf", "anyOf", "oneOf"):
            waiting += one.get(word) or ()
    return found


def _looked_at(root: dict[str, Any], schema: Json) -> dict[str, Any]:
    if not isinstance(schema, dict):
        return {}
    try:
        return resolved(root, schema, "")
    except ValueError:
        return {}
