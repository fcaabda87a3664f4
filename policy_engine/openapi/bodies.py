"""Bodies as the values that schemas are about: JSON, XML, and forms."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from policy_engine.bodies.json_path import Json
from policy_engine.bodies.json_text import NotJson
from policy_engine.bodies.json_text import document as parsed
from policy_engine.openapi.content_type import split
from policy_engine.openapi.forms import FormField, multipart, urlencoded
from policy_engine.openapi.parameters import Malformed
from policy_engine.openapi.xml_form import XmlShape, in_xml

URLENCODED: Final = "application/x-www-form-urlencoded"
MULTIPART: Final = "multipart/form-data"


@dataclass(frozen=True, slots=True)
class Media:
    """A body of one media type."""

    key: str | None = None  # of its schema; None: anything
    fields: Mapping[str, FormField] = field(default_factory=dict)  # of a form
    xml: XmlShape | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """A body that was read."""

    value: Json
    binary: frozenset[str] = frozenset()
    """Members whose text stands for bytes."""


def content(content_type: str, medium: Media, body: bytes) -> Content | None:
    """What a body says; None if it cannot be checked. Raises Malformed."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind.endswith(("/json", "+json")):
        try:
            return Content(parsed(body))
        except NotJson as error:
            raise Malformed(f"is not JSON: {error}") from None
    if kind.endswith(("/xml", "+xml")) and medium.xml is not None:
        return Content(in_xml(medium.xml, body, _parameter(content_type, "charset")))
    if kind == URLENCODED:
        return Content(urlencoded(medium.fields, body).members)
    if kind == MULTIPART:
        form = multipart(medium.fields, body, _parameter(content_type, "boundary") or "")
        return Content(form.members, form.binary)
    return None


def _parameter(content_type: str, name: str) -> str | None:
    try:
        return split(content_type)[1].get(name)
    except ValueError as error:
        raise Malformed(f"its Content-Type {error}") from None
