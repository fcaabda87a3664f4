"""The three algorithms in Python, as `stores/counters.lua` has them: pure, times are arguments.

Hits of a window are forgotten at its end; those of a sliding window when the slice (a 16th) after
them has left it; those of GCRA at the rule's rate.
"""

import math
from collections.abc import Iterable

from policy_engine.rate_limits.limits import Hits
from ratelimiter.counters import REFUND, SLICES, Counted, Rule, Standing, Take


class Counter:
    """One counter in memory. `share` divides its limit: so many others count the same key."""

    __slots__ = ("used",)

    def __init__(self) -> None:
        self.used: float = 0.0

    def refresh(self, rule: Rule, now_us: int, share: int) -> None:
        """Forget what is over by `now_us`."""
        raise NotImplementedError

    def add(self, hits: float) -> None:
        """Count `hits` as of the last `refresh`."""
        self.used += hits

    def give_back(self, hits: float) -> None:
        """Uncount the last `hits`."""
        self.used = max(0.0, self.used - hits)

    def reset_us(self, rule: Rule, now_us: int, share: int) -> int:
        """Time until all is forgotten."""
        raise NotImplementedError

    def wait_us(self, over: float, rule: Rule, now_us: int, share: int) -> int:
        """Time until `over` hits are forgotten, at least 1."""
        raise NotImplementedError

    def merge(self, rule: Rule, counted: Counted, now_us: int) -> None:
        """Count what was counted elsewhere, as far as it matters and fits."""
        raise NotImplementedError

    def worth(self, rule: Rule, counted: Counted, now_us: int) -> float:
        """What is left by `now_us` of hits that were counted elsewhere."""
        raise NotImplementedError


class Window(Counter):
    """A fixed window, or a period of the calendar."""

    __slots__ = ("end_us",)

    def __init__(self) -> None:
        super().__init__()
        self.end_us = 0

    def refresh(self, rule: Rule, now_us: int, share: int) -> None:  # noqa: ARG002
        """A new window begins with nothing."""
        if now_us >= self.end_us:
            self.end_us, self.used = rule.limit.window_end_us(now_us), 0.0

    def reset_us(self, rule: Rule, now_us: int, share: int) -> int:  # noqa: ARG002
        """To the end of the window."""
        return self.end_us - now_us

    def wait_us(self, over: float, rule: Rule, now_us: int, share: int) -> int:  # noqa: ARG002
        """To the end of the window."""
        return self.end_us - now_us

    def merge(self, rule: Rule, counted: Counted, now_us: int) -> None:
        """Only hits of this very window."""
        self.used += max(0.0, min(self.worth(rule, counted, now_us), rule.hits - self.used))

    def worth(self, rule: Rule, counted: Counted, now_us: int) -> float:  # noqa: ARG002
        """All of it in the same window, nothing in another."""
        return counted.hits if counted.at_us == self.end_us else 0.0


class Sliding(Counter):
    """Hits by slice, oldest first."""

    __slots__ = ("slice", "slices")

    def __init__(self) -> None:
        super().__init__()
        self.slices: dict[int, float] = {}
        self.slice = 0

    def refresh(self, rule: Rule, now_us: int, share: int) -> None:  # noqa: ARG002
        """Forget slices that have left the window."""
        self.slice = now_us * SLICES // rule.period_us
        while self.slices:
            oldest = next(iter(self.slices))
            if oldest >= self.slice - SLICES:
                break
            self.used -= self.slices.pop(oldest)

    def add(self, hits: float) -> None:
        """Count in the slice of the last `refresh`."""
        self.used += hits
        self.slices[self.slice] = self.slices.get(self.slice, 0.0) + hits

    def give_back(self, hits: float) -> None:
        """Uncount the newest."""
        for index in reversed(tuple(self.slices)):
            less = min(hits, self.slices[index])
            self.slices[index] -= less
            self.used -= less
            hits -= less
            if not self.slices[index]:
                del self.slices[index]

    def reset_us(self, rule: Rule, now_us: int, share: int) -> int:  # noqa: ARG002
        """Until the newest slice has left."""
        if not self.slices:
            return 0
        return _leaves_us(next(reversed(self.slices)), rule) - now_us

    def wait_us(self, over: float, rule: Rule, now_us: int, share: int) -> int:
        """Until enough of the oldest slices have left."""
        for index, hits in self.slices.items():
            over -= hits
            if over <= 0:
                return _leaves_us(index, rule) - now_us
        return max(1, self.reset_us(rule, now_us, share))

    def merge(self, rule: Rule, counted: Counted, now_us: int) -> None:
        """In the slice of its moment."""
        hits = min(self.worth(rule, counted, now_us), rule.hits - self.used)
        if hits > 0:
            index = counted.at_us * SLICES // rule.period_us
            self.used += hits
            self.slices[index] = self.slices.get(index, 0.0) + hits
            self.slices = dict(sorted(self.slices.items()))

    def worth(self, rule: Rule, counted: Counted, now_us: int) -> float:
        """All of it within the period."""
        return counted.hits if counted.at_us > now_us - rule.period_us else 0.0


