"""Counters in this process: bounded, and gone with it."""

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

from ratelimiter.counters import Counted, Part, Rule, Take
from ratelimiter.counting import Counter, counter, decide
from ratelimiter.ports import Decided, Due


def _wall_clock_us() -> int:
    return time.time_ns() // 1_000


class MemoryStore:
    """At most `entries_max` counters; the one that was not used for longest goes first."""

    splits = False

    def __init__(
        self, entries_max: int = 10_000, now_us: Callable[[], int] = _wall_clock_us
    ) -> None:
        self._entries_max = entries_max
        self._now_us = now_us
        self._counters: OrderedDict[bytes, tuple[Counter, Rule]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counters)

    def place(self, tag: int) -> Hashable:  # noqa: ARG002
        """Here."""
        return ""

    async def decide(self, place: Hashable, parts: Sequence[Part]) -> Decided:  # noqa: ARG002
        """At once."""
        now_us = self._now_us()
        return Decided(
            now_us,
            tuple(
                tuple(
                    standing
                    for group in part.groups
                    for standing in decide([(take, self._of(take)) for take in group], now_us)
                )
                for part in parts
            ),
        )

    async def merge(self, place: Hashable, dues: Sequence[Due]) -> None:  # noqa: ARG002
        """Nothing is ever counted elsewhere, but who asks is served."""
        now_us = self._now_us()
        for due in dues:
            state = self._counter(due.key, due.rule)
            state.refresh(due.rule, now_us, 1)
            missing = state.worth(due.rule, due.floor, now_us) - state.used
            if missing > 0:
                state.merge(due.rule, Counted(due.floor.at_us, missing), now_us)
            for counted in due.counted:
                state.merge(due.rule, counted, now_us)

    async def probe(self, place: Hashable) -> int:  # noqa: ARG002
        """Always there."""
        return self._now_us()

    async def aclose(self) -> None:
        """Forget all."""
        self._counters.clear()

    def tidy(self) -> int:
        """Drop counters that have nothing left to remember; how many."""
        now_us = self._now_us()
        over = []
        for key, (state, rule) in self._counters.items():
            state.refresh(rule, now_us, 1)
            if state.used <= 0:
                over.append(key)
        for key in over:
            del self._counters[key]
        return len(over)

    def _of(self, take: Take) -> Counter:
        return self._counter(take.key, take.rule)

    def _counter(self, key: bytes, rule: Rule) -> Counter:
        found = self._counters.get(key)
        if found is None:
            found = self._counters[key] = (counter(rule), rule)
            if len(self._counters) > self._entries_max:
                self._counters.popitem(last=False)
        else:
            self._counters.move_to_end(key)
        return found[0]
