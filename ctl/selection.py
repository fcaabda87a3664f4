"""Label selectors: `tier=gold,env!=test,team,!legacy`; all terms must hold."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ctl.errors import Misused

APPLIED_SET = "signalbox.io/applied-set"
"""The annotation by which `apply --applied-set NAME --prune` knows what it once applied itself."""


@dataclass(frozen=True, slots=True)
class Term:
    """One condition on one label."""

    key: str
    value: str | None  # None: only whether the label is there
    negated: bool = False

    def holds(self, labels: Mapping[str, str]) -> bool:
        """Whether `labels` meet the condition; a missing label meets every `!=`."""
        met = self.key in labels if self.value is None else labels.get(self.key) == self.value
        return met != self.negated


def parse(text: str) -> tuple[Term, ...]:
    """The terms of a selector. Raises Misused."""
    return tuple(_term(part.strip()) for part in text.split(","))


def _term(text: str) -> Term:
    if "!=" in text:
        key, value = text.split("!=", 1)
        term = Term(key.strip(), value.strip(), negated=True)
    elif "=" in text:
        key, value = text.replace("==", "=", 1).split("=", 1)
        term = Term(key.strip(), value.strip())
    else:
        term = Term(text.removeprefix("!").strip(), None, negated=text.startswith("!"))
    if not term.key or any(mark in term.key for mark in " !="):
        raise Misused(f"{text!r} is not a label selector; write key=value, key!=value, key or !key")
    return term


def labels(resource: Mapping[str, Any]) -> dict[str, str]:
    """A resource's labels."""
    return resource.get("metadata", {}).get("labels") or {}


def selected(resource: Mapping[str, Any], terms: tuple[Term, ...]) -> bool:
    """Whether a resource meets all `terms`."""
    return all(term.holds(labels(resource)) for term in terms)


def applied_set(resource: Mapping[str, Any]) -> str | None:
    """The set a resource was applied with."""
    return (resource.get("metadata", {}).get("annotations") or {}).get(APPLIED_SET)
