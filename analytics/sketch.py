"""Latency percentiles that can be added up: DDSketch with a sparse store.

Bucket i counts durations in (gamma^(i-1), gamma^i] microseconds, so any quantile is within 1 % of
the exact one, and the sketch of two sets is the sum of their sketches. The store is sparse because
most totals hold one minute of one operation: 5 to 60 buckets in 20 to 200 bytes, where a dense
store of the same range takes 4 KB. The number of buckets is bounded by the longest duration:
1,120 for an hour.

Source: Masson, Rim, Lee, "DDSketch: a fast and fully-mergeable quantile sketch", VLDB 2019.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil, exp, log
from typing import Self

from analytics.errors import MalformedSketch

RELATIVE_ACCURACY = 0.01
_LOG_GAMMA = log((1 + RELATIVE_ACCURACY) / (1 - RELATIVE_ACCURACY))
BUCKETS_PER_LN = 1 / _LOG_GAMMA
"""Bucket of a duration: `ceil(log(duration_us) * BUCKETS_PER_LN)`, 0 up to 1 microsecond."""
_FORMAT = 1  # first byte; another accuracy would be another format


def bucket_of(duration_us: int) -> int:
    """The bucket that counts `duration_us`."""
    return ceil(log(duration_us) * BUCKETS_PER_LN) if duration_us > 1 else 0


def middle_of(bucket: int) -> float:
    """The duration, µs, that stands for all of `bucket`: at most 1 % from each."""
    return 2 * exp(bucket * _LOG_GAMMA) / (1 + exp(_LOG_GAMMA))


@dataclass(slots=True)
class LatencySketch:
    """How often each duration occurred, to 1 %."""

    buckets: dict[int, int] = field(default_factory=dict)  # bucket -> how many

    @property
    def count(self) -> int:
        """How many durations went in."""
        return sum(self.buckets.values())

    def add(self, duration_us: int) -> None:
        """Count one duration."""
        bucket = bucket_of(duration_us)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1

    def merge(self, other: "LatencySketch") -> None:
        """Count all that `other` has counted."""
        mine = self.buckets
        for bucket, count in other.buckets.items():
            mine[bucket] = mine.get(bucket, 0) + count

    def quantiles_us(self, *wanted: float) -> tuple[float | None, ...]:
        """The durations below which these shares (0 to 1) lie; None when nothing was counted."""
        ordered = sorted(self.buckets.items())
        last = self.count - 1
        return tuple(_at_rank(ordered, share * last) for share in wanted)

    def to_bytes(self) -> bytes:
        """A format byte, then per bucket, ascending, two varints: step from the last, count."""
        out = bytearray((_FORMAT,))
        previous = 0
        for bucket, count in sorted(self.buckets.items()):
            for number in (bucket - previous, count):
                rest = number
                while rest > 0x7F:
                    out.append(rest & 0x7F | 0x80)
                    rest >>= 7
                out.append(rest)
            previous = bucket
        return bytes(out)

    @classmethod
    def from_bytes(cls, raw: bytes) -> Self:
        """The sketch that `to_bytes` wrote. Raises MalformedSketch."""
        if raw[:1] != bytes((_FORMAT,)):
            raise MalformedSketch(f"format {raw[:1].hex() or 'missing'}, expected {_FORMAT:02x}")
        numbers = list(_varints(raw[1:]))
        if len(numbers) % 2:
            raise MalformedSketch("a bucket without a count")
        buckets: dict[int, int] = {}
        bucket = 0
        for step, count in zip(numbers[::2], numbers[1::2], strict=True):
            bucket += step
            buckets[bucket] = count
        return cls(buckets)


def _at_rank(ordered: Iterable[tuple[int, int]], rank: float) -> float | None:
    seen, found = 0, None
    for bucket, count in ordered:
        seen, found = seen + count, middle_of(bucket)
        if seen > rank:
            break
    return found


def _varints(raw: bytes) -> Iterable[int]:
    number, shift = 0, 0
    for byte in raw:
        number |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
        else:
            yield number
            number, shift = 0, 0
    if shift:
        raise MalformedSketch("it ends inside a number")
