"""Counters: what is counted for one limit of one key, and what a call asks of them.

Names in the store: `<prefix>{<tag>}<digest>:<limit>`, for example

    ratelimit:v1:{3f}9c01d3a54be2f00d1122ab:f100/60000000

where tag and digest are the first 2 and the other 22 hex digits of BLAKE2b (96 bits) over domain,
bucket, and the keys and values of the descriptor's further entries; nobody can read a client's
address or credential from them. The limit is `f` (fixed window), `s` (sliding window) or `g`
(GCRA), then hits and microseconds, with `+<burst>` or a calendar period and its zone, so that a
limit that changes begins a new counter. The tag is a hash tag of Redis Cluster: all limits of a
quota are on one node.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

from policy_engine.rate_limits.limits import Algorithm, Hits, Limit, Quota, WhenAway

REFUND = "refund"
"""Beside `Hits`: give hits back that a refused call had taken elsewhere."""

_CODES = {
    Algorithm.FIXED_WINDOW: "f",
    Algorithm.SLIDING_WINDOW: "s",
    Algorithm.GCRA: "g",
}
_MODES = {Hits.CONSUME: b"n", Hits.CHECK: b"c", Hits.CHARGE: b"a", REFUND: b"r"}
_DIGEST_BYTES = 12
TAGS = 256
SLICES = 16  # of a sliding window


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit as the store needs it. Equal rules of equal keys are the same counter."""

    algorithm: Algorithm
    limit: Limit
    name: str = field(init=False)  # what ends the counter's name
    code: str = field(init=False)  # f, s, g
    hits: int = field(init=False)  # that fit from empty
    period_us: int = field(init=False)  # 0: the calendar's

    def __post_init__(self) -> None:
        limit = self.limit
        code = _CODES[self.algorithm]
        period_us = 0 if limit.calendar is not None else round(limit.duration_s * 1e6)
        if self.algorithm is Algorithm.SLIDING_WINDOW:
            period_us = max(SLICES, period_us // SLICES * SLICES)
        gcra = self.algorithm is Algorithm.GCRA
        window = (
            f"{limit.calendar}@{limit.time_zone}" if limit.calendar is not None else str(period_us)
        )
        burst = f"+{limit.capacity}" if gcra else ""
        for name, value in (
            ("name", f"{code}{limit.limit}/{window}{burst}"),
            ("code", code),
            ("hits", limit.capacity if gcra else limit.limit),
            ("period_us", period_us),
        ):
            object.__setattr__(self, name, value)

    def arguments(self, now_us: int) -> tuple[bytes, bytes, bytes, bytes]:
        """Code, hits, and two numbers: period and rate, or the calendar's next two ends."""
        if self.period_us:
            rate = self.limit.limit if self.code == "g" else 0
            return (
                self.code.encode(),
                b"%d" % self.hits,
                b"%d" % self.period_us,
                b"%d" % rate,
            )
        end_us = self.limit.window_end_us(now_us)
        return b"d", b"%d" % self.hits, b"%d" % end_us, b"%d" % self.limit.window_end_us(end_us)


def rules(quota: Quota) -> tuple[Rule, ...]:
    """The rules of a quota, without repetitions, in the order of its limits."""
    made = (Rule(quota.algorithm, limit) for limit in quota.limits)
    return tuple({rule.name: rule for rule in made}.values())


class Take(NamedTuple):
    """What a call asks of one counter."""

    key: bytes
    rule: Rule
    mode: str  # of `Hits`, or REFUND
    hits: int
    when_away: WhenAway = WhenAway.LOCAL

    @property
    def tag(self) -> int:
        """The hash tag of the key, 0 to 255."""
        return tag_of(self.key)


class Standing(NamedTuple):
    """How a counter stands after a call; times are from then on."""

    remaining: int  # hits that would still pass, never negative
    reset_us: int  # until all hits would pass again
    retry_us: int  # until what was asked would pass; 0: it did

    @property
    def refused(self) -> bool:
        """Whether this counter did not allow it."""
        return self.retry_us > 0


class Counted(NamedTuple):
    """Hits that were counted somewhere."""

    at_us: int  # end of the fixed window, or the moment, Unix time
    hits: float


Group = tuple[Take, ...]
"""All are taken, or none: any limit refuses the call. Those to be charged always are."""


@dataclass(frozen=True, slots=True)
class Part:
    """Groups that are decided in one step by one place of the store."""

    tag: int
    groups: tuple[Group, ...]
    keys: tuple[bytes, ...] = field(init=False)
    fixed: tuple[bytes, ...] | None = field(init=False)  # None: with the calendar

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys", tuple(take.key for one in self.groups for take in one))
        calendar = any(not take.rule.period_us for one in self.groups for take in one)
        object.__setattr__(self, "fixed", None if calendar else self._arguments(0))

    def arguments(self, now_us: int) -> tuple[bytes, ...]:
        """What the script is told: per group how many, and six words for each."""
        return self.fixed if self.fixed is not None else self._arguments(now_us)

    def _arguments(self, now_us: int) -> tuple[bytes, ...]:
        words: list[bytes] = []
        for group in self.groups:
            words.append(b"%d" % len(group))
            for take in group:
                words += (_MODES[take.mode], b"%d" % take.hits, *take.rule.arguments(now_us))
        return tuple(words)


def key_of(domain: str, bucket: str, parts: Sequence[tuple[str, str]]) -> str:
    """`{tag}digest` of what is counted: equal for equal domain, bucket and parts in this order."""
    text = "\0".join((domain, bucket, *(f"{len(key)} {key}={value}" for key, value in parts)))
    found = blake2b(text.encode(), digest_size=_DIGEST_BYTES).hexdigest()
    return f"{{{found[:2]}}}{found[2:]}"


def tag_of(key: bytes) -> int:
    """The hash tag of a counter's name, 0 to 255."""
    start = key.index(b"{") + 1
    return int(key[start : start + 2], 16)
