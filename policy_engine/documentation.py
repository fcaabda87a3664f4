"""The page that documents every policy, written from the catalogue.

`python -m policy_engine.documentation` prints it; a test fails when `docs/policies.md` differs.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from policy_engine.catalogue import Catalogue, Listing, load

Json = dict[str, Any]

_RUNS = {
    "envoy": "in Envoy, as filters of the route's chain",
    "python": "in Python, called by Envoy",
}
_HEAD = """\
# Policies

Attach policies to an API (`spec.policies`) or to one of its operations
(`spec.operations[].policies`). A request meets those of the API first, then those of the
operation, each in written order; the response meets them backwards. A resource names the major
version (`version: v1`) and gets the newest that is installed; without a version, the newest of
all. Parameters that a policy does not know are refused.

This page is written from the policies themselves: `python -m policy_engine.documentation`.
"""
_UNITS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a policy."""

    path: str  # such as `request.headers[].name`
    kind: str  # string, integer, `header` or `query`, ...
    required: bool
    default: object  # None: none
    description: str


def parameters(schema: Json) -> Iterator[Parameter]:
    """Every parameter of a policy's schema, those inside after what holds them."""
    yield from _of_object(schema, schema.get("$defs", {}), "")


def page(catalogue: Catalogue) -> str:
    """The documentation of all policies."""
    listing = catalogue.listing()
    overview = ["| policy | version | runs | |", "|---|---|---|---|"]
    for one in listing:
        summary = one.description.split("\n\n")[0].replace("\n", " ")
        overview.append(f"| [{one.name}](#{one.name}) | {one.version} | {one.runs} | {summary} |")
    return "\n".join([_HEAD, *overview, "", *(_section(one) for one in listing)])


def _section(one: Listing) -> str:
    refuses = ""
    if one.statuses:
        refuses = f"; refuses with {', '.join(str(status) for status in one.statuses)}"
    example = yaml.safe_dump(
        {
            "policies": [
                {"name": one.name, "version": f"v{one.version.major}", "params": one.example}
            ]
        },
        sort_keys=False,
        allow_unicode=True,
        width=96,
    )
    table = ["| parameter | type | default | |", "|---|---|---|---|"]
    table += [
        f"| `{known.path}` | {known.kind} | {_default(known)} | {_cell(known.description)} |"
        for known in parameters(one.parameters)
    ]
    return "\n".join(
        [
            f"## {one.name}",
            "",
            one.description,
            "",
            f"Version {one.version}; runs {_RUNS[one.runs]}{refuses}.",
            "",
            *table,
            "",
            "```yaml",
            example.rstrip("\n"),
            "```",
            "",
        ]
    )


def _of_object(schema: Json, definitions: Json, prefix: str) -> Iterator[Parameter]:
    required = schema.get("required", ())
    for name, about in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        shape = _shape(about, definitions)
        yield Parameter(
            path,
            _kind(shape, definitions),
            name in required,
            about.get("default"),
            about.get("description", ""),
        )
        inner = _shape(shape.get("items", shape), definitions)
        if "properties" in inner:
            yield from _of_object(
                inner, definitions, f"{path}[]." if "items" in shape else f"{path}."
            )


def _shape(schema: Json, definitions: Json) -> Json:
    """`schema` behind references, and without the null of what may be left out."""
    if "$ref" in schema:
        return _shape(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        some = [one for one in schema["anyOf"] if one.get("type") != "null"]
        if len(some) == 1:
            return _shape(some[0], definitions)
    return schema


def _kind(schema: Json, definitions: Json) -> str:
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    kind = str(schema.get("type", "any"))
    if kind == "array":
        kind = f"list of {_kind(_shape(schema['items'], definitions), definitions)}"
    bounds = [words.format(schema[bound]) for bound, words in _UNITS.items() if bound in schema]
    return f"{kind}, {', '.join(bounds)}" if bounds else kind


def _default(known: Parameter) -> str:
    if known.required:
        return "required"
    if known.default in (None, "", [], ()):
        return "none"
    value = known.default
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list | tuple):
        return ", ".join(f"`{one}`" for one in value)
    return f"`{value}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(page(load(())))
