"""Conditions of policies: understood, and as gates that Envoy opens by itself.

The public contract's variables become Envoy's attributes where that keeps their meaning; what
Envoy cannot see (bodies) or cannot compute (macros) is left to the engine: `NotNative`.

`request` is the request as it stands where the policy stands; an answer's condition is looked at
when the answer comes, a request's once.
"""

import json
import re
from dataclasses import dataclass
from functools import lru_cache

from cel_expr_python import cel

from policy_engine.conditions import expressions
from policy_engine.conditions.cel import compiled
from policy_engine.conditions.cel import predicate as cel_predicate
from policy_engine.conditions.expressions import Node
from policy_engine.conditions.names import (
    BODIES,
    CONTRACT,
    NAMES,
    OWN,
    Phase,
    header_key,
    idents,
)
from policy_engine.conditions.translation import NotNative, answered, both, metadata, native
from policy_engine.policy import Document, Gate

CONDITIONS_MAX = 8
"""How many conditions one request can meet natively; equal neighbours count once.

The connection manager has a slot for each, whether it is used or not (see DECISIONS.md).
"""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition as written, understood."""

    text: str
    expression: str  # Node as JSON

    @property
    def names(self) -> frozenset[str]:
        """What it speaks of."""
        return frozenset(idents(json.loads(self.expression)))

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
        return any(BODIES.get(name) == direction for name in self.names)

    def in_envoys_words(self) -> bool:
        """Whether it uses names that only Envoy knows."""
        return any(name in OWN for name in self.names)

    def gate(self, phase: Phase | None, *, on_error: bool) -> Gate | bool:
        """When it holds: in `phase` (None: whichever), or always, or never. Raises NotNative."""
        node = expressions.folded(native(json.loads(self.expression), phase))
        constant = expressions.truth(node)
        if constant is False or (constant and phase != "response"):
            return constant
        if phase == "response":  # nothing of the policy may run before
            node = answered() if constant else both(answered(), node)
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
            own = sorted(name for name in condition.names if name in OWN)
            raise ValueError(
                f"{reason}, and the engine does not know {own[0]}: use the names of the contract"
            ) from None
    return condition


def published(key: str, phase: Phase, *, unless: bool) -> Gate:
    """Holds when the engine has published `key` as true; with `unless`, when it has not."""
    node = expressions.call("_==_", metadata([key]), expressions.boolean(True))
    if unless:
        node = expressions.call("!_", node)
    if phase == "response":
        node = both(answered(), node)
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
    return cel.NewEnv(variables=CONTRACT | OWN)


def _known_names(reason: str) -> str:
    unknown = re.search(r"undeclared reference to '(request|response|processing|source)\.", reason)
    if unknown is None:
        return ""
    return "; there is " + ", ".join(name for name in NAMES if name.startswith(f"{unknown[1]}."))


def _check_header_names(node: Node) -> None:
    for part in expressions.nodes(node):
        key = header_key(part)
        if key is not None and key != key.lower():
            raise ValueError(f"header names are lower-case in conditions: {key.lower()!r}")
