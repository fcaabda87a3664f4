"""How many rate limiters share the load: each says on the bus that it is alive."""

import asyncio
from contextlib import suppress

import structlog

from bus.errors import BusUnavailable
from bus.ports import Bus
from bus.quota import RatelimiterAlive, RatelimiterLeft
from bus.subjects import Family, pattern
from ratelimiter import metrics

log = structlog.get_logger()

_SILENT_BEATS = 3
_FAREWELL_S = 1.0


class FixedPeers:
    """A number that somebody has set."""

    def __init__(self, live: int) -> None:
        self.live = live


class BusPeers:
    """Those that were heard within three beats, and this one.

    While the bus is away nobody is heard; then the last known number stays.
    """

    def __init__(self, bus: Bus, node: str, beat_s: float) -> None:
        self._bus = bus
        self._node = node
        self._beat_s = beat_s
        self._heard: dict[str, float] = {}  # node -> when it is given up, loop time

    @property
    def live(self) -> int:
        """This one included."""
        return 1 + len(self._heard)

    async def run(self) -> None:
        """Beat and listen until cancelled; then say goodbye."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._listen(), name="ratelimiter: peers")
                group.create_task(self._beat(), name="ratelimiter: heartbeat")
        finally:
            with suppress(BusUnavailable, TimeoutError):
                async with asyncio.timeout(_FAREWELL_S):
                    await self._bus.publish(RatelimiterLeft(node=self._node))

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        beat = RatelimiterAlive(node=self._node, every_s=self._beat_s)
        was_away = False
        while True:
            try:
                await self._bus.publish(beat)
            except BusUnavailable:
                was_away = True
            else:
                now = loop.time()
                if was_away:  # others could not be heard either: wait for them anew
                    self._heard = dict.fromkeys(self._heard, now + _SILENT_BEATS * self._beat_s)
                was_away = False
                for node in [node for node, until in self._heard.items() if until < now]:
                    del self._heard[node]
                    log.info("a rate limiter is silent", node=node, live=self.live)
            metrics.LIMITERS.set(self.live)
            await asyncio.sleep(self._beat_s)

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        async with self._bus.follow(pattern(Family.ROUTER, "ratelimiter", "alive", "*")) as feed:
            async for event in feed:
                match event:
                    case RatelimiterAlive(node=node, every_s=every_s) if node != self._node:
                        if node not in self._heard:
                            log.info("a rate limiter is heard", node=node, live=self.live + 1)
                        self._heard[node] = loop.time() + _SILENT_BEATS * every_s
                    case RatelimiterLeft(node=node):
                        self._heard.pop(node, None)
                metrics.LIMITERS.set(self.live)
