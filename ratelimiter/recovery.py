"""How a place of the store comes back: it is asked for, and told what was counted without it."""

import asyncio
import time
from collections.abc import Callable, Hashable

import structlog

from ratelimiter import metrics
from ratelimiter.away import LocalShares
from ratelimiter.clock import Clock
from ratelimiter.errors import StoreAway
from ratelimiter.lanes import Away, Health, Lane, Lanes
from ratelimiter.over_limit import OverLimit
from ratelimiter.ports import CounterStore, Due, Peers, Watcher
from ratelimiter.settings import RatelimiterSettings

log = structlog.get_logger()

_INTERVAL_MAX_S = 5.0


class Recovery:
    """Brings places back; `lost` is told of one that goes away meanwhile."""

    def __init__(
        self,
        store: CounterStore,
        settings: RatelimiterSettings,
        lanes: Lanes,
        clock: Clock,
        shares: LocalShares,
        over: OverLimit,
        peers: Peers,
        watcher: Watcher,
        told: Callable[[Health], None],
        lost: Callable[[Lane, StoreAway], None],
    ) -> None:
        self._store = store
        self._settings = settings
        self._lanes = lanes
        self._clock = clock
        self._shares = shares
        self._over = over
        self._peers = peers
        self._watcher = watcher
        self._told = told
        self._lost = lost

    async def run(self, lane: Lane, away: Away) -> None:
        """Ask for the place until it is there; then tell it what was counted without it."""
        wait_s = self._settings.ratelimiter_recovery_interval_s
        merged = 0
        while True:
            await asyncio.sleep(wait_s)
            wait_s = min(_INTERVAL_MAX_S, wait_s * 2)
            metrics.LOCAL_COUNTERS.set(len(self._shares))
            try:
                async with asyncio.timeout(self._settings.ratelimiter_decision_timeout_s):
                    self._clock.set(await self._store.probe(lane.name))
                merged += await self._merge(lane.name)
            except (StoreAway, TimeoutError) as error:
                if isinstance(error, StoreAway):
                    away.reason, away.cause = error.reason, error.cause
                if self._lanes.is_deserted(lane):
                    self._lanes.forget(lane)
                    break
                self._tell(lane, away)
                continue
            break
        lane.away = None
        metrics.DEGRADED.dec()
        self._over.clear()
        try:
            merged += await self._merge(lane.name)
        except StoreAway as error:
            self._lost(lane, error)
            return
        self._shares.forget(self._lanes.is_there)
        metrics.LOCAL_COUNTERS.set(len(self._shares))
        away_s = time.monotonic() - away.started_s
        log.info("counters are back", place=str(lane.name), away_s=round(away_s, 3), merged=merged)
        if away.told:
            self._watcher.recovered(str(lane.name), away_s, merged)
            self._told(self._lanes.health)

    async def _merge(self, returning: Hashable) -> int:
        """Tell places that are there, and the one that returns, what they missed; how much.

        Raises StoreAway when the one that returns is away again.
        """

        def wanted(tag: int) -> bool:
            return self._store.place(tag) == returning or self._lanes.is_there(tag)

        by_place: dict[Hashable, list[Due]] = {}
        for due in self._shares.dues(wanted, self._clock.now_us(), self._peers.live):
            by_place.setdefault(self._store.place(due.tag), []).append(due)
        merged = 0
        failed: StoreAway | None = None
        while by_place:
            place, dues = by_place.popitem()
            try:
                await self._store.merge(place, dues)
            except StoreAway as error:
                self._shares.untold(dues)
                if place == returning:
                    failed = error
                else:
                    self._lost(self._lanes.of(dues[0].tag), error)
            except BaseException:
                self._shares.untold(dues)
                raise
            else:
                merged += len(dues)
                metrics.MERGED.inc(len(dues))
        if failed is not None:
            raise failed
        return merged

    def _tell(self, lane: Lane, away: Away) -> None:
        away_s = time.monotonic() - away.started_s
        if not away.told and away_s >= self._settings.ratelimiter_degraded_after_s:
            away.told = True
            log.warning("limits are not shared", place=str(lane.name), reason=away.reason)
            self._watcher.degraded(str(lane.name), away.reason, away.cause)
            self._told(self._lanes.health)
