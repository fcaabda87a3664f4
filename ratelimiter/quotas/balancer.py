"""Hears what routers report and says what each may let pass.

One event loop, no locks. What is heard marks a bucket; marked buckets are looked at together, a
moment later, when the store has said what other rate limiters were asked for.
"""

import asyncio
import heapq
import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import structlog

from policy_engine.errors import MalformedQuota
from policy_engine.rate_limits.balanced_limits import DOMAIN, PROBE_ENTRY, rate_per_s
from policy_engine.rate_limits.limits import LIMIT_ENTRY, Hits
from ratelimiter import metrics
from ratelimiter.counters import Standing, Take, key_of
from ratelimiter.ports import Peers, Watcher
from ratelimiter.quotas.accounts import Account, Accounts
from ratelimiter.quotas.assignment import Assignment, Entries, Router
from ratelimiter.quotas.bucket import REPORT_S, Bucket, Share
from ratelimiter.quotas.pulse import Pulse
from ratelimiter.reading import Row, known

log = structlog.get_logger()

TTL_S = 20
"""How long an assignment holds without another word."""

_RENEWED_S = 8.0
_TURN_S = 0.02
_PULSES_PER_S = 40.0  # of one router about one bucket
_PULSES_PER_TURN = 12  # of all
_SETTLED_S = 0.001  # reports of so long are told to the store together
_BETTER = 0.2  # another estimate of demand is worth a message
_MARGIN = 0.05  # of ten seconds' worth of a limit, so that nobody's fraction is nothing


class Usage(NamedTuple):
    """What a router reports of one bucket."""

    entries: Entries  # of the bucket's id, sorted
    allowed: int
    refused: int
    first: bool  # the bucket is new to the router, and the report about it only


