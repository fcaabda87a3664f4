"""What the rate limiter asks of others: a store of counters, its peers, somebody to tell."""

from collections.abc import Hashable, Sequence
from typing import NamedTuple, Protocol

from ratelimiter.counters import Counted, Part, Rule, Standing, tag_of
from ratelimiter.reading import Question


class Due(NamedTuple):
    """What the store is to be told of one counter when it is back."""

    key: bytes
    rule: Rule
    floor: Counted  # what it had counted before it was away, lest it was lost
    counted: tuple[Counted, ...]

    @property
    def tag(self) -> int:
        """The hash tag of the key."""
        return tag_of(self.key)


class Decided(NamedTuple):
    """The store's answer to some parts."""

    now_us: int  # by the store's clock, Unix time
    standings: tuple[tuple[Standing, ...] | None, ...]
    """For each part, one for each take; None where the store has not done it, for now."""


class CounterStore(Protocol):
    """Counters that limiters share. Contract: tests/ratelimiter/test_stores.py.

    A store consists of places that can be lost one by one, such as the nodes of a cluster.
    """

    splits: bool
    """Whether keys of different tags may be at different places, and need parts of their own."""

    def place(self, tag: int) -> Hashable:
        """Where the counters of `tag` are, as far as is known."""
        ...

    async def decide(self, place: Hashable, parts: Sequence[Part]) -> Decided:
        """Decide in order, each group at one moment. Raises StoreAway: nothing, or unknown."""
        ...

    async def merge(self, place: Hashable, dues: Sequence[Due]) -> None:
        """Add what was counted elsewhere, up to each limit. Raises StoreAway."""
        ...

    async def probe(self, place: Hashable) -> int:
        """Whether `place` takes writes; what its clock says, in us. Raises StoreAway.

        A probe also looks where the counters are now.
        """
        ...

    async def aclose(self) -> None:
        """Give connections back."""
        ...


class Peers(Protocol):
    """How many rate limiters share the load."""

    @property
    def live(self) -> int:
        """This one included, at least 1."""
        ...


class Watcher(Protocol):
    """Learns what happens to limits and to the store, never at the expense of a call."""

    def near(self, question: Question, standings: tuple[Standing, ...], now_us: int) -> None:
        """At least one limit of the call is used by 80 % or more."""
        ...

    def degraded(self, place: str, reason: str, cause: str) -> None:
        """A place of the store has been away for a while."""
        ...

    def recovered(self, place: str, away_s: float, merged: int) -> None:
        """It is back, and knows what was counted without it."""
        ...
