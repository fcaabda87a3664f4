"""How far one router is behind what was published, resource by resource.

A cluster may go when no scope of the router is behind the publication that removed it. Publications
replace one another before they are sent, so "behind" counts from the first that the router lacks.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


class Lag:
    """One router, one type. Sequences are those of publications."""

    def __init__(self) -> None:
        self._since: dict[str, int] = {}  # name -> the first publication the router has not got
        self._since_sent: dict[str, int] = {}  # the same, not counting what is in flight
        self._in_flight: dict[str, int] = {}  # name -> responses with it that wait for an answer

    def publish(self, name: str, sequence: int) -> None:
        """The router is to get `name`, of publication `sequence`."""
        self._since[name] = min(sequence, self._since.get(name, sequence))
        if name in self._in_flight:
            self._since_sent[name] = min(sequence, self._since_sent.get(name, sequence))

    def forget(self, name: str) -> None:
        """The router need not get it, or has it."""
        self._since.pop(name, None)
        self._since_sent.pop(name, None)

    def send(self, names: Iterable[str]) -> None:
        """Their newest versions are on their way."""
        for name in names:
            self._in_flight[name] = self._in_flight.get(name, 0) + 1
            self._since_sent.pop(name, None)

    def answer(self, names: Iterable[str]) -> None:
        """A response with them was answered, one way or the other."""
        for name in names:
            self._in_flight[name] -= 1
            if not self._in_flight[name]:
                del self._in_flight[name]

    def settle(self, name: str) -> None:
        """The router has what it was sent, or keeps what it had: only what came later counts."""
        if name in self._in_flight:
            return
        later = self._since_sent.pop(name, None)
        if later is not None:
            self._since[name] = later
        else:
            self._since.pop(name, None)

    def is_in_flight(self, name: str) -> bool:
        """Whether a response with `name` waits for an answer."""
        return name in self._in_flight

    def __iter__(self) -> Iterator[tuple[str, int]]:
        """What the router lacks, with the first publication of it."""
        return iter(self._since.items())


@dataclass(slots=True)
class Routed:
    """What a router may still use though that was undone by some publication."""

    since: dict[str | None, int]  # cluster, or None for any, -> that publication

    def use(self, cluster: str | None, since: int) -> None:
        """`cluster` may be in use, though not as from publication `since`."""
        self.since[cluster] = min(since, self.since.get(cluster, since))

    def may_use(self, cluster: str, sequence: int) -> bool:
        """Whether `cluster`, which went with publication `sequence`, may still be in use."""
        return any(self.since.get(each, sequence + 1) <= sequence for each in (cluster, None))
