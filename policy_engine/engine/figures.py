"""What a worker counts: plain numbers, cheap enough for every request."""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any, Final

BUCKETS_S: Final = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
"""Upper bounds of the histograms of durations, seconds."""

_PLAIN: Final = (
    "requests",
    "request_errors",
    "body_bytes",
    "lookup_failures",
)


class Durations:
    """A histogram of durations."""

    __slots__ = ("buckets", "count", "total_s")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.count = 0
        self.total_s = 0.0

    def add(self, took_s: float) -> None:
        """One more."""
        self.count += 1
        self.total_s += took_s
        self.buckets[bisect_left(BUCKETS_S, took_s)] += 1


@dataclass(slots=True, eq=False)
class PolicyFigures:
    """Of one policy in one phase, over all hops."""

    durations: Durations = field(default_factory=Durations)
    skipped: int = 0  # its condition did not hold
    answered: int = 0  # it answered itself
    would_have: int = 0  # it would have, but is in shadow mode
    errors: dict[str, int] = field(default_factory=dict)  # by kind of failure


@dataclass(slots=True, eq=False)
class Figures:
    """All figures of one worker."""

    requests: int = 0
    request_errors: int = 0  # requests that a failed policy, or an unknown hop, has refused
    body_bytes: int = 0
    lookup_failures: int = 0
    requests_s: Durations = field(default_factory=Durations)  # of each message of a router
    contexts_s: Durations = field(default_factory=Durations)  # what policies see of a request
    policies: dict[tuple[str, str], PolicyFigures] = field(default_factory=dict)

    def of(self, policy: str, phase: str) -> PolicyFigures:
        """Those of `policy` in `phase`."""
        return self.policies.setdefault((policy, phase), PolicyFigures())

    def document(self) -> dict[str, Any]:
        """All of it since the worker started, JSON-shaped."""
        return {
            **{name: getattr(self, name) for name in _PLAIN},
            "requests_s": _told(self.requests_s),
            "contexts_s": _told(self.contexts_s),
            "policies": [
                {
                    "policy": policy,
                    "phase": phase,
                    "durations": _told(one.durations),
                    "skipped": one.skipped,
                    "answered": one.answered,
                    "would_have": one.would_have,
                    "errors": one.errors,
                }
                for (policy, phase), one in self.policies.items()
            ],
        }


def _told(durations: Durations) -> dict[str, Any]:
    return {
        "buckets": durations.buckets,
        "count": durations.count,
        "total_s": round(durations.total_s, 6),
    }
