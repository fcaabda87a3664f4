"""json-schema-guardrail."""

from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar

import orjson
from pydantic import AfterValidator, Field

from policy_engine.bodies.json_path import Json
from policy_engine.bodies.json_schema import faults, field, schema_of, shown
from policy_engine.bodies.json_text import NotJson, document
from policy_engine.guardrails.guarded_stream import Judgement, Violation, World
from policy_engine.guardrails.guardrail import (
    Guardrail,
    Message,
    RequestSection,
    ResponseSection,
    Section,
)
from policy_engine.policy import Document, Version

if TYPE_CHECKING:
    from jsonschema_rs import Validator

_LONGEST_SCHEMA = 256 << 10
_LONGEST_DESCRIPTION = 500


def _compiles(text: str) -> str:
    schema_of(text)
    return text


SchemaText = Annotated[
    str, Field(min_length=1, max_length=_LONGEST_SCHEMA), AfterValidator(_compiles)
]


class _Schema(Section):
    needed: ClassVar[tuple[str, ...]] = ("json_schema",)

    json_schema: Annotated[SchemaText | None, Field(alias="schema")] = None
    """A JSON Schema as JSON text, draft 7 unless `$schema` says another; it cannot refer to other
    documents, and its patterns cannot look around or refer back. Required when enabled."""

    @cached_property
    def validator(self) -> "Validator":
        """The schema, compiled."""
        return schema_of(self.json_schema or "")

    def inspected(self, message: Message, world: World) -> Judgement:
        """What does not fit in what the path leads to. Raises NotInspected."""
        del world
        values = message.values(self.path)
        if self.invert:
            return Violation() if any(self._fits(one) for one in values) else None
        wrong = [one for one in values if not self._fits(one)]
        return self._violation(wrong[0]) if wrong else None

    def judged(self, text: str, world: World) -> Judgement:
        """What does not fit in a streamed text. Raises NotInspected."""
        del world
        if self._fits(text) is not self.invert:
            return None
        return Violation() if self.invert else self._violation(text)

    def _fits(self, value: Json) -> bool:
        """As it is, or as the JSON that a text holds."""
        if self.validator.is_valid(value):
            return True
        if not isinstance(value, str):
            return False
        try:
            return self.validator.is_valid(document(value))
        except NotJson:
            return False

    def _violation(self, value: Json) -> Violation:
        if not self.show_assessment:
            return Violation()
        if isinstance(value, str):
            with suppress(orjson.JSONDecodeError):
                value = orjson.loads(value)
        return Violation(
            [
                {
                    "description": error.message[:_LONGEST_DESCRIPTION],
                    "field": field(error.instance_path),
                    "value": shown(error.instance),
                }
                for error in faults(self.validator, value)
            ]
        )


class JsonSchemaRequest(RequestSection, _Schema):
    """What requests must fit."""


class JsonSchemaResponse(ResponseSection, _Schema):
    """What answers must fit."""


class JsonSchemaGuardrail(Guardrail):
    """Lets messages pass only if they fit a JSON Schema, or do not.

    Looked at is what `jsonPath` leads to; a text there may hold the JSON that is meant. Others are
    answered with 422. An answer that is a stream is held back until it is whole.
    """

    name: ClassVar[str] = "json-schema-guardrail"
    version: ClassVar[Version] = Version(1, 0, 0)
    why_python: ClassVar[str] = "it checks the body against a JSON Schema"
    kind: ClassVar[str] = "JSON_SCHEMA_GUARDRAIL"
    reason: ClassVar[str] = "Violation of JSON schema detected."
    example: ClassVar[Document] = {
        "request": {
            "jsonPath": "",
            "schema": '{"type":"object","required":["model","messages"],'
            '"properties":{"messages":{"type":"array","maxItems":50}}}',
            "showAssessment": True,
        }
    }

    request: JsonSchemaRequest | None = None
    """Which requests pass."""

    response: JsonSchemaResponse | None = None
    """Which answers pass."""