class Bucket(Counter):
    """GCRA as a bucket: hits flow out at the rule's rate."""

    __slots__ = ("at_us",)

    def __init__(self) -> None:
        super().__init__()
        self.at_us = 0

    def refresh(self, rule: Rule, now_us: int, share: int) -> None:
        """Let flow out what has had its time."""
        flowed = max(0, now_us - self.at_us) * rule.limit.limit / rule.period_us / share
        self.used = max(0.0, self.used - flowed)
        self.at_us = max(now_us, self.at_us)

    def reset_us(self, rule: Rule, now_us: int, share: int) -> int:  # noqa: ARG002
        """Until the bucket is empty."""
        return math.ceil(self.used * share * rule.period_us / rule.limit.limit)

    def wait_us(self, over: float, rule: Rule, now_us: int, share: int) -> int:  # noqa: ARG002
        """Until `over` hits have flown out."""
        return max(1, math.ceil(over * share * rule.period_us / rule.limit.limit))

    def merge(self, rule: Rule, counted: Counted, now_us: int) -> None:  # noqa: ARG002
        """What is in the other bucket goes into this one."""
        self.used += max(0.0, min(counted.hits, rule.hits - self.used))

    def worth(self, rule: Rule, counted: Counted, now_us: int) -> float:
        """What has not flown out since."""
        flowed = max(0, now_us - counted.at_us) * rule.limit.limit / rule.period_us
        return max(0.0, counted.hits - flowed)


def counter(rule: Rule) -> Counter:
    """An empty counter for `rule`."""
    match rule.code:
        case "s":
            return Sliding()
        case "g":
            return Bucket()
        case _:
            return Window()


def share_of(rule: Rule, share: int) -> int:
    """What one of `share` limiters may let through from empty: at least one hit."""
    return max(1, rule.hits // share)


def decide(
    takes: Iterable[tuple[Take, Counter]], now_us: int, share: int = 1
) -> tuple[Standing, ...]:
    """Take all, or none; the counters are refreshed and changed in place."""
    retries: list[int] = []
    taken: list[tuple[Counter, float]] = []
    all_takes = tuple(takes)
    refused = False
    for take, state in all_takes:
        rule, limit = take.rule, share_of(take.rule, share)
        state.refresh(rule, now_us, share)
        retry_us = 0
        match take.mode:
            case Hits.CONSUME | Hits.CHECK:
                asked = take.hits if take.mode == Hits.CONSUME else 1
                over = state.used + asked - limit
                if asked > 0 and over > _slack(rule, limit):
                    retry_us = state.wait_us(over, rule, now_us, share)
                    refused = True
                elif take.mode == Hits.CONSUME and asked > 0:
                    state.add(asked)
                    taken.append((state, asked))
            case Hits.CHARGE:
                state.add(max(0.0, min(take.hits, limit - state.used)))
            case _:
                assert take.mode == REFUND
                state.give_back(take.hits)
        retries.append(retry_us)
    if refused:
        for state, hits in reversed(taken):
            state.give_back(hits)
    return tuple(
        Standing(
            _left(take.rule, share_of(take.rule, share), state.used),
            max(0, state.reset_us(take.rule, now_us, share)),
            retry_us,
        )
        for (take, state), retry_us in zip(all_takes, retries, strict=True)
    )


def _slack(rule: Rule, limit: int) -> float:
    """Of a hit: what adding fractions of hits may be off; windows have whole ones."""
    return min(1e-6, limit * 1e-10) if rule.code == "g" else 0.0


def _left(rule: Rule, limit: int, used: float) -> int:
    return max(0, math.floor(limit - used + _slack(rule, limit)))


def _leaves_us(index: int, rule: Rule) -> int:
    return (index + SLICES + 1) * (rule.period_us // SLICES)