class Balancer:
    """Balances until `run` is cancelled."""

    def __init__(
        self,
        prefix: str,
        accounts: Accounts,
        peers: Peers,
        watcher: Watcher,
        buckets_max: int,
    ) -> None:
        self._prefix = prefix
        self._accounts = accounts
        self._peers = peers
        self._watcher = watcher
        self._buckets_max = buckets_max
        self._buckets: OrderedDict[Entries, Bucket] = OrderedDict()
        self._of_router: dict[Router, dict[Entries, Bucket]] = {}
        self._latency_s: dict[Router, float] = {}
        self._marked: dict[Bucket, None] = {}
        self._contested: dict[Bucket, None] = {}
        self._ends: list[tuple[float, int, Bucket]] = []
        self._numbers = count()
        self._wake = asyncio.Event()
        self._complained: set[str] = set()

    # -- what routers say --------------------------------------------------------------------

    def joined(self, router: Router) -> None:
        """A router has opened its stream."""
        self._of_router[router] = {}
        metrics.QUOTA_ROUTERS.set(len(self._of_router))

    def left(self, router: Router) -> None:
        """It is gone: others get what it had."""
        for entries, bucket in self._of_router.pop(router).items():
            self._drop(bucket, router, entries)
        self._latency_s.pop(router, None)
        metrics.QUOTA_ROUTERS.set(len(self._of_router))

    def reported(self, router: Router, usages: Sequence[Usage]) -> None:
        """A router's report, of one new bucket or of all that it has."""
        now_s = asyncio.get_running_loop().time()
        metrics.QUOTA_REPORTS.inc()
        for usage in usages:
            if any(key == PROBE_ENTRY for key, _ in usage.entries):
                self._pulsed(router, usage, now_s)
                continue
            try:
                bucket = self._bucket(usage.entries)
            except MalformedQuota as error:
                self._complain(error)
                continue
            self._used(router, bucket, usage, now_s)

    def _used(self, router: Router, bucket: Bucket, usage: Usage, now_s: float) -> None:
        mine = self._of_router[router]
        is_new = usage.entries not in mine
        if is_new:
            mine[usage.entries] = bucket
            bucket.shares[router] = Share()
            metrics.QUOTA_SHARES.inc()
        elif usage.first:  # it had forgotten what it was given
            bucket.shares[router].given = None
            bucket.shares[router].wants_portion = True
        share = bucket.report(router, usage.allowed, usage.refused, now_s)
        if bucket.is_idle(share):
            router.abandon(usage.entries)
            del mine[usage.entries]
            self._drop(bucket, router, usage.entries)
            return
        self._watch(bucket, usage)
        if is_new and not bucket.leased:
            self._push(bucket, now_s)  # before anything else passes
        self._mark(bucket)
        if share.given is not None and now_s - share.given_s > _RENEWED_S:
            again = share.given
            router.assign(usage.entries, Assignment(again.size, again.tokens, again.interval_s))
            share.given_s = now_s

    def _pulsed(self, router: Router, usage: Usage, now_s: float) -> None:
        told = dict(usage.entries)
        share_of = told.pop(PROBE_ENTRY)
        bucket = self._of_router[router].get(tuple(sorted(told.items())))
        if bucket is None:  # it comes before the bucket itself, or outlives it
            router.abandon(usage.entries)
            return
        share = bucket.shares[router]
        if share.pulse is None:
            share.pulse = Pulse(max(1, int(share_of)) / 1e6 if share_of.isdigit() else 1.0)
            share.probe = usage.entries
        pulse = share.pulse
        pulse.is_known = True
        if not usage.first:
            return
        metrics.QUOTA_PULSES.inc()
        latency_s = self._latency_s.get(router, 0.01)
        if pulse.waits_since_s is not None:
            latency_s = min(latency_s * 1.01, max(0.0002, now_s - pulse.waits_since_s))
            self._latency_s[router] = latency_s
        pulse.saw(now_s, latency_s)

    def _bucket(self, entries: Entries) -> Bucket:
        found = self._buckets.get(entries)
        if found is not None:
            self._buckets.move_to_end(entries)
            return found
        told = dict(entries)
        text = told.pop(LIMIT_ENTRY, None)
        if text is None:
            raise MalformedQuota(f"the bucket has no entry {LIMIT_ENTRY!r}")
        of = known(text)
        if len(of.rules) != 1:
            raise MalformedQuota("a bucket is for one limit")
        parts = tuple(sorted(told.items()))
        name = self._prefix + key_of(DOMAIN, of.quota.bucket, parts)
        (rule,) = of.rules
        take = Take(f"{name}:{rule.name}".encode(), rule, Hits.CHECK, 0, of.quota.when_away)
        row = Row(of.quota, 0, 1, parts, of.names, of.policies)
        made = self._buckets[entries] = Bucket(entries, row, take, left=float(rule.hits))
        metrics.QUOTA_BUCKETS.set(len(self._buckets))
        if len(self._buckets) > self._buckets_max:
            self._evict()
        return made

    def _evict(self) -> None:
        entries, bucket = next(iter(self._buckets.items()))
        for router in list(bucket.shares):
            router.abandon(entries)
            del self._of_router[router][entries]
            self._drop(bucket, router, entries)

    def _drop(self, bucket: Bucket, router: Router, entries: Entries) -> None:
        del bucket.shares[router]
        metrics.QUOTA_SHARES.dec()
        if bucket.shares:
            self._mark(bucket)
            return
        self._contested.pop(bucket, None)
        self._buckets.pop(entries, None)
        metrics.QUOTA_BUCKETS.set(len(self._buckets))
        if bucket.owed:
            self._mark(bucket)  # the store is still to hear of it

    def _complain(self, error: MalformedQuota) -> None:
        metrics.MALFORMED.inc()
        if error.reason not in self._complained and len(self._complained) < 100:
            self._complained.add(error.reason)
            log.warning("a bucket cannot be read", reason=error.reason)

    def _watch(self, bucket: Bucket, usage: Usage) -> None:
        """Tell those who watch limits, as far as reports tell of windows."""
        limit = bucket.take.rule
        if bucket.leased:
            left, reset_s = max(0, int(bucket.left) - bucket.owed), limit.limit.window_s
        else:
            allowed = usage.allowed / REPORT_S * limit.limit.window_s
            left, reset_s = max(0, limit.hits - int(allowed)), limit.limit.window_s
        if usage.first or (left * 5 > limit.hits and not usage.refused):
            return
        reset_us = round(reset_s * 1e6)
        standing = Standing(
            0 if usage.refused else left, reset_us, reset_us if usage.refused else 0
        )
        self._watcher.near(bucket.question(), (standing,), self._now_us())

    @staticmethod
    def _now_us() -> int:
        return time.time_ns() // 1_000

    # -- what they are told ------------------------------------------------------------------

    def _mark(self, bucket: Bucket) -> None:
        self._marked[bucket] = None
        self._wake.set()

    def _push(self, bucket: Bucket, now_s: float) -> None:
        for router, made in bucket.assignments().items():
            router.assign(bucket.entries, made)
            bucket.given(router, made, now_s)
            metrics.QUOTA_ASSIGNMENTS.inc()
        if bucket.is_contested:
            self._contested[bucket] = None
        else:
            self._contested.pop(bucket, None)

    async def run(self) -> None:
        """Balance until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._settle(), name="quotas: settle")
            group.create_task(self._look(), name="quotas: look")

    async def _settle(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(_SETTLED_S)
            self._wake.clear()
            marked, self._marked = self._marked, {}
            await self._accounts.settle(marked, self._told, self._away)

    def _told(self, bucket: Bucket, account: Account) -> None:
        now_s = asyncio.get_running_loop().time()
        live = self._peers.live
        if live > 1:
            margin = _MARGIN * 10 * rate_per_s(bucket.take.rule.limit)
            mine = bucket.own_demand(now_s) + margin
            bucket.fraction = min(1.0, mine / (max(account.demand, mine) + margin * (live - 1)))
        else:
            bucket.fraction = 1.0
        windows = bucket.take.rule.code == "f"
        ends_s = now_s + max(account.reset_s, 0.001) if windows else math.inf
        if bucket.leased:
            bucket.told(account.left, ends_s, now_s)
            self._when_over(bucket)
        self._push(bucket, now_s)

    def _away(self, bucket: Bucket) -> None:
        now_s = asyncio.get_running_loop().time()
        bucket.alone(self._peers.live, now_s)
        if bucket.leased:
            self._when_over(bucket)
        self._push(bucket, now_s)

    def _when_over(self, bucket: Bucket) -> None:
        if bucket.shares and bucket.ends_s < math.inf:
            heapq.heappush(self._ends, (bucket.ends_s, next(self._numbers), bucket))

    async def _look(self) -> None:
        """Look for moved demand, and for windows that are over."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TURN_S)
            now_s = loop.time()
            while self._ends and self._ends[0][0] <= now_s:
                ends_s, _, bucket = heapq.heappop(self._ends)
                if bucket.shares and bucket.ends_s == ends_s:
                    self._mark(bucket)
            left = _PULSES_PER_TURN
            for bucket in list(self._contested):
                if left <= 0:
                    break
                left -= self._feel(bucket, now_s)
                self._contested.pop(bucket, None)  # whoever was looked at comes last
                if bucket.is_contested:
                    self._contested[bucket] = None

    def _feel(self, bucket: Bucket, now_s: float) -> int:
        """Look at the pulses of one bucket; how many requests were asked for."""
        sent = 0
        moved = better = False
        unknown = rate_per_s(bucket.take.rule.limit) / len(bucket.shares)
        for router, share in bucket.shares.items():
            pulse = share.pulse
            if pulse is None or not pulse.is_known:
                continue
            expected = share.expected_per_s
            rate = pulse.moved_from(unknown if expected is None else expected, now_s)
            if rate is not None:
                share.demand_per_s = share.expected_per_s = rate
                share.moved_s = now_s
                moved = True
            elif share.moved_s >= share.reported_s:  # nothing better is known until the next report
                rate = pulse.rate_since(now_s)
                before = share.demand_per_s or unknown
                if rate is not None and abs(rate - before) > _BETTER * before:
                    share.demand_per_s = rate
                    better = True
            if pulse.waits_since_s is None and now_s - pulse.sent_s >= 1 / _PULSES_PER_S:
                pulse.wait(now_s)
                router.abandon(share.probe)
                sent += 1
        if moved:
            metrics.QUOTA_MOVES.inc()
        if moved or better:
            self._push(bucket, now_s)
        return sent
