"""Conditions of policies, translated to what Envoy decides by itself.

The public contract's variables become Envoy's attributes where that keeps their meaning; what
Envoy cannot see (bodies) or cannot compute (macros) is left to the engine: `NotNative`.

* A header on several lines is one value to Envoy, with commas between (RFC 9110, 5.3): `[0]` is
  that value, `==` and `!=` with it look at the first line, `in` at every element.
* `request` is the request as it stands where the policy stands; an answer's condition is looked at
  when the answer comes, a request's once.
* Half of a condition that cannot be decided does no harm where the other half decides (`||`, `&&`).
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from cel_expr_python import cel

from policy_engine import expressions
from policy_engine.cel import compiled
from policy_engine.cel import predicate as cel_predicate
from policy_engine.expressions import Node
from policy_engine.hooks import EXCHANGE_NAMESPACE
from policy_engine.policy import Document, Gate

CONDITIONS_MAX = 8
"""How many conditions one request can meet natively; equal neighbours count once.

The connection manager has a slot for each, whether it is used or not (see DECISIONS.md).
"""

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
_OWN = {
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
NAMES = (*CONTRACT, *_OWN)
"""What a condition may speak of: the contract's names, then Envoy's own."""

_SAME = {
    "request.Path": "request.path",
    "request.Method": "request.method",
    "request.RequestID": "request.id",
    "response.RequestPath": "request.path",
    "response.RequestMethod": "request.method",
    "response.RequestID": "request.id",
    "response.ResponseStatus": "response.code",
}
_HEADERS = {
    "request.Headers": "request.headers",
    "response.RequestHeaders": "request.headers",
    "response.ResponseHeaders": "response.headers",
}
_METADATA = ("request.Metadata", "response.Metadata")
_BODIES = {
    "request.Body": "request",
    "response.RequestBody": "request",
    "response.ResponseBody": "response",
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


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition as written, understood."""

    text: str
    expression: str  # Node as JSON

    @property
    def names(self) -> frozenset[str]:
        """What it speaks of."""
        return frozenset(_idents(json.loads(self.expression)))

    @property
    def of_response(self) -> bool:
        """Whether it speaks of the answer."""
        return any(name.startswith("response.") for name in self.names)

    @property
    def of_phase(self) -> bool:
        """Whether it tells the request from the answer by name."""
        return "processing.phase" in self.names

    def bodies(self, direction: Phase) -> bool:
        """Whether it speaks of the body of that message."""
        return any(_BODIES.get(name) == direction for name in self.names)

    def in_envoys_words(self) -> bool:
        """Whether it uses names that only Envoy knows."""
        return any(name in _OWN for name in self.names)

    def gate(self, phase: Phase | None, *, on_error: bool) -> Gate | bool:
        """When it holds: in `phase` (None: whichever), or always, or never. Raises NotNative."""
        node = expressions.folded(_native(json.loads(self.expression), phase))
        constant = expressions.truth(node)
        if constant is False or (constant and phase != "response"):
            return constant
        if phase == "response":  # nothing of the policy may run before
            node = _answered() if constant else _both(_answered(), node)
        return Gate(expressions.as_text(node), on_error=on_error)


@lru_cache(maxsize=1024)
def understood(text: str) -> Condition:
    """`text` checked. Raises ValueError for all that is no condition, with line and column."""
    try:
        node = compiled(text, _environment())["expr"]
    except ValueError as error:
        raise ValueError(f"{error}{_known_names(str(error))}") from None
    _check_header_names(node)
    condition = Condition(text, expressions.as_text(expressions.plain(node)))
    if condition.in_envoys_words():
        try:
            condition.gate("response" if condition.of_response else None, on_error=False)
        except NotNative as reason:
            own = sorted(name for name in condition.names if name in _OWN)
            raise ValueError(
                f"{reason}, and the engine does not know {own[0]}: use the names of the contract"
            ) from None
    return condition


def published(key: str, phase: Phase, *, unless: bool) -> Gate:
    """Holds when the engine has published `key` as true; with `unless`, when it has not."""
    node = expressions.call("_==_", _metadata([key]), expressions.boolean(True))
    if unless:
        node = expressions.call("!_", node)
    if phase == "response":
        node = _both(_answered(), node)
    return Gate(expressions.as_text(node), on_error=unless)


def waits_for_answer(gate: Gate) -> bool:
    """Whether the gate may be decided only when there is an answer."""
    return '"ident_expr":{"name":"response"}' in gate.expression


def predicate(gate: Gate) -> Document:
    """A matcher's predicate: whether the gate holds, or, with `on_error`, whether it does not.

    What cannot be decided makes it false.
    """
    node = json.loads(gate.expression)
    if gate.on_error:
        node = expressions.call("!_", node)
    parsed = {"expr": expressions.numbered(node, iter(range(1, 1 << 20)))}
    return cel_predicate({"cel_expr_parsed": parsed})


@lru_cache(maxsize=1)
def _environment() -> cel.Env:
    return cel.NewEnv(variables=CONTRACT | _OWN)


