"""Ends a worker whose event loop is stuck in a policy, and says where.

The timer is the interpreter's own (`faulthandler`): it needs no lock of Python, so that it ends
even a regular expression that does not come back. The process ends; whoever watches over it
starts another.
"""

import asyncio
import faulthandler
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, Self

_SLICES: Final = 4  # how often in the time allowed the loop has to show that it turns


class StuckWatch:
    """Always armed: the loop puts the end off as long as it turns."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._turn()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        faulthandler.cancel_dump_traceback_later()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """For work of ours that may take long, such as importing a policy."""
        faulthandler.cancel_dump_traceback_later()
        try:
            yield
        finally:
            self._arm()

    def _turn(self) -> None:
        self._arm()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._limit_s / _SLICES, self._turn)

    def _arm(self) -> None:
        faulthandler.dump_traceback_later(
            self._limit_s * (1 + 1 / _SLICES), exit=True, file=sys.stderr
        )
