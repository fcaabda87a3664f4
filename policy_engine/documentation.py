"""The page that documents every policy, written from the catalogue.

`python -m policy_engine.documentation` prints it; a test fails when `docs/policies.md` differs.
"""

import json
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

Beside `name`, `version` and `params` a reference may have:

- `executionCondition`: CEL; the policy runs only where it holds. Decided in Envoy where it can be.
- `mode`: `enforce`, or `shadow`: what would be refused is only reported, nothing is changed. For
  both: [Conditions and shadow mode](conditions.md).
- `failureMode`, of policies in Python: `closed` or `open`, what becomes of requests when the policy
  fails. Authentication is always closed.
- `timeout`, of policies in Python: how long one hook may take, such as `200ms`.

Policies in Python that look into bodies read those that are compressed with gzip, deflate, br or
zstd, up to 16 MiB decompressed. Another `Content-Encoding`, several, or a broken body count as one
that cannot be read. Where answers are looked into, upstreams are asked for uncompressed ones.

Policies of your own: [Writing policies](writing-policies.md).

This page is written from the policies themselves: `python -m policy_engine.documentation`.
"""
_UNITS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "exclusiveMinimum": "more than {}",
    "exclusiveMaximum": "less than {}",
    "pattern": "as `{}`",
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
        f"| `{known.path}` | {_cell(known.kind)} | {_default(known)} | {_cell(known.description)} |"
        for known in parameters(one.parameters)
    ]
    return "\n".join(
        [
            f"## {one.name}",
            "",
            one.description,
            "",
            f"Version {one.version}; runs {_RUNS[one.runs]}{_why(one)}.{_shadow(one)}",
            "",
            *table,
            "",
            *_refusals(one),
            "```yaml",
            example.rstrip("\n"),
            "```",
            "",
        ]
    )


def _why(one: Listing) -> str:
    return f": {one.why}" if one.why else ""


def _shadow(one: Listing) -> str:
    return "" if one.shadow else " It has no shadow mode."


def _refusals(one: Listing) -> list[str]:
    """What callers get where the policy refuses in words of the gateway."""
    if not one.refusals:
        return []
    rows = [
        f"| {status} | `{_cell(body if isinstance(body, str) else json.dumps(body))}` |"
        for status, body in one.refusals
    ]
    return ["| refuses with | body |", "|---|---|", *rows, ""]


def _of_object(
    schema: Json, definitions: Json, prefix: str, within: tuple[str, ...] = ()
) -> Iterator[Parameter]:
    required = schema.get("required", ())
    for name, about in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        yield Parameter(
            path,
            _kind(_shape(about, definitions), definitions),
            name in required,
            about.get("default"),
            about.get("description", ""),
        )
        for inner, place, title in _objects_in(about, definitions, path):
            if title not in within:  # models may hold themselves
                yield from _of_object(inner, definitions, f"{place}.", (*within, title))


def _objects_in(schema: Json, definitions: Json, path: str) -> Iterator[tuple[Json, str, str]]:
    """The objects with parameters that a value may be or hold, where they are, and their names."""
    shape = _shape(schema, definitions)
    if "properties" in shape:
        yield shape, path, str(shape.get("title", path))
    for one in (*shape.get("anyOf", ()), *shape.get("oneOf", ())):
        yield from _objects_in(one, definitions, path)
    if isinstance(shape.get("items"), dict):
        yield from _objects_in(shape["items"], definitions, f"{path}[]")
    if isinstance(shape.get("additionalProperties"), dict):
        yield from _objects_in(shape["additionalProperties"], definitions, f"{path}.*")


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
    if "const" in schema:
        return f"`{schema['const']}`"
    several = [
        _kind(_shape(one, definitions), definitions)
        for one in (*schema.get("anyOf", ()), *schema.get("oneOf", ()))
        if one.get("type") != "null"
    ]
    if several:
        return " or ".join(dict.fromkeys(several))
    kind = str(schema.get("type", "any"))
    if kind == "array":
        kind = f"list of {_kind(_shape(schema.get('items', {}), definitions), definitions)}"
    elif kind == "object" and isinstance(schema.get("additionalProperties"), dict):
        value = _kind(_shape(schema["additionalProperties"], definitions), definitions)
        kind = f"object of {value}"
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
        return ", ".join(f"`{one if isinstance(one, str) else json.dumps(one)}`" for one in value)
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    sys.stdout.write(page(load(())))
