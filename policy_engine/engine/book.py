"""Which hops routers may ask for: those of every API as it is, and as it was.

A router takes a change later than the engine, and keeps the last good revision when it refuses
one: therefore hops that were replaced stay known.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from policy_engine.hop import Hop
from policy_engine.policy import Document

_FORMER_MAX: Final = 8  # revisions of an API that had other hops than now

Hops = dict[str, Document]


@dataclass(slots=True)
class _Known:
    now: frozenset[str] = frozenset()
    former: deque[frozenset[str]] = field(default_factory=lambda: deque(maxlen=_FORMER_MAX))

    def names(self) -> set[str]:
        return set(self.now).union(*self.former)


@dataclass(frozen=True, slots=True)
class Change:
    """What workers need to be told."""

    hops: Mapping[str, Document] = field(default_factory=dict)
    gone: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.hops or self.gone)


class HopBook:
    """All hops, by API."""

    def __init__(self) -> None:
        self.hops: Hops = {}
        self._apis: dict[str, _Known] = {}
        self._current: set[str] = set()

    def put(self, api_id: str, hops: Iterable[Hop]) -> Change:
        """The API has these hops now."""
        fresh = {hop.name: hop for hop in hops}
        known = self._apis.get(api_id)
        if known is None:
            if not fresh:
                return Change()
            known = self._apis[api_id] = _Known()
        names = frozenset(fresh)
        if names == known.now:
            return Change()
        before = known.names()
        if known.now:
            known.former.append(known.now)
        known.now = names
        added = {name: fresh[name].document() for name in names if name not in self.hops}
        self.hops |= added
        return Change(added, self._dropped(before - known.names()))

    def remove(self, api_id: str) -> Change:
        """No router has the API any more."""
        known = self._apis.pop(api_id, None)
        return Change() if known is None else Change(gone=self._dropped(known.names()))

    def of(self, api_id: str) -> frozenset[str]:
        """The hops of the API as it is now."""
        known = self._apis.get(api_id)
        return known.now if known is not None else frozenset()

    def _dropped(self, names: set[str]) -> tuple[str, ...]:
        """Those of `names` that no API has; hops are of one API each, by their place."""
        return tuple(name for name in names if self.hops.pop(name, None) is not None)
