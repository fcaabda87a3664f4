"""Conditions in Envoy's words: the contract's names become Envoy's attributes.

* A header on several lines is one value to Envoy, with commas between (RFC 9110, 5.3): `[0]` is
  that value, `==` and `!=` with it look at the first line, `in` at every element.
* Half of a condition that cannot be decided does no harm where the other half decides (`||`, `&&`).
"""

import re

from policy_engine.conditions import expressions
from policy_engine.conditions.expressions import Node
from policy_engine.conditions.names import BODIES, HEADERS, METADATA, OWN, Phase, header_key
from policy_engine.hooks import EXCHANGE_NAMESPACE

_SAME = {
    "request.Path": "request.path",
    "request.Method": "request.method",
    "request.RequestID": "request.id",
    "response.RequestPath": "request.path",
    "response.RequestMethod": "request.method",
    "response.RequestID": "request.id",
    "response.ResponseStatus": "response.code",
}
_FUNCTIONS = frozenset(
    {
        *("_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "_&&_", "_||_", "!_", "_?_:_"),
        *("@in", "_[_]", "-_", "size", "contains", "startsWith", "endsWith", "matches"),
        *("int", "timestamp", "duration"),
    }
)
"""What Envoy's CEL computes: it neither joins nor makes strings, and knows no macros."""


class NotNative(Exception):
    """Envoy cannot decide the condition; the message says why."""


def native(node: Node, phase: Phase | None) -> Node:
    """`node` in Envoy's words. Raises NotNative."""
    name = expressions.ident(node)
    if name is not None:
        return _variable(name, phase)
    if "select_expr" in node:
        return _select(node["select_expr"], phase)
    if "call_expr" in node:
        return _function(node["call_expr"], phase)
    if "list_expr" in node:
        elements = [native(one, phase) for one in node["list_expr"].get("elements", ())]
        return {"list_expr": {"elements": elements}}
    if "const_expr" in node:
        return node
    raise NotNative("macros and maps are not for Envoy")


def _variable(name: str, phase: Phase | None) -> Node:
    if name == "processing.phase" and phase is not None:
        return {"const_expr": {"string_value": phase}}
    if name in BODIES:
        raise NotNative("Envoy looks at no bodies")
    if name in OWN or name in _SAME:
        return expressions.attribute(_SAME.get(name, name))
    raise NotNative(f"Envoy has no {name} by itself")


def _select(select: Node, phase: Phase | None) -> Node:
    operand, field = select["operand"], select["field"]
    name = expressions.ident(operand)
    tested = bool(select.get("test_only"))
    if name in HEADERS:
        if not tested:
            raise NotNative("a header's list of lines is not Envoy's")
        return {
            "select_expr": {
                "operand": expressions.attribute(HEADERS[name]),
                "field": field,
                "test_only": True,
            }
        }
    if name in METADATA:
        return _known(field) if tested else metadata([field])
    found: Node = {"operand": native(operand, phase), "field": field}
    return {"select_expr": found | ({"test_only": True} if tested else {})}


def _function(call: Node, phase: Phase | None) -> Node:
    function = call["function"]
    if function not in _FUNCTIONS:
        raise NotNative(f"Envoy does not compute {function.strip('_@')}")
    arguments = [*([call["target"]] if "target" in call else []), *call.get("args", ())]
    if function == "@in" and (found := _inside(arguments[0], arguments[1], phase)) is not None:
        return found
    if function == "_[_]" and (found := _index(arguments[0], arguments[1])) is not None:
        return found
    translated = [native(one, phase) for one in arguments]
    if function in ("_==_", "_!=_"):
        for one, other, there in zip(arguments, arguments[::-1], translated, strict=True):
            wanted = expressions.constant(other)
            if _first_line(one) and isinstance(wanted, str) and "," not in wanted:
                return _first_is(there, wanted, equal=function == "_==_")
    if "target" in call:
        return expressions.method(function, translated[0], *translated[1:])
    return expressions.call(function, *translated)


def _index(operand: Node, key: Node) -> Node | None:
    """`request.Headers["x"][0]` and `request.Metadata["x"]`; None for anything else."""
    if expressions.ident(operand) in METADATA and isinstance(expressions.constant(key), str):
        return metadata([str(expressions.constant(key))])
    if expressions.ident(operand) in HEADERS:
        raise NotNative("a header's list of lines is not Envoy's")
    lines = _lines(operand)
    if lines is None:
        return None
    if expressions.constant(key) != 0:
        raise NotNative("Envoy does not tell the lines of a header apart")
    return expressions.call("_[_]", expressions.attribute(lines[0]), expressions.string(lines[1]))


def _inside(element: Node, container: Node, phase: Phase | None) -> Node | None:
    """`in` with headers and metadata; None for anything else."""
    name = expressions.ident(container)
    if name in HEADERS:
        return expressions.call("@in", native(element, phase), expressions.attribute(HEADERS[name]))
    if name in METADATA:
        key = expressions.constant(element)
        if not isinstance(key, str):
            raise NotNative("the key in the metadata is not written out")
        return _known(key)
    lines = _lines(container)
    if lines is None:
        return None
    wanted = expressions.constant(element)
    if not isinstance(wanted, str):
        raise NotNative("the value in the header is not written out")
    value = expressions.call("_[_]", expressions.attribute(lines[0]), expressions.string(lines[1]))
    pattern = rf"^(.*,)?[ \t]*{re.escape(wanted)}[ \t]*(,.*)?$"
    return expressions.method("matches", value, expressions.string(pattern))


def _lines(node: Node) -> tuple[str, str] | None:
    """Envoy's name of the headers and the header's, if `node` is the lines of one header."""
    key = header_key(node)
    if key is None:
        return None
    if "select_expr" in node:
        if node["select_expr"].get("test_only"):
            return None
        operand = node["select_expr"]["operand"]
    elif node["call_expr"]["function"] == "_[_]":
        operand = node["call_expr"]["args"][0]
    else:
        return None
    return HEADERS[str(expressions.ident(operand))], key


def _first_line(node: Node) -> bool:
    if node.get("call_expr", {}).get("function") != "_[_]":
        return False
    operand, key = node["call_expr"]["args"]
    return _lines(operand) is not None and expressions.constant(key) == 0


def _first_is(value: Node, wanted: str, *, equal: bool) -> Node:
    same = expressions.call(
        "_||_",
        expressions.call("_==_", value, expressions.string(wanted)),
        expressions.method("startsWith", value, expressions.string(f"{wanted},")),
    )
    return same if equal else expressions.call("!_", same)


def answered() -> Node:
    """True once there is an answer; until then Envoy waits."""
    return expressions.call(
        "_>_", expressions.attribute("response.code"), {"const_expr": {"int64_value": 0}}
    )


def metadata(keys: list[str]) -> Node:
    """What is found along `keys` in what policies know of a call."""
    node = expressions.attribute("metadata.filter_metadata")
    for key in (EXCHANGE_NAMESPACE, *keys):
        node = expressions.call("_[_]", node, expressions.string(key))
    return node


def _known(key: str) -> Node:
    namespaces = expressions.attribute("metadata.filter_metadata")
    there = expressions.call("@in", expressions.string(EXCHANGE_NAMESPACE), namespaces)
    inside = expressions.call("_[_]", namespaces, expressions.string(EXCHANGE_NAMESPACE))
    return both(there, expressions.call("@in", expressions.string(key), inside))


def both(one: Node, other: Node) -> Node:
    """Both hold."""
    return expressions.call("_&&_", one, other)
