"""Which hops routers may ask for: those of every API as it is, and as it was.

A router takes a change later than the engine, and keeps the last good revision when it refuses
one: therefore hops that were replaced stay known until routers serve what came after them.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from policy_engine.hop import Hop
from policy_engine.policy import Document

_FORMER_MAX: Final = 8  # revisions of an API that had other hops than now

Hops = dict[str, Document]


@dataclass(slots=True)
class _Shape:
    """The hops of an API over one or more revisions, `revision` being the last of them."""

    names: frozenset[str]
    revision: int


@dataclass(slots=True)
class _Known:
    now: _Shape = field(default_factory=lambda: _Shape(frozenset(), 0))
    former: list[_Shape] = field(default_factory=list)  # oldest first
    served: int | None = None  # the oldest revision that a router serves, as far as is known

    def names(self) -> set[str]:
        return set(self.now.names).union(*(one.names for one in self.former))

    def tidy(self) -> None:
        """Without what no router serves any more; what the slowest serves stays longest."""
        if self.served is not None:
            oldest = self.served
            self.former = [one for one in self.former if one.revision >= oldest]
        while len(self.former) > _FORMER_MAX:
            del self.former[0 if self.served is None else 1]


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

    def put(self, api_id: str, hops: Iterable[Hop], revision: int | None = None) -> Change:
        """The API has these hops now; without `revision`: at the revision it had before."""
        fresh = {hop.name: hop for hop in hops}
        known = self._apis.get(api_id)
        if known is None:
            if not fresh:
                return Change()
            known = self._apis[api_id] = _Known()
        shape = _Shape(frozenset(fresh), known.now.revision if revision is None else revision)
        before = known.names()
        if known.served is not None and shape.revision < known.served:
            known.served = None  # revisions are counted from the beginning again
        if known.now.names and shape.names != known.now.names:
            known.former.append(known.now)
        known.now = shape
        known.tidy()
        added = {name: fresh[name].document() for name in fresh if name not in self.hops}
        self.hops |= added
        return Change(added, self._dropped(before - known.names()))

    def served(self, api_id: str, revision: int) -> Change:
        """No router serves the API at a revision before this one."""
        known = self._apis.get(api_id)
        if known is None:
            return Change()
        before = known.names()
        known.served = revision
        known.tidy()
        return Change(gone=self._dropped(before - known.names()))

    def remove(self, api_id: str) -> Change:
        """No router has the API any more."""
        known = self._apis.pop(api_id, None)
        return Change() if known is None else Change(gone=self._dropped(known.names()))

    def of(self, api_id: str) -> frozenset[str]:
        """The hops of the API as it is now."""
        known = self._apis.get(api_id)
        return known.now.names if known is not None else frozenset()

    def apis(self) -> Iterator[str]:
        """The APIs that have hops, or had them lately."""
        return iter(tuple(self._apis))

    def document(self) -> Document:
        """All of it, JSON-shaped; `recall` reads it."""

        def told(shape: _Shape) -> Document:
            return {"revision": shape.revision, "hops": sorted(shape.names)}

        apis = {
            api_id: {
                "now": told(known.now),
                "former": [told(one) for one in known.former],
                "served": known.served,
            }
            for api_id, known in self._apis.items()
        }
        return {"hops": self.hops, "apis": apis}

    def recall(self, document: Document) -> None:
        """What an earlier process knew, into an empty book. Raises ValueError, and takes nothing.

        What was known of an API without one of its hops is left out.
        """
        try:
            hops = dict(document["hops"])
            apis = {name: _known(one, hops) for name, one in document.get("apis", {}).items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a book of hops: {error!r}") from error
        self._apis = apis
        needed = {name for known in apis.values() for name in known.names()}
        self.hops = {name: hop for name, hop in hops.items() if name in needed}

    def _dropped(self, names: set[str]) -> tuple[str, ...]:
        """Those of `names` that no API has; hops are of one API each, by their place."""
        return tuple(name for name in names if self.hops.pop(name, None) is not None)


def _known(told: Document, hops: Mapping[str, Any]) -> _Known:
    def shape(one: Document) -> _Shape:
        return _Shape(frozenset(one["hops"]) & hops.keys(), int(one["revision"]))

    served = told["served"]
    former = [shape(one) for one in told["former"]]
    return _Known(shape(told["now"]), former, None if served is None else int(served))
