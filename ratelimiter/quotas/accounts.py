"""What rate limiters tell each other through the store: hits of windows, and who is asked for what.

Hits are counted on the counters that calls of the rate limit service count on, too. Demand has a
counter of its own, behind the same hash tag: what all limiters were asked for in ten seconds.
"""

import asyncio
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple

import structlog

from policy_engine.rate_limits.limits import LIMIT_MAX, Algorithm, Hits, Limit
from ratelimiter import metrics
from ratelimiter.counters import Part, Rule, Take
from ratelimiter.errors import StoreAway
from ratelimiter.ports import CounterStore
from ratelimiter.quotas.bucket import DEMAND_S, Bucket

log = structlog.get_logger()

_TOGETHER = 256  # buckets in one step of the store
_TRIED_AGAIN_S = 1.0
_DEMAND = Rule(Algorithm.SLIDING_WINDOW, Limit(LIMIT_MAX, DEMAND_S))


class Account(NamedTuple):
    """What the store says of a bucket."""

    left: float
    reset_s: float
    demand: int  # of all rate limiters, in `DEMAND_S`


class Accounts:
    """Asks the store about buckets, those of a moment together."""

    def __init__(self, store: CounterStore, timeout_s: float) -> None:
        self._store = store
        self._timeout_s = timeout_s
        self._away_until: dict[Hashable, float] = {}

    async def settle(
        self,
        buckets: Iterable[Bucket],
        told: Callable[[Bucket, Account], None],
        away: Callable[[Bucket], None],
    ) -> None:
        """Tell the store what is owed, and hear how matters stand; `away` where it does not say.

        A bucket that was told of has nothing owed; one that was not still has.
        """
        by_place: dict[Hashable, list[Bucket]] = {}
        for bucket in buckets:
            by_place.setdefault(self._store.place(bucket.take.tag), []).append(bucket)
        async with asyncio.TaskGroup() as group:
            for place, some in by_place.items():
                for start in range(0, len(some), _TOGETHER):
                    group.create_task(
                        self._ask(place, some[start : start + _TOGETHER], told, away),
                        name="quotas: store",
                    )

    async def _ask(
        self,
        place: Hashable,
        buckets: list[Bucket],
        told: Callable[[Bucket, Account], None],
        away: Callable[[Bucket], None],
    ) -> None:
        loop = asyncio.get_running_loop()
        if self._away_until.get(place, 0.0) > loop.time():
            for bucket in buckets:
                away(bucket)
            return
        parts = [_part(bucket) for bucket in buckets]
        owed = [(bucket.owed, bucket.unsaid) for bucket in buckets]
        for bucket in buckets:
            bucket.owed = bucket.unsaid = 0
        try:
            async with asyncio.timeout(self._timeout_s):
                decided = await self._store.decide(place, parts)
            standings = decided.standings
            self._away_until.pop(place, None)
        except (StoreAway, TimeoutError) as error:
            metrics.STORE_FAILURES.labels(getattr(error, "cause", "slow")).inc()
            if place not in self._away_until:
                log.info("shares are balanced without the store", reason=str(error) or "slow")
            self._away_until[place] = loop.time() + _TRIED_AGAIN_S
            standings = (None,) * len(buckets)
        for bucket, (hits, demand), found in zip(buckets, owed, standings, strict=True):
            if found is None:
                bucket.owed += hits
                bucket.unsaid += demand
                away(bucket)
                continue
            hit, asked = found
            told(
                bucket,
                Account(
                    float(hit.remaining),
                    hit.reset_us / 1e6,
                    _DEMAND.hits - asked.remaining,
                ),
            )


def _part(bucket: Bucket) -> Part:
    hits = Hits.CHARGE if bucket.owed else Hits.CHECK
    take = bucket.take
    counted = take._replace(mode=hits, hits=bucket.owed)
    name = take.key.rpartition(b":")[0]
    asked = Take(name + b":demand", _DEMAND, Hits.CHARGE, bucket.unsaid)
    return Part(take.tag, ((counted,), (asked,)))
