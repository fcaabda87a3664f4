"""Failures of policies: counted at once, told at most once a second, logged seldom."""

import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import structlog

from policy_engine.conditions.evaluation import ConditionFailed
from policy_engine.engine.errors import Benched, HopNotLoaded, Nonsense, TooSlow
from policy_engine.hooks import Place, UnknownUpstream

log = structlog.get_logger()

_LOG_PAUSE_S: Final = 10.0  # between two tracebacks of the same failure
_KEPT: Final = 256  # different failures between two reports
_TRACEBACK_CHARS: Final = 8_000


@dataclass(slots=True)
class Failure:
    """What went wrong how often since the last report."""

    api_id: str
    policy: str
    phase: str
    kind: str  # raised, too-slow, ...: those of `bus.policy`
    mode: str  # what became of requests: open, closed, shadow; of conditions: runs, skipped
    reason: str  # one line, of the latest
    traceback: str = ""
    count: int = 0

    def document(self) -> dict[str, Any]:
        """JSON-shaped."""
        return {name: getattr(self, name) for name in self.__slots__}


class Failures:
    """Those of one worker."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, str, str], Failure] = {}
        self._logged: dict[tuple[str, str, str, str], float] = {}

    def note(
        self, place: Place, policy: str, phase: str, mode: str, error: BaseException, kind: str = ""
    ) -> str:
        """One more; its kind."""
        kind = kind or kind_of(error)
        key = (place.api_id, policy, phase, kind)
        failure = self._kept.get(key)
        if failure is None:
            if len(self._kept) >= _KEPT:
                return kind  # it is counted in the metrics all the same
            failure = Failure(place.api_id, policy, phase, kind, mode, _one_line(error))
            self._kept[key] = failure
        failure.count += 1
        now = time.monotonic()
        if now - self._logged.get(key, -_LOG_PAUSE_S) >= _LOG_PAUSE_S:
            self._logged[key] = now
            failure.reason = _one_line(error)
            failure.traceback = _traceback(error)
            log.warning(
                "policy failed",
                api=place.api_id,
                policy=policy,
                phase=phase,
                kind=kind,
                mode=mode,
                reason=failure.reason,
                traceback=failure.traceback or None,
            )
        return kind

    def taken(self) -> Iterator[Failure]:
        """All since the last time."""
        kept, self._kept = self._kept, {}
        if len(self._logged) > _KEPT:
            self._logged.clear()
        yield from kept.values()


_KINDS: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (TooSlow, "too-slow"),
    (Nonsense, "nonsense"),
    (MemoryError, "memory"),
    (Benched, "benched"),
    (ConditionFailed, "condition"),
    (HopNotLoaded, "not-loaded"),
    (UnknownUpstream, "unknown-upstream"),
)


def kind_of(error: BaseException) -> str:
    """A word for metrics and events."""
    return next((kind for one, kind in _KINDS if isinstance(error, one)), "raised")


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def _traceback(error: BaseException) -> str:
    if kind_of(error) != "raised":
        return ""
    return "".join(traceback.format_exception(error))[-_TRACEBACK_CHARS:]
