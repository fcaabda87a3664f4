"""The parameters of a policy, from its JSON schema, as the rows of a table."""

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

Schema = dict[str, Any]


class Parameter(NamedTuple):
    """One parameter, or a part of one."""

    name: str  # from the top, such as `request.headers[].name`
    type: str
    default: str  # as JSON; `required` when there is none
    description: str


def parameters(schema: Schema) -> Iterator[Parameter]:
    """All parameters that a policy's schema has, each before its parts."""
    yield from _members(schema, schema, "", ())


def _members(
    root: Schema, schema: Schema, prefix: str, within: tuple[str, ...]
) -> Iterator[Parameter]:
    required = schema.get("required", ())
    for name, found in schema.get("properties", {}).items():
        default = "required" if name in required else _default(found)
        description = " ".join(str(found.get("description") or "").split())
        yield Parameter(f"{prefix}{name}", _type(root, found), default, description)
        for reference, below, path in _below(root, found, f"{prefix}{name}"):
            if reference not in within:
                yield from _members(root, below, f"{path}.", (*within, reference))


def _below(root: Schema, schema: Schema, path: str) -> Iterator[tuple[str, Schema, str]]:
    """The objects below a parameter: what they are called, their schema, their path."""
    for one in (schema, *schema.get("anyOf", ())):
        if "$ref" in one:
            yield one["$ref"], _resolved(root, one), path
        elif "items" in one:
            yield from _below(root, one["items"], f"{path}[]")


def _resolved(root: Schema, schema: Schema) -> Schema:
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def _default(schema: Schema) -> str:
    default = schema.get("default")
    return "-" if default is None else json.dumps(default, ensure_ascii=False)


def _type(root: Schema, schema: Schema) -> str:
    schema = _resolved(root, schema)
    if "anyOf" in schema:
        kinds = [_type(root, one) for one in schema["anyOf"] if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in schema:
        return " | ".join(str(one) for one in schema["enum"])
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        return f"list of {_type(root, schema.get('items', {}))}"
    return str(schema.get("type", "any"))
