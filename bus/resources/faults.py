"""What is wrong with a resource, field by field, in the words of the public contract."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

Model = TypeVar("Model", bound=BaseModel)

_REQUIRED = {
    "metadata.name": "Metadata name is required",
    "spec.operations": "At least one operation is required",
    "apiVersion": "API version is required",
}
_EXPECTED = {
    "string_type": "string",
    "int_type": "integer",
    "int_from_float": "integer",
    "float_type": "number",
    "bool_type": "boolean",
    "dict_type": "object",
    "model_type": "object",
    "model_attributes_type": "object",
    "tuple_type": "array",
    "list_type": "array",
}
_GIVEN: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    dict: "object",
    list: "array",
}
_WORDED = {
    "string_too_short": "must be at least {min_length} characters long",
    "string_too_long": "must be at most {max_length} characters long",
    "too_short": "must hold at least {min_length} item(s)",
    "too_long": "must hold at most {max_length} item(s)",
    "extra_forbidden": "Unknown field",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be greater than {gt}",
    "less_than_equal": "must be at most {le}",
    "value_error": "{error}",
}


@dataclass(frozen=True, slots=True)
class FieldFault:
    """One thing wrong with one field."""

    field: str  # e.g. `spec.operations[0].path`; empty for the document as a whole
    message: str


class InvalidResource(Exception):
    """A document is not the resource it should be."""

    def __init__(self, faults: Sequence[FieldFault]) -> None:
        super().__init__("; ".join(f"{fault.field}: {fault.message}" for fault in faults))
        self.faults = tuple(faults)


def field_path(location: Sequence[str | int]) -> str:
    """`("spec", "operations", 0, "path")` as `spec.operations[0].path`."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path


def parse(model: type[Model], document: Mapping[str, Any]) -> Model:
    """`document` (JSON-shaped, wire names) as a `model`; nothing is coerced.

    Raises InvalidResource with all faults found.
    """
    try:
        return model.model_validate_json(orjson.dumps(document), strict=True, by_name=False)
    except ValidationError as error:
        _refuse(error)


def _refuse(error: ValidationError) -> NoReturn:
    details = error.errors(include_url=False)
    faults = [(detail["type"], _fault(detail)) for detail in details]
    fields = [fault.field for _, fault in faults]
    raise InvalidResource(
        [
            fault
            for kind, fault in faults
            # pydantic calls a list too short when its only items are wrong
            if kind != "too_short" or not any(one.startswith(f"{fault.field}[") for one in fields)
        ]
    ) from None


def _fault(detail: ErrorDetails) -> FieldFault:
    context = detail.get("ctx", {})
    location = (*detail["loc"], *context.get("below", ()))
    field = field_path(location)
    return FieldFault(field, _message(field, location, detail, context))


def _message(
    field: str, location: Sequence[str | int], detail: ErrorDetails, context: Mapping[str, Any]
) -> str:
    kind = detail["type"]
    if kind == "missing" or (kind == "string_too_short" and context["min_length"] == 1):
        return _required(field, location)
    if kind in _EXPECTED:
        given = _GIVEN.get(type(detail["input"]), "null")
        return f"Invalid type. Expected: {_EXPECTED[kind]}, given: {given}"
    if kind in _WORDED:
        return _WORDED[kind].format_map(context)
    return detail["msg"]


def _required(field: str, location: Sequence[str | int]) -> str:
    words = "".join(f" {char.lower()}" if char.isupper() else char for char in str(location[-1]))
    return _REQUIRED.get(field, f"{words[:1].upper()}{words[1:]} is required")
