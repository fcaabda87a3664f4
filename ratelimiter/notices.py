"""Events about limits and the store: noted while deciding, published by a task of their own."""

import asyncio
import time
from collections import deque
from collections.abc import Iterator

import structlog

from bus.errors import BusUnavailable
from bus.events import Event
from bus.ports import Publisher
from bus.quota import (
    KeyPart,
    LimitApproaching,
    LimitExceeded,
    QuotaReset,
    RatelimiterDegraded,
    RatelimiterRecovered,
)
from ratelimiter import metrics
from ratelimiter.counters import Standing, Take
from ratelimiter.reading import Question, Row

log = structlog.get_logger()

_TURN_S = 0.5
_QUEUED_MAX = 10_000
_REMEMBERED_MAX = 100_000
_VALUE_MAX = 256  # characters of a key part
_RETRY_MAX_S = 5.0


class _Told:
    """What was said of a counter in its window."""

    __slots__ = ("exceeded", "row", "take", "until_us")

    def __init__(self, row: Row, take: Take, until_us: int) -> None:
        self.row = row
        self.take = take
        self.until_us = until_us
        self.exceeded = False


class Notices:
    """At most `per_s` events about limits each second; more are dropped and counted."""

    def __init__(self, bus: Publisher, node: str, per_s: int) -> None:
        self._bus = bus
        self._node = node
        self._per_turn = per_s * _TURN_S
        self._told: dict[bytes, _Told] = {}
        self._limits: deque[Event] = deque()
        self._states: deque[Event] = deque()
        self._now_us = 0
        self._noted_s = time.monotonic()

    def near(self, question: Question, standings: tuple[Standing, ...], now_us: int) -> None:
        """See `ports.Watcher`."""
        if not self._per_turn:
            return
        self._now_us, self._noted_s = now_us, time.monotonic()
        for row in question.rows:
            if not row.quota.events:
                continue
            for position in range(row.start, row.stop):
                standing, take = standings[position], question.takes[position]
                if standing.remaining * 5 <= take.rule.hits:
                    self._note(row, take, standing, now_us)

    def degraded(self, place: str, reason: str, cause: str) -> None:
        """See `ports.Watcher`."""
        since_ms = time.time_ns() // 1_000_000
        self._states.append(
            RatelimiterDegraded.model_validate(
                {
                    "node": self._node,
                    "place": place,
                    "reason": reason,
                    "cause": cause,
                    "since_ms": since_ms,
                }
            )
        )

    def recovered(self, place: str, away_s: float, merged: int) -> None:
        """See `ports.Watcher`."""
        self._states.append(
            RatelimiterRecovered(node=self._node, place=place, away_s=away_s, merged=merged)
        )

    async def run(self) -> None:
        """Publish until cancelled."""
        allowance = 0.0
        while True:
            await asyncio.sleep(_TURN_S)
            self._end_windows()
            await self._publish(self._states, len(self._states))
            allowance = min(allowance + self._per_turn, max(1.0, 2 * self._per_turn))
            allowance -= await self._publish(self._limits, int(allowance))

    async def _publish(self, queue: "deque[Event]", most: int) -> int:
        done = 0
        while queue and done < most:
            event = queue[0]
            try:
                await self._bus.publish(event)
            except BusUnavailable as error:
                log.info("events wait for the bus", reason=error.reason, waiting=len(queue))
                await asyncio.sleep(_RETRY_MAX_S)
                break
            queue.popleft()
            metrics.EVENTS.labels(event.kind).inc()
            done += 1
        return done

    def _note(self, row: Row, take: Take, standing: Standing, now_us: int) -> None:
        told = self._told.get(take.key)
        if told is None or told.until_us <= now_us:
            if told is None and len(self._told) >= _REMEMBERED_MAX:
                metrics.EVENTS_DROPPED.labels("remembered").inc()
                return
            if told is not None:
                self._reset(told)
            told = self._told[take.key] = _Told(row, take, now_us + standing.reset_us)
            if not standing.retry_us:
                self._queue(
                    LimitApproaching(
                        **_of(row, take, now_us),
                        remaining=standing.remaining,
                        reset_ms=(now_us + standing.reset_us) // 1_000,
                    )
                )
        elif take.rule.code != "f":  # what moves ends when nothing is used any more
            told.until_us = now_us + standing.reset_us
        if standing.retry_us and not told.exceeded:
            told.exceeded = True
            self._queue(
                LimitExceeded(
                    **_of(row, take, now_us), reset_ms=(now_us + standing.reset_us) // 1_000
                )
            )

    def _end_windows(self) -> None:
        """Say of which counters the window is over."""
        now_us = self._now_us + round((time.monotonic() - self._noted_s) * 1e6)
        for key in list(self._over(now_us)):
            self._reset(self._told.pop(key))

    def _over(self, now_us: int) -> Iterator[bytes]:
        return (key for key, told in self._told.items() if told.until_us <= now_us)

    def _reset(self, told: _Told) -> None:
        self._queue(QuotaReset(**_of(told.row, told.take, told.until_us)))

    def _queue(self, event: Event) -> None:
        if len(self._limits) >= _QUEUED_MAX:
            metrics.EVENTS_DROPPED.labels("queue").inc()
        else:
            self._limits.append(event)


def _of(row: Row, take: Take, now_us: int) -> dict[str, object]:
    quota = row.quota
    parts = row.parts if quota.tells_key else ()
    return {
        "api": quota.api,
        "bucket": quota.bucket,
        "quota": quota.name,
        "counter": take.key.decode(),
        "parts": tuple(KeyPart(name=name, value=value[:_VALUE_MAX]) for name, value in parts),
        "limit": take.rule.hits,
        "window_s": take.rule.limit.window_s,
        "shadow": quota.shadow,
        "at_ms": now_us // 1_000,
    }
