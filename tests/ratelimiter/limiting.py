"""A rate limiter that is asked directly, as Envoy would."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bus.ports import Bus
from policy_engine.rate_limits.limits import Quota
from ratelimiter.lanes import Health
from ratelimiter.service import Running, serving, store_of
from ratelimiter.settings import RatelimiterSettings
from tests.ratelimiter.gateway import RateLimitResponse, call

DEADLINE_S = 30.0


@dataclass
class Limiter:
    running: Running
    slowest_s: float = 0.0
    refused: Counter[str] = field(default_factory=Counter)

    @property
    def health(self) -> Health:
        return self.running.service.health

    async def answer(self, data: bytes) -> Any:
        started = time.monotonic()
        reply = self.running.service(data)
        body = reply if isinstance(reply, bytes) else await reply
        self.slowest_s = max(self.slowest_s, time.monotonic() - started)
        return RateLimitResponse.FromString(body)

    async def ask(self, quota: Quota, client: str = "a", hits: int | None = None) -> bool:
        """Whether it passes."""
        answered = await self.answer(call((quota, [("client", client)]), hits=hits))
        return bool(answered.overall_code == 1)

    async def passed(self, quota: Quota, times: int, client: str = "a") -> int:
        """How many of so many calls, one after the other."""
        return sum([await self.ask(quota, client) for _ in range(times)])

    async def becomes(self, state: str) -> None:
        await until(lambda: self.health.state == state)


@asynccontextmanager
async def limiter(bus: Bus | None = None, **settings: Any) -> AsyncIterator[Limiter]:
    made = RatelimiterSettings(
        **{
            "ratelimiter_port": 0,
            "ratelimiter_limiters": 0 if bus else 1,
            "ratelimiter_recovery_interval_s": 0.05,
            "ratelimiter_over_limit_cache_s": 0,
            **settings,
        }
    )
    async with serving(made, bus, store_of(made)) as running:
        yield Limiter(running)


async def until(holds: Callable[[], Any], timeout_s: float = DEADLINE_S) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.01)
