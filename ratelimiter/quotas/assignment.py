"""What a router is told of a bucket, and who tells it."""

from dataclasses import dataclass
from typing import Protocol

Entries = tuple[tuple[str, str], ...]
"""The id of a bucket, sorted by key."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A token bucket as Envoy knows it; none of `size`: all is refused."""

    size: int
    tokens: int = 1
    interval_s: int = 1
    anew: bool = False  # begins full; otherwise as full as the one before


class Router(Protocol):
    """One stream of a router. Neither call waits."""

    def assign(self, entries: Entries, made: Assignment) -> None:
        """Let so much pass, until told otherwise."""
        ...

    def abandon(self, entries: Entries) -> None:
        """Forget the bucket; tell when a request needs it."""
        ...
