"""What workers report: failures become events, at most one of a kind in ten seconds."""

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import structlog

from bus.errors import BusError
from bus.policy import PolicyFailed
from bus.ports import Publisher

log = structlog.get_logger()

_PAUSE_S: Final = 10.0  # between two events of the same kind
_LOOK_S: Final = 0.5
_KEPT_MAX: Final = 1_000  # kinds of failure that are known at the same time

Key = tuple[str, str, str, str, str]  # API, policy, phase, kind, outcome


@dataclass(slots=True)
class _Pending:
    count: int
    reason: str
    traceback: str
    since_ms: int
    until_ms: int


class FailureEvents:
    """Failures on their way to the bus."""

    def __init__(self, bus: Publisher) -> None:
        self._bus = bus
        self._pending: dict[Key, _Pending] = {}
        self._told: dict[Key, float] = {}  # monotonic
        self.dropped = 0  # kinds of failure that there was no room for

    def put(self, failures: Iterable[dict[str, Any]]) -> None:
        """As a worker has reported them, see `policy_engine.engine.failures.Failure`."""
        now_ms = time.time_ns() // 1_000_000
        for one in failures:
            key = one["api_id"], one["policy"], one["phase"], one["kind"], one["mode"]
            pending = self._pending.get(key)
            if pending is None:
                if len(self._pending) >= _KEPT_MAX:
                    self.dropped += 1
                    continue
                pending = self._pending[key] = _Pending(0, "", "", now_ms, now_ms)
            pending.count += one["count"]
            pending.reason = one["reason"]
            pending.traceback = one["traceback"] or pending.traceback
            pending.until_ms = now_ms

    async def publish(self) -> None:
        """Tell what is due, until cancelled. Without the broker failures wait, and add up."""
        while True:
            for key, event in tuple(self._due()):
                try:
                    await self._bus.publish(event)
                except BusError as error:
                    log.warning("failures of policies not published", reason=str(error))
                    break
                self._told[key] = time.monotonic()
                self._settle(key, event)
            await asyncio.sleep(_LOOK_S)

    def _due(self) -> Iterator[tuple[Key, PolicyFailed]]:
        now = time.monotonic()
        for key, pending in self._pending.items():
            if now - self._told.get(key, -_PAUSE_S) >= _PAUSE_S:
                api, policy, phase, kind, outcome = key
                yield (
                    key,
                    PolicyFailed.model_validate(
                        {
                            "api": api,
                            "policy": policy,
                            "phase": phase,
                            "failure": kind,
                            "outcome": outcome,
                            "reason": pending.reason,
                            "traceback": pending.traceback,
                            "count": pending.count,
                            "since_ms": pending.since_ms,
                            "until_ms": pending.until_ms,
                        }
                    ),
                )

    def _settle(self, key: Key, told: PolicyFailed) -> None:
        """What came while the event was on its way is told later."""
        pending = self._pending[key]
        if pending.count == told.count:
            del self._pending[key]
        else:
            pending.count -= told.count
            pending.since_ms = pending.until_ms
        if len(self._told) > _KEPT_MAX:
            self._told = {one: at for one, at in self._told.items() if one in self._pending}