def _known_names(reason: str) -> str:
    unknown = re.search(r"undeclared reference to '(request|response|processing|source)\.", reason)
    if unknown is None:
        return ""
    return "; there is " + ", ".join(name for name in NAMES if name.startswith(f"{unknown[1]}."))


def _check_header_names(node: Node) -> None:
    for part in expressions.nodes(node):
        key = _header_key(part)
        if key is not None and key != key.lower():
            raise ValueError(f"header names are lower-case in conditions: {key.lower()!r}")


def _header_key(node: Node) -> str | None:
    """The header that `node` looks up, by index, by field or by `in`."""
    key: object = None
    if "select_expr" in node and expressions.ident(node["select_expr"]["operand"]) in _HEADERS:
        key = node["select_expr"]["field"]
    elif "call_expr" in node and len(arguments := node["call_expr"].get("args", ())) == 2:
        function = node["call_expr"]["function"]
        if function == "_[_]" and expressions.ident(arguments[0]) in _HEADERS:
            key = expressions.constant(arguments[1])
        elif function == "@in" and expressions.ident(arguments[1]) in _HEADERS:
            key = expressions.constant(arguments[0])
    return key if isinstance(key, str) else None


# -- translation -------------------------------------------------------------------------------


def _native(node: Node, phase: Phase | None) -> Node:
    """`node` in Envoy's words. Raises NotNative."""
    name = expressions.ident(node)
    if name is not None:
        return _variable(name, phase)
    if "select_expr" in node:
        return _select(node["select_expr"], phase)
    if "call_expr" in node:
        return _function(node["call_expr"], phase)
    if "list_expr" in node:
        elements = [_native(one, phase) for one in node["list_expr"].get("elements", ())]
        return {"list_expr": {"elements": elements}}
    if "const_expr" in node:
        return node
    raise NotNative("macros and maps are not for Envoy")


def _variable(name: str, phase: Phase | None) -> Node:
    if name == "processing.phase" and phase is not None:
        return {"const_expr": {"string_value": phase}}
    if name in _BODIES:
        raise NotNative("Envoy looks at no bodies")
    if name in _OWN or name in _SAME:
        return expressions.attribute(_SAME.get(name, name))
    raise NotNative(f"Envoy has no {name} by itself")


def _select(select: Node, phase: Phase | None) -> Node:
    operand, field = select["operand"], select["field"]
    name = expressions.ident(operand)
    tested = bool(select.get("test_only"))
    if name in _HEADERS:
        if not tested:
            raise NotNative("a header's list of lines is not Envoy's")
        return {
            "select_expr": {
                "operand": expressions.attribute(_HEADERS[name]),
                "field": field,
                "test_only": True,
            }
        }
    if name in _METADATA:
        return _known(field) if tested else _metadata([field])
    found: Node = {"operand": _native(operand, phase), "field": field}
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
    native = [_native(one, phase) for one in arguments]
    if function in ("_==_", "_!=_"):
        for one, other, there in zip(arguments, arguments[::-1], native, strict=True):
            wanted = expressions.constant(other)
            if _first_line(one) and isinstance(wanted, str) and "," not in wanted:
                return _first_is(there, wanted, equal=function == "_==_")
    if "target" in call:
        return expressions.method(function, native[0], *native[1:])
    return expressions.call(function, *native)


def _index(operand: Node, key: Node) -> Node | None:
    """`request.Headers["x"][0]` and `request.Metadata["x"]`; None for anything else."""
    if expressions.ident(operand) in _METADATA and isinstance(expressions.constant(key), str):
        return _metadata([str(expressions.constant(key))])
    if expressions.ident(operand) in _HEADERS:
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
    if name in _HEADERS:
        return expressions.call(
            "@in", _native(element, phase), expressions.attribute(_HEADERS[name])
        )
    if name in _METADATA:
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
    key = _header_key(node)
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
    return _HEADERS[str(expressions.ident(operand))], key


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


# -- what the names stand for ------------------------------------------------------------------


def _answered() -> Node:
    """True once there is an answer; until then Envoy waits."""
    return expressions.call(
        "_>_", expressions.attribute("response.code"), {"const_expr": {"int64_value": 0}}
    )


def _metadata(keys: list[str]) -> Node:
    node = expressions.attribute("metadata.filter_metadata")
    for key in (EXCHANGE_NAMESPACE, *keys):
        node = expressions.call("_[_]", node, expressions.string(key))
    return node


def _known(key: str) -> Node:
    namespaces = expressions.attribute("metadata.filter_metadata")
    there = expressions.call("@in", expressions.string(EXCHANGE_NAMESPACE), namespaces)
    inside = expressions.call("_[_]", namespaces, expressions.string(EXCHANGE_NAMESPACE))
    return _both(there, expressions.call("@in", expressions.string(key), inside))


def _idents(part: object) -> Iterator[str]:
    for node in expressions.nodes(part):
        name = expressions.ident(node) if isinstance(node.get("ident_expr"), dict) else None
        if name is not None and "." in name:
            yield name


def _both(one: Node, other: Node) -> Node:
    return expressions.call("_&&_", one, other)
