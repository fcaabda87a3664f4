"""Conditions in CEL, compiled to the checked form that Envoy evaluates.

Source: https://github.com/google/cel-spec; names: Envoy's attributes.
"""

import re
from collections.abc import Iterator
from functools import lru_cache

from cel_expr_python import cel
from google.protobuf.any_pb2 import Any as AnyMessage

from policy_engine.policy import Document, typed
from xds.wire.messages import decode

NAMES = {
    "request": (
        "headers",
        "host",
        "id",
        "method",
        "path",
        "protocol",
        "query",
        "referer",
        "scheme",
        "time",
        "url_path",
        "useragent",
    ),
    "source": ("address", "port"),
}
"""What a condition may speak of: `request.method`, `source.address`, ..."""

_CHECKED = "cel.expr.CheckedExpr"
_INPUT = "xds.type.matcher.v3.HttpAttributesCelMatchInput"
_MATCHER = "xds.type.matcher.v3.CelMatcher"


def checked(expression: str) -> Document:
    """`expression` as a CheckedExpr. Raises ValueError for all that is no condition."""
    document: Document = _compiled(expression)
    for operand, name in _fields(document["expr"]):
        if name not in NAMES[operand]:
            known = ", ".join(NAMES[operand])
            raise ValueError(f"there is no {operand}.{name}; {operand} has {known}")
    return document


def holds(expression: str) -> Document:
    """A matcher's predicate that is true when `expression` is; an error in it is false."""
    return predicate({"cel_expr_checked": checked(expression)})


def predicate(expression: Document) -> Document:
    """A matcher's predicate for a CelExpression; an error in it is false."""
    return {
        "single_predicate": {
            "input": {"name": "attributes", "typed_config": typed(_INPUT)},
            "custom_match": {
                "name": "condition",
                "typed_config": typed(_MATCHER, {"expr_match": expression}),
            },
        }
    }


@lru_cache(maxsize=256)
def _compiled(expression: str) -> Document:
    return compiled(expression, _environment())


def compiled(expression: str, environment: cel.Env) -> Document:
    """`expression` as a CheckedExpr. Raises ValueError, with line and column, if it is no bool."""
    try:
        made = environment.compile(expression)
    except RuntimeError as error:  # the only one it raises
        raise ValueError(f"is no CEL: {reason(str(error))}") from None
    if made.return_type() not in (cel.Type.BOOL, cel.Type.DYN):
        raise ValueError(f"is no condition: it gives {made.return_type().name()}, not bool")
    document = decode(_CHECKED, AnyMessage.FromString(made.serialize()).value)
    del document["source_info"]  # for people only
    return document


@lru_cache(maxsize=1)
def _environment() -> cel.Env:
    anything = cel.Type.Map(cel.Type.STRING, cel.Type.DYN)
    return cel.NewEnv(variables=dict.fromkeys(NAMES, anything))


def reason(text: str) -> str:
    """Where and why CEL was not understood, in one line, of what the runtime says."""
    found = re.search(r"ERROR: <input>:(\d+:\d+: [^\n]*)", text)
    return found[1].replace(" (in container '')", "") if found else " ".join(text.split())


def _fields(part: object) -> Iterator[tuple[str, str]]:
    """Every `name.field` of a declared name."""
    if isinstance(part, dict):
        select = part.get("select_expr")
        if isinstance(select, dict):
            operand = select["operand"].get("ident_expr", {}).get("name")
            if operand in NAMES:
                yield operand, select["field"]
        for value in part.values():
            yield from _fields(value)
    elif isinstance(part, list):
        for value in part:
            yield from _fields(value)
