"""JSON Schemas that users write: compiled once, nothing fetched, patterns of linear time.

Source: https://json-schema.org/specification
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Final

import orjson

from policy_engine.bodies.json_path import Json

if TYPE_CHECKING:
    from jsonschema_rs import ValidationError, Validator

MOST_FAULTS: Final = 20
_DRAFT_7: Final = "http://json-schema.org/draft-07/schema#"
_KEPT: Final = 256
_LONGEST_VALUE: Final = 200


@lru_cache(maxsize=_KEPT)
def schema_of(text: str) -> "Validator":
    """The schema that `text` is, draft 7 if it does not say. Raises ValueError."""
    try:
        schema = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from None
    if not isinstance(schema, dict | bool):
        raise ValueError("is not a JSON Schema: an object is expected")  # noqa: TRY004 - user input
    if isinstance(schema, dict):
        schema.setdefault("$schema", _DRAFT_7)
    return compiled(schema)


def compiled(schema: Mapping[str, Json] | bool) -> "Validator":
    """`schema`, ready to use. Raises ValueError: no schema, or one that refers elsewhere."""
    import jsonschema_rs  # noqa: PLC0415 - only a few policies need it

    try:
        return jsonschema_rs.validator_for(
            schema if isinstance(schema, bool) else dict(schema),
            validate_formats=True,
            pattern_options=jsonschema_rs.RegexOptions(),
            offline=True,
        )
    except jsonschema_rs.ValidationError as error:
        raise ValueError(f"is not a JSON Schema that can be used: {said(error)}") from None


def said(error: "ValidationError") -> str:
    """Why a schema is none, with its place."""
    place = "".join(f"[{part!r}]" for part in error.instance_path)
    reason = error.message.partition("\n")[0][:_LONGEST_VALUE]
    if '"regex"' in reason:
        reason += " (patterns may not look around or refer back)"
    return f"{reason} at {place}" if place else reason


def faults(validator: "Validator", document: Json) -> Iterator["ValidationError"]:
    """What is wrong with `document`, at most 20 things."""
    for count, error in enumerate(validator.iter_errors(document)):
        if count == MOST_FAULTS:
            return
        yield error


def field(path: "list[str | int]") -> str:
    """Where a fault is: `messages.0.content`; `(root)` for the document itself."""
    return ".".join(str(part) for part in path) or "(root)"


def shown(value: Json) -> Json:
    """A value, as it is shown to who sent it: not at length."""
    text = orjson.dumps(value).decode() if not isinstance(value, str) else value
    return value if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "..."
