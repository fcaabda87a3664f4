"""Conditions of policies in the public contract's own words, evaluated in Python.

A condition is CEL over `request`, `response` and `processing.phase`. It is evaluated in each phase
its policy takes part in; what it speaks of decides what must be there: a body has to be buffered.
Source: https://github.com/google/cel-spec
"""

import re
from functools import lru_cache
from typing import Any, Final, Literal

from cel_expr_python import cel

from policy_engine.bodies.json_text import NotJson, document
from policy_engine.conditions.cel import reason
from policy_engine.conditions.names import CONTRACT
from policy_engine.hooks import Exchange

Direction = Literal["request", "response"]

NAMES: Final = {
    "request": ("Headers", "Body", "Path", "Method", "RequestID", "Metadata"),
    "response": (
        "RequestHeaders",
        "RequestBody",
        "RequestPath",
        "RequestMethod",
        "ResponseHeaders",
        "ResponseBody",
        "ResponseStatus",
        "RequestID",
        "Metadata",
    ),
    "processing": ("phase",),
}
"""What a condition may speak of. Header names are in lower case, header values are lists; bodies
are what their JSON says, and empty maps when they are no JSON objects; `processing.phase` is
`request` or `response`; what a phase does not know yet is empty, the status 0."""

_TEXT = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'")
_SELECTED = re.compile(r"(?<![\w.])(request|response|processing)\b(?:\s*\.\s*([A-Za-z_]\w*))?")
_REQUEST_BODY: Final = frozenset({"request.Body", "response.RequestBody"})
_RESPONSE_BODY: Final = frozenset({"response.ResponseBody"})
_RESPONSE: Final = frozenset(
    {"response.ResponseHeaders", "response.ResponseBody", "response.ResponseStatus"}
)


class ConditionFailed(Exception):
    """The condition has no truth here: a key that is not there, or a comparison of unlike types."""


class Condition:
    """One condition, compiled. Raises ValueError when `text` is no condition."""

    __slots__ = ("_expression", "names", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.names = _names(text)
        """What it speaks of: `request.Headers`, ..."""
        self._expression = _compiled(text)

    @property
    def needs_request_body(self) -> bool:
        """Whether it can be evaluated only when the request's body is there."""
        return bool(self.names & _REQUEST_BODY)

    @property
    def needs_response_body(self) -> bool:
        """Whether, in the response's phases, it needs the answer's body."""
        return bool(self.names & _RESPONSE_BODY)

    @property
    def needs_response(self) -> bool:
        """Whether it speaks of the upstream's answer at all."""
        return bool(self.names & _RESPONSE)

    def holds(
        self,
        exchange: Exchange,
        direction: Direction,
        request_body: bytes = b"",
        response_body: bytes = b"",
    ) -> bool:
        """Whether the policy is to run now. Raises ConditionFailed."""
        data = self._data(exchange, direction, request_body, response_body)
        value = self._expression.eval(data=data)
        result = value.value()
        if not isinstance(result, bool):
            raise ConditionFailed(f"condition {self.text!r}: {reason(str(value))}")
        return result

    def _data(
        self, exchange: Exchange, direction: Direction, request_body: bytes, response_body: bytes
    ) -> dict[str, Any]:
        """Only what the condition speaks of: the rest costs nothing."""
        told: dict[str, Any] = {}
        request, response = exchange.request, exchange.response
        for name in self.names:
            field = name.partition(".")[2]
            if field == "phase":
                told[name] = direction
            elif field in ("Headers", "RequestHeaders"):
                told[name] = request.headers.as_lists()
            elif field in ("Body", "RequestBody"):
                told[name] = _json(request_body)
            elif field in ("Path", "RequestPath"):
                told[name] = request.path
            elif field in ("Method", "RequestMethod"):
                told[name] = request.method
            elif field == "RequestID":
                told[name] = exchange.request_id
            elif field == "Metadata":
                told[name] = {**exchange.metadata, **exchange.published}
            elif field == "ResponseHeaders":
                told[name] = {} if response is None else response.headers.as_lists()
            elif field == "ResponseStatus":
                told[name] = 0 if response is None else response.status
            elif field == "ResponseBody":
                told[name] = _json(response_body)
        return told


def _json(body: bytes) -> dict[str, Any]:
    """The object that `body` is; empty for all else, a member that stands twice included."""
    try:
        value = document(body) if body else {}
    except NotJson:
        return {}
    return value if isinstance(value, dict) else {}


def _names(text: str) -> frozenset[str]:
    """`request.Headers`, ... in `text`. Raises ValueError for what there is not."""
    names: set[str] = set()
    for operand, field in _SELECTED.findall(_TEXT.sub("''", text)):
        known = NAMES[operand]
        if not field:
            names |= {f"{operand}.{one}" for one in known}  # it may be any of them
        elif field not in known:
            raise ValueError(f"there is no {operand}.{field}; {operand} has {', '.join(known)}")
        else:
            names.add(f"{operand}.{field}")
    return frozenset(names)


@lru_cache(maxsize=1)
def _environment() -> Any:  # noqa: ANN401 - the library has no types
    return cel.NewEnv(variables=CONTRACT)


def _compiled(text: str) -> Any:  # noqa: ANN401 - the library has no types
    try:
        compiled = _environment().compile(text)
    except RuntimeError as error:  # the only one it raises
        raise ValueError(f"is no CEL: {reason(str(error))}") from None
    if compiled.return_type() not in (cel.Type.BOOL, cel.Type.DYN):
        raise ValueError(f"is no condition: it gives {compiled.return_type().name()}, not bool")
    return compiled


@lru_cache(maxsize=1024)
def condition(text: str) -> Condition:
    """The condition that `text` is, compiled once per process. Raises ValueError."""
    return Condition(text)
