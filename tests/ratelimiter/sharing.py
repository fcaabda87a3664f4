"""Two routers that count by themselves, from shares of a rate limiter, under a known load."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import yaml

from policy_engine.catalogue import load
from policy_engine.rate_limits.balanced_limits import QUOTAS_CLUSTER
from policy_engine.rate_limits.limits import RATELIMITER_CLUSTER
from policy_engine.system import SystemParameters
from tests.policy_engine.attached import LOCAL_REPLY
from tests.ratelimiter.gateway import cluster, where
from tests.xds.routing import Router, api, router


def orders(upstream: int, *limits: dict[str, Any], **more: Any) -> Any:
    """An API that is limited by shares; `more` are further parameters of the policy."""
    params = {"backend": "redis-local-async", **more}
    if limits:
        params["quotas"] = [{"name": "all", "limits": list(limits)}]
    return api(
        yaml.safe_dump(
            {
                "name": "orders",
                "context": "/orders",
                "policies": [{"name": "advanced-ratelimit", "params": params}],
                "upstream": {"main": {"url": f"http://127.0.0.1:{upstream}"}},
                "operations": [{"method": "GET", "path": "/a"}],
            }
        )
    )


@asynccontextmanager
async def sharing_router(
    limited: Any, quotas: str, limiter: str | None = None, **system: Any
) -> AsyncIterator[Router]:
    """Envoy that gets its shares at address `quotas`, and asks `limiter` about single requests."""
    clusters = [cluster(QUOTAS_CLUSTER, where(quotas), http2=True)]
    if limiter is not None:
        clusters.append(cluster(RATELIMITER_CLUSTER, where(limiter), http2=True))
    catalogue = load((), system=SystemParameters(rate_limiter=True, **system))
    async with router(
        limited, catalogue=catalogue, local_reply=LOCAL_REPLY, more_clusters=clusters
    ) as made:
        yield made


@dataclass
class Load:
    """Requests at a rate that may change, and what came of them."""

    port: int
    rate: float  # per second
    path: str = "/orders/a"
    headers: str = ""
    passed: Counter[int] = field(default_factory=Counter)  # by tenth of a second
    refused: Counter[int] = field(default_factory=Counter)
    other: Counter[int] = field(default_factory=Counter)  # by status
    late_s: float = 0.0  # how far the load was behind at worst

    async def run(self, started: float, seconds: float) -> None:
        """So long, counted from `started` (monotonic time); each request on an idle connection."""
        request = f"GET {self.path} HTTP/1.1\r\nhost: any.example\r\n{self.headers}\r\n".encode()
        idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

        async def one() -> None:
            if idle:
                lane = idle.pop()
            else:
                lane = await asyncio.open_connection("127.0.0.1", self.port)
            lane[1].write(request)
            await self._answer(lane[0], started)
            idle.append(lane)

        async with asyncio.TaskGroup() as group:
            due = started
            while due < started + seconds:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                now = time.monotonic()
                self.late_s = max(self.late_s, now - due)
                while due <= now:
                    if self.rate:
                        group.create_task(one())
                    due += 1 / self.rate if self.rate else 0.02
        for _, writer in idle:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, started: float) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        tenth = int((time.monotonic() - started) * 10)
        status = int(head[9:12])
        if status == 200:
            self.passed[tenth] += 1
        elif status == 429:
            self.refused[tenth] += 1
        else:
            self.other[status] += 1
        lower = head.lower()
        at = lower.find(b"content-length: ")
        if at >= 0:
            await reader.readexactly(int(lower[at + 16 : lower.index(b"\r", at)]))


def passed(loads: Sequence[Load], start_s: float, end_s: float) -> int:
    """What all let pass within that time."""
    return sum(
        one.passed[tenth]
        for one in loads
        for tenth in range(round(start_s * 10), round(end_s * 10))
    )
