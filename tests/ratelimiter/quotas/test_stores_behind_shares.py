"""Shares of real routers over every topology of the store, and in windows of the calendar."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from policy_engine.rate_limits.limits import Calendar, calendar_end_us
from ratelimiter.service import serving, store_of
from ratelimiter.settings import RatelimiterSettings
from tests.ratelimiter.quotas.test_routers import IN_FLIGHT, through, until_all_is_used
from tests.ratelimiter.sharing import orders, sharing_router
from tests.ratelimiter.test_faults import replicated
from tests.servers.http_backend import HttpBackend, http_backend
from tests.servers.valkey import Sentinels, ValkeyServer, valkey_cluster, valkey_sentinels
from tests.xds.routing import Router

HOUR = {"limit": 400, "duration": "1h"}
BY_USER = [{"type": "header", "key": "X-User"}]


@dataclass
class Place:
    """A rate limiter over some store, and as many routers as wanted."""

    backend: HttpBackend
    folder: Path
    stack: AsyncExitStack

    async def router(self, *limits: dict[str, Any], **more: Any) -> Router:
        return await self.stack.enter_async_context(
            sharing_router(
                orders(self.backend.port, *limits, **more),
                f"unix:{self.folder / 'q.sock'}",
                f"unix:{self.folder / 'rl.sock'}",
            )
        )


@asynccontextmanager
async def place(folder: Path, mode: str, *addresses: str) -> AsyncIterator[Place]:
    settings = RatelimiterSettings.model_validate(
        {
            "redis_mode": mode,
            "redis_addresses": addresses,
            "ratelimiter_decision_timeout_s": 2,
            "ratelimiter_socket": folder / "rl.sock",
            "ratelimiter_quota_socket": folder / "q.sock",
            "ratelimiter_limiters": 1,
        }
    )
    async with (
        serving(settings, None, store_of(settings)),
        http_backend() as backend,
        AsyncExitStack() as stack,
    ):
        yield Place(backend, folder, stack)


@asynccontextmanager
async def over(mode: str, folder: Path) -> AsyncIterator[tuple[Place, Any]]:
    """The place, with its servers."""
    async with AsyncExitStack() as stack:
        if mode == "sentinel":
            found: Any = await stack.enter_async_context(valkey_sentinels())
            addresses = found.addresses
        else:
            found = await stack.enter_async_context(valkey_cluster(3, replicas=1))
            addresses = tuple(one.address for one in found[:2])
        yield await stack.enter_async_context(place(folder, mode, *addresses)), found


@pytest.mark.parametrize("mode", ["sentinel", "cluster"])
async def test_two_routers_use_up_one_limit_and_each_caller_has_its_own(
    tmp_path: Path, mode: str
) -> None:
    async with over(mode, tmp_path) as (here, _):
        routers = [await here.router(HOUR), await here.router(HOUR)]
        assert 400 <= await until_all_is_used(routers, 400) <= 400 + IN_FLIGHT
        asked = await here.router(HOUR, backend="redis")  # the very same counter
        async with asyncio.timeout(30):
            while await through(asked, 1):
                await asyncio.sleep(0.2)
        each = await here.router(HOUR, keyExtraction=BY_USER)
        for number in range(6):  # of a cluster, on all nodes
            assert await through(each, 25, **{"x-user": f"user-{number}"}) == 25


async def test_after_a_fail_over_by_sentinel_what_was_used_is_used(tmp_path: Path) -> None:
    async with over("sentinel", tmp_path) as (here, found):
        sentinels: Sentinels = found
        one = await here.router(HOUR)
        first = await through(one, 150)
        await asyncio.sleep(6)  # until it is reported: every 5 s
        await replicated(sentinels)
        await sentinels.primary.kill()
        used = first + await through(one, 50)  # nobody is refused because of it
        assert used == 200
        async with asyncio.timeout(60):
            while await sentinels.primary_port() == sentinels.primary.port:
                used += await through(one, 1)
                await asyncio.sleep(0.2)
            refusals = 0
            while refusals < 10:
                passed = await through(one, 50)
                used, refusals = used + passed, 0 if passed else refusals + 1
                await asyncio.sleep(0.5)
        # what was in flight may be counted twice, or was not replicated yet
        assert 400 - 50 <= used <= 400 + 50


async def test_a_lost_node_of_a_cluster_makes_no_shares_of_others_larger(tmp_path: Path) -> None:
    async with over("cluster", tmp_path) as (here, found):
        nodes: list[ValkeyServer] = found
        one = await here.router(HOUR, keyExtraction=BY_USER)
        users = [f"user-{number}" for number in range(6)]
        used = {who: await through(one, 200, **{"x-user": who}) for who in users}
        await asyncio.sleep(6)
        await nodes[0].kill()
        for _ in range(6):
            for who in users:
                used[who] += await through(one, 100, **{"x-user": who})
            await asyncio.sleep(2)
        # where the store was lost before all was reported, once more what was not
        assert all(400 - IN_FLIGHT <= count <= 400 + 50 for count in used.values()), used


@pytest.mark.parametrize("calendar", ["day", "month"])
async def test_shares_of_a_calendar_quota_are_those_of_one_counter(
    tmp_path: Path, calendar: str
) -> None:
    zone = "Asia/Kathmandu"
    quota = {"limit": 400, "calendar": calendar, "timeZone": zone}
    async with over("sentinel", tmp_path) as (here, found):
        routers = [await here.router(quota), await here.router(quota)]
        assert 400 <= await until_all_is_used(routers, 400) <= 400 + IN_FLIGHT
        refused = await routers[0].get("/orders/a")
        assert (refused.status_code, refused.headers["x-ratelimit-limit"]) == (429, "400")
        client = found.primary.client()
        try:
            (key,) = [one async for one in client.scan_iter("ratelimit:*") if b"@" in _bytes(one)]
            seconds, micros = await client.time()
            left_s = calendar_end_us(Calendar(calendar), zone, seconds * 10**6 + micros) / 1e6
            assert _bytes(key).endswith(f":f400/{calendar}@{zone}".encode())
            assert await client.ttl(key) >= left_s - seconds - 5
        finally:
            await client.aclose()
        asked = await here.router(quota, backend="redis")
        async with asyncio.timeout(30):
            while await through(asked, 1):
                await asyncio.sleep(0.2)


def _bytes(key: bytes | str) -> bytes:
    return key if isinstance(key, bytes) else key.encode()
