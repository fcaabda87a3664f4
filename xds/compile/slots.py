"""The places in the connection manager where filters of a route run, in order.

Envoy has `chain0, cond0, chain1, cond1, ...`, all switched off: a route switches on what it needs.
Filters without a condition share a chain slot with their neighbours; those with one, a condition
slot. The API's level fills from the front, an operation's goes on behind it.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from policy_engine.conditions import gates
from policy_engine.conditions.gates import CONDITIONS_MAX
from policy_engine.policy import Gate, HttpFilter, typed

Document = dict[str, Any]

_PAIRS = CONDITIONS_MAX + 4
"""Enough for every condition, whichever the level: each level begins a pair of its own, as does
what finds a route again, and what stands before a preflight's policy."""

_FILTERS = "envoy.extensions.filters.http"
_MATCHING = "envoy.extensions.common.matching.v3"
_OFF = typed("envoy.config.route.v3.FilterConfig", {"disabled": True})
_SKIP: Document = {
    "action": {
        "name": "skip",
        "typed_config": typed("envoy.extensions.filters.common.matcher.action.v3.SkipFilter"),
    }
}


def slot_names() -> tuple[str, ...]:
    """All of them, in order."""
    return tuple(f"{kind}{pair}" for pair in range(_PAIRS) for kind in ("chain", "cond"))


def slots() -> list[Document]:
    """The HTTP filters of the connection manager that are slots, all switched off."""
    chain = typed(f"{_FILTERS}.filter_chain.v3.FilterChainConfig")
    composite = {
        "name": "composite",
        "typed_config": typed(f"{_FILTERS}.composite.v3.Composite"),
    }
    condition = typed(f"{_MATCHING}.ExtensionWithMatcher", {"extension_config": composite})
    return [
        {"name": name, "disabled": True, "typed_config": chain if "chain" in name else condition}
        for name in slot_names()
    ]


class Layout:
    """Filters in slots, from slot number `start` on.

    Raises ValueError when there are more conditions than slots.
    """

    def __init__(self, filters: Iterable[HttpFilter], start: int = 0) -> None:
        self._start = start
        self._groups = tuple(_groups(filters))
        self._slots = tuple(_numbered(self._groups, start))
        self.end = self._slots[-1] + 1 if self._slots else start
        """The number of the first slot behind."""
        conditions = sum(gate is not None for gate, _ in self._groups)
        if conditions > CONDITIONS_MAX or self.end > 2 * _PAIRS:
            raise ValueError(
                f"a request can meet {CONDITIONS_MAX} executionConditions at most, "
                f"here are {conditions}"
            )

    @property
    def config(self) -> dict[str, Document]:
        """The entries of `typed_per_filter_config`."""
        names = slot_names()
        entries: dict[str, Document] = {}
        for (gate, members), slot in zip(self._groups, self._slots, strict=True):
            chain = {"filters": [{"name": one.name, "typed_config": one.config} for one in members]}
            if gate is None:
                message = f"{_FILTERS}.filter_chain.v3.FilterChainConfigPerRoute"
                entries[names[slot]] = typed(message, {"filter_chain": chain})
            else:
                entries[names[slot]] = _conditional(gate, members)
        return entries | {
            one.name: one.per_route
            for _, members in self._groups
            for one in members
            if one.per_route is not None
        }

    def only(
        self, filters: Sequence[HttpFilter], behind: tuple[HttpFilter, ...] = ()
    ) -> dict[str, Document]:
        """Entries for a route that has of these slots only `filters`, and `behind` after them.

        Slots that hold nothing else stay as long as none before them is switched off; what shares a
        slot with filters that must not run, or stands behind one, goes behind all of them.
        """
        wanted = {one.name for one in filters}
        off: dict[str, Document] = {}
        rest: tuple[HttpFilter, ...] = ()
        for (_, members), slot in zip(self._groups, self._slots, strict=True):
            kept = tuple(one for one in members if one.name in wanted)
            if kept == members and not rest:
                continue
            rest += kept
            off[slot_names()[slot]] = _OFF
        return off | Layout((*rest, *behind), self.end).config


def _groups(filters: Iterable[HttpFilter]) -> Iterator[tuple[Gate | None, tuple[HttpFilter, ...]]]:
    for gate, members in groupby(filters, lambda one: one.when):
        yield gate, tuple(members)


def _numbered(
    groups: Iterable[tuple[Gate | None, tuple[HttpFilter, ...]]], start: int
) -> Iterator[int]:
    """Even numbers are chains, odd ones conditions."""
    slot = start
    for gate, _ in groups:
        if slot % 2 != (gate is not None):
            slot += 1
        yield slot
        slot += 1


def _conditional(gate: Gate, members: Sequence[HttpFilter]) -> Document:
    """Envoy asks when a request (or its answer) comes to the slot."""
    filters = [{"name": one.name, "typed_config": one.config} for one in members]
    if len(filters) == 1:
        what: Document = {"typed_config": filters[0]}
    else:
        what = {"filter_chain": {"typed_config": filters}}
    run: Document = {
        "action": {
            "name": "run",
            "typed_config": typed(f"{_FILTERS}.composite.v3.ExecuteFilterAction", what),
        }
    }
    matcher: Document = {"predicate": gates.predicate(gate), "on_match": run}
    if gate.on_error:  # asked whether it does not hold: what cannot be decided runs
        matcher["on_match"] = _SKIP
    tree: Document = {"matcher_list": {"matchers": [matcher]}}
    if gate.on_error:
        tree["on_no_match"] = run
    return typed(f"{_MATCHING}.ExtensionWithMatcherPerRoute", {"xds_matcher": tree})
