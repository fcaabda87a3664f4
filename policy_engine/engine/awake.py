"""Whether the workers of the engine have woken up, for whoever should not call them before."""

import asyncio
from collections.abc import Iterable

from policy_engine.engine.feed import WorkerState


class Awake:
    """All workers that there should be have served at the same time.

    One that starts again later is no reason to wait: that takes less time than to wake up, and what
    changes may be who is let in.
    """

    def __init__(self, workers: int) -> None:
        """`workers`: how many there should be."""
        self._expected = workers
        self._event = asyncio.Event()
        self.update(())

    def update(self, connected: Iterable[WorkerState]) -> None:
        """These are connected now."""
        if sum(not one.asleep for one in connected) >= self._expected:
            self._event.set()

    @property
    def now(self) -> bool:
        """Whether they have."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Until they have."""
        await self._event.wait()
