"""What conditions of policies may speak of, and what is read from a condition by these names."""

from collections.abc import Iterator
from typing import Literal

from cel_expr_python import cel

from policy_engine.conditions import expressions
from policy_engine.conditions.expressions import Node

Phase = Literal["request", "response"]

_TEXT = cel.Type.STRING
_LISTS = cel.Type.Map(_TEXT, cel.Type.List(_TEXT))
_ANYTHING = cel.Type.Map(_TEXT, cel.Type.DYN)
_TEXTS = cel.Type.Map(_TEXT, _TEXT)

CONTRACT = {
    "processing.phase": _TEXT,
    "request.Headers": _LISTS,
    "request.Body": _ANYTHING,
    "request.Path": _TEXT,
    "request.Method": _TEXT,
    "request.RequestID": _TEXT,
    "request.Metadata": _ANYTHING,
    "response.RequestHeaders": _LISTS,
    "response.RequestBody": _ANYTHING,
    "response.RequestPath": _TEXT,
    "response.RequestMethod": _TEXT,
    "response.ResponseHeaders": _LISTS,
    "response.ResponseBody": _ANYTHING,
    "response.ResponseStatus": cel.Type.INT,
    "response.RequestID": _TEXT,
    "response.Metadata": _ANYTHING,
}
"""The names of the public contract with their types."""
OWN = {
    **dict.fromkeys(
        (
            f"request.{name}"
            for name in (
                *("host", "id", "method", "path", "protocol", "query"),
                *("referer", "scheme", "url_path", "useragent"),
            )
        ),
        _TEXT,
    ),
    "request.headers": _TEXTS,
    "request.time": cel.Type.TIMESTAMP,
    "source.address": _TEXT,
    "source.port": cel.Type.INT,
    "response.code": cel.Type.INT,
    "response.headers": _TEXTS,
}
"""Envoy's own, with their types."""
NAMES = (*CONTRACT, *OWN)
"""What a condition may speak of: the contract's names, then Envoy's own."""

HEADERS = {
    "request.Headers": "request.headers",
    "response.RequestHeaders": "request.headers",
    "response.ResponseHeaders": "response.headers",
}
"""Headers as lists of lines, and what they are to Envoy."""
METADATA = ("request.Metadata", "response.Metadata")
"""What policies know of a call."""
BODIES = {
    "request.Body": "request",
    "response.RequestBody": "request",
    "response.ResponseBody": "response",
}
"""Bodies, and of which message."""


def header_key(node: Node) -> str | None:
    """The header that `node` looks up, by index, by field or by `in`."""
    key: object = None
    if "select_expr" in node and expressions.ident(node["select_expr"]["operand"]) in HEADERS:
        key = node["select_expr"]["field"]
    elif "call_expr" in node and len(arguments := node["call_expr"].get("args", ())) == 2:
        function = node["call_expr"]["function"]
        if function == "_[_]" and expressions.ident(arguments[0]) in HEADERS:
            key = expressions.constant(arguments[1])
        elif function == "@in" and expressions.ident(arguments[1]) in HEADERS:
            key = expressions.constant(arguments[0])
    return key if isinstance(key, str) else None


def idents(part: object) -> Iterator[str]:
    """The names, with a field, that stand anywhere in `part`."""
    for node in expressions.nodes(part):
        name = expressions.ident(node) if isinstance(node.get("ident_expr"), dict) else None
        if name is not None and "." in name:
            yield name
