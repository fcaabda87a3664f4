"""The places of a store: what waits for each, and which of them are away."""

import asyncio
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from ratelimiter.counters import TAGS, Standing
from ratelimiter.ports import CounterStore
from ratelimiter.reading import Question


class Ticket:
    """A call that waits for the store."""

    __slots__ = ("missing", "promise", "question", "standings")

    def __init__(self, question: Question, promise: "asyncio.Future[bytes] | None") -> None:
        self.question = question
        self.promise = promise  # None: nobody waits
        self.missing = len(question.parts)
        self.standings: list[Standing | None] = [None] * len(question.takes)


Entry = tuple[Ticket, int]  # and which of its parts


@dataclass(slots=True)
class Away:
    """Since when and why a place is away."""

    reason: str
    cause: str
    since: float  # Unix time
    started_s: float  # monotonic
    told: bool = False


@dataclass(slots=True)
class Lane:
    """What goes to one place of the store."""

    name: Hashable
    pending: list[Entry] = field(default_factory=list)
    in_flight: int = 0
    away: Away | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """What operators are told."""

    state: str  # "ok" or "degraded"
    reason: str = ""
    since: float = 0.0  # Unix time; 0 while all is well
    places_away: int = 0


class Lanes:
    """One lane for each place that was needed so far."""

    def __init__(self, store: CounterStore) -> None:
        self._store = store
        self._lanes: dict[Hashable, Lane] = {}

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def of(self, tag: int) -> Lane:
        """Where parts of `tag` go now."""
        place = self._store.place(tag)
        lane = self._lanes.get(place)
        if lane is None:
            lane = self._lanes[place] = Lane(place)
        return lane

    def is_there(self, tag: int) -> bool:
        """Whether the place of `tag` is not known to be away."""
        lane = self._lanes.get(self._store.place(tag))
        return lane is None or lane.away is None

    def is_deserted(self, lane: Lane) -> bool:
        """Whether all its counters are elsewhere now."""
        return all(self._store.place(tag) != lane.name for tag in range(TAGS))

    def forget(self, lane: Lane) -> None:
        """Nothing goes there any more."""
        del self._lanes[lane.name]

    @property
    def health(self) -> Health:
        """Whether limits are shared, and if not, why."""
        away = [lane.away for lane in self if lane.away is not None]
        if not away:
            return Health("ok")
        first = min(away, key=lambda one: one.since)
        return Health("degraded", first.reason, first.since, len(away))
