"""CEL expressions as JSON: the nodes of `cel.expr.Expr`, made, read and simplified."""

import json
from collections.abc import Iterator
from typing import Any

Node = dict[str, Any]


def ident(node: Node) -> str | None:
    """The name, if `node` is one."""
    name = node.get("ident_expr", {}).get("name")
    return None if name is None else str(name)


def constant(node: Node) -> str | int | None:
    """The text or whole number, if `node` is one written out."""
    value = node.get("const_expr", {})
    if "int64_value" in value:
        return int(value["int64_value"])
    text = value.get("string_value")
    return None if text is None else str(text)


def truth(node: Node) -> bool | None:
    """True or false, if `node` is one of them."""
    value = node.get("const_expr", {}).get("bool_value")
    return None if value is None else bool(value)


def boolean(value: bool) -> Node:
    """True or false."""
    return {"const_expr": {"bool_value": value}}


def string(text: str) -> Node:
    """Text."""
    return {"const_expr": {"string_value": text}}


def call(function: str, *arguments: Node) -> Node:
    """An operator or a function."""
    return {"call_expr": {"function": function, "args": list(arguments)}}


def method(function: str, target: Node, *arguments: Node) -> Node:
    """A function of `target`."""
    return {"call_expr": {"target": target, "function": function, "args": list(arguments)}}


def attribute(name: str) -> Node:
    """`request.path` and the like, as Envoy looks them up."""
    operand, _, field = name.partition(".")
    return {"select_expr": {"operand": {"ident_expr": {"name": operand}}, "field": field}}


def nodes(part: object) -> Iterator[Node]:
    """Every object in `part`, itself first."""
    if isinstance(part, dict):
        yield part
        for value in part.values():
            yield from nodes(value)
    elif isinstance(part, list):
        for value in part:
            yield from nodes(value)


def folded(node: Node) -> Node:
    """`node` without what constants decide."""
    if "call_expr" not in node:
        return node
    made = node["call_expr"]
    arguments = [folded(one) for one in made.get("args", ())]
    decided = _decided(made["function"], arguments)
    return {"call_expr": {**made, "args": arguments}} if decided is None else decided


def _decided(function: str, arguments: list[Node]) -> Node | None:
    truths = [truth(one) for one in arguments]
    match function:
        case "_==_" | "_!=_" | "@in":
            compared = _compared(function, arguments)
            return None if compared is None else boolean(compared)
        case "!_" if truths[0] is not None:
            return boolean(not truths[0])
        case "_?_:_" if truths[0] is not None:
            return arguments[1] if truths[0] else arguments[2]
        case "_&&_" | "_||_":
            decisive = function == "_||_"
            if decisive in truths:
                return boolean(decisive)
            open_ = [one for one, known in zip(arguments, truths, strict=True) if known is None]
            if len(open_) < len(arguments):
                return open_[0] if open_ else boolean(not decisive)
    return None


def _compared(function: str, arguments: list[Node]) -> bool | None:
    if function == "@in":
        elements = arguments[1].get("list_expr", {}).get("elements")
        if elements is None or any("const_expr" not in one for one in (arguments[0], *elements)):
            return None
        return arguments[0] in elements
    if all("const_expr" in one for one in arguments):
        return (arguments[0] == arguments[1]) is (function == "_==_")
    return None


def plain(part: Any) -> Any:  # noqa: ANN401 - JSON
    """Without the numbers of nodes, so that equal expressions are equal."""
    if isinstance(part, dict):
        return {key: plain(value) for key, value in part.items() if key != "id"}
    return [plain(value) for value in part] if isinstance(part, list) else part


def numbered(part: Any, numbers: Iterator[int]) -> Any:  # noqa: ANN401 - JSON
    """With a number for each node, as CEL wants it."""
    if isinstance(part, list):
        return [numbered(value, numbers) for value in part]
    if not isinstance(part, dict):
        return part
    made = {key: numbered(value, numbers) for key, value in part.items()}
    is_node = any(key.endswith("_expr") for key in part)
    return {"id": next(numbers), **made} if is_node else made


def as_text(node: Node) -> str:
    """JSON: equal nodes give equal text."""
    return json.dumps(node, sort_keys=True, separators=(",", ":"))
