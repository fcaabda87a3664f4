"""Real routers with shares of a real rate limiter, which shares counters in a real Valkey."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bus.memory import MemoryBus
from ratelimiter import metrics
from ratelimiter.quotas import server
from ratelimiter.service import Running, serving, store_of
from ratelimiter.settings import RatelimiterSettings
from tests.policy_engine.attached import TOO_MANY
from tests.ratelimiter.limiting import until
from tests.ratelimiter.sharing import Load, orders, passed, sharing_router
from tests.servers.http_backend import Answer, HttpBackend, http_backend
from tests.servers.valkey import ValkeyServer, valkey_server
from tests.xds.routing import Router

HOUR = {"limit": 400, "duration": "1h"}
IN_FLIGHT = 12
SECOND = {"limit": 100, "duration": "1s"}


@dataclass
class Place:
    """A backend, a Valkey, and as many limiters and routers as wanted."""

    backend: HttpBackend
    valkey: ValkeyServer
    folder: Path
    stack: AsyncExitStack
    bus: MemoryBus = field(default_factory=MemoryBus)

    @property
    def quotas(self) -> str:
        return f"unix:{self.folder / 'q.sock'}"

    @asynccontextmanager
    async def limiter(
        self, name: str = "", limiters: int = 1, **more: Any
    ) -> AsyncIterator[Running]:
        settings = RatelimiterSettings(
            redis_addresses=(f"unix:{self.valkey.socket}",),
            ratelimiter_decision_timeout_s=2,
            ratelimiter_socket=self.folder / f"rl{name}.sock",
            ratelimiter_quota_socket=self.folder / f"q{name}.sock",
            ratelimiter_limiters=limiters,
            **more,
        )
        async with serving(settings, None, store_of(settings)) as running:
            yield running

    async def router(self, *limits: dict[str, Any], name: str = "", **more: Any) -> Router:
        return await self.stack.enter_async_context(
            sharing_router(
                orders(self.backend.port, *limits, **more),
                f"unix:{self.folder / f'q{name}.sock'}",
                f"unix:{self.folder / f'rl{name}.sock'}",
            )
        )


@asynccontextmanager
async def place(folder: Path) -> AsyncIterator[Place]:
    async with valkey_server() as valkey, http_backend() as backend, AsyncExitStack() as stack:
        backend.answer = lambda _: Answer(body=b"ok")
        yield Place(backend, valkey, folder, stack)


async def through(where: Router, count: int, **headers: str) -> int:
    """How many of so many requests pass, one after the other; others are refused with 429."""
    found = 0
    for _ in range(count):
        answer = await where.get("/orders/a", headers=headers)
        assert answer.status_code in (200, 429), answer.text
        found += answer.status_code == 200
    return found


async def until_all_is_used(routers: list[Router], limit: int) -> int:
    """Ask until all refuse; how many passed."""
    found, refusals = 0, 0
    async with asyncio.timeout(90):
        while found < limit or refusals < 3:
            more = sum([await through(one, 50) for one in routers])
            found += more
            refusals = 0 if more else refusals + 1
            await asyncio.sleep(0.2)
    return found


def load_of(router: Router, rate: float) -> Load:
    return Load(int(router.client.base_url.port or 0), rate)


async def test_two_routers_let_pass_what_one_limit_allows(tmp_path: Path) -> None:
    async with place(tmp_path) as here, here.limiter():
        loads = [load_of(await here.router(SECOND), rate) for rate in (250, 150)]
        started = time.monotonic() + 0.2
        await asyncio.gather(*(one.run(started, 7) for one in loads))
        assert not any(one.other for one in loads)
        assert 4 * 100 * 0.85 <= passed(loads, 2, 6) <= 4 * 100 * 1.1


async def test_shares_follow_demand_that_moves(tmp_path: Path) -> None:
    async with place(tmp_path) as here, here.limiter():
        one, two = loads = [load_of(await here.router(SECOND), rate) for rate in (300, 10)]

        async def move() -> None:
            await asyncio.sleep(started + 4 - time.monotonic())
            one.rate, two.rate = 10, 300

        started = time.monotonic() + 0.2
        await asyncio.gather(*(load.run(started, 9) for load in loads), move())
        assert passed([one], 2, 4) >= 2 * 70
        assert passed([two], 6.5, 9) >= 2.5 * 70
        assert passed(loads, 2, 9) <= 7 * 100 * 1.1


async def test_a_long_window_is_used_up_and_not_exceeded(tmp_path: Path) -> None:
    async with place(tmp_path) as here, here.limiter():
        one, two = [await here.router(HOUR), await here.router(HOUR)]
        # what passes while a report and its answer cross is given out twice
        assert 400 <= await until_all_is_used([one, two], 400) <= 400 + IN_FLIGHT
        refused = await one.get("/orders/a")
        assert refused.status_code == 429
        assert refused.json() == TOO_MANY
        assert refused.headers["x-ratelimit-limit"] == "400"
        assert refused.headers["x-ratelimit-quota"] == "all"
        assert refused.headers["ratelimit-policy"] == '"all";q=400;w=3600'
        assert int(refused.headers["retry-after"]) > 0


async def test_a_name_with_quotes_and_percent_signs_is_told_as_it_is(tmp_path: Path) -> None:
    async with place(tmp_path) as here, here.limiter():
        limit = {"limit": 20, "duration": "1h"}
        one = await here.router(quotas=[{"name": 'the "50%" tier', "limits": [limit]}])
        await until_all_is_used([one], 20)
        refused = await one.get("/orders/a")
        assert refused.headers["x-ratelimit-quota"] == 'the "50%" tier'
        assert refused.headers["ratelimit-policy"] == r'"the \"50%\" tier";q=20;w=3600'
        assert refused.headers["ratelimit"].startswith(r'"the \"50%\" tier";r=0;t=')


async def test_one_word_changes_who_counts_and_the_count_goes_on(tmp_path: Path) -> None:
    async with place(tmp_path) as here, here.limiter():
        shares = await here.router(HOUR)
        await until_all_is_used([shares], 400)
        asked = await here.router(HOUR, backend="redis")

        async def told() -> bool:
            return await through(asked, 1) == 0

        async with asyncio.timeout(30):
            while not await told():
                await asyncio.sleep(0.2)
        more = await here.router({"limit": 500, "duration": "1h"})  # an update: another limit
        assert await through(more, 20) == 20


async def test_each_caller_has_a_share_and_those_without_a_name_have_one_together(
    tmp_path: Path,
) -> None:
    async with place(tmp_path) as here, here.limiter():
        key = [{"type": "header", "key": "X-User"}]
        one = await here.router(HOUR, keyExtraction=key)
        for who in ("ann", "bob"):
            assert await through(one, 25, **{"x-user": who}) == 25
        assert await through(one, 25) == 25
        client = here.valkey.client()
        async with asyncio.timeout(30):
            while len([k async for k in client.scan_iter("ratelimit:*") if ":f400/" in k]) < 3:
                await asyncio.sleep(0.1)
        await client.aclose()


async def test_what_does_not_match_is_not_counted(tmp_path: Path) -> None:
    async with place(tmp_path) as here, here.limiter():
        gold = {"type": "header", "key": "X-Tier", "match": {"type": "regex", "value": "^gold"}}
        one = await here.router(HOUR, keyExtraction=[gold])
        assert await through(one, 600) == 600
        assert await through(one, 600, **{"x-tier": "silver"}) == 600
        assert await through(one, 600, **{"x-tier": "golden"}) <= 400 + IN_FLIGHT


async def test_a_rate_limiter_that_restarts_knows_what_was_used(tmp_path: Path) -> None:
    async with place(tmp_path) as here:
        async with here.limiter():
            one = await here.router(HOUR)
            before = await until_all_is_used([one], 400)
        assert await through(one, 10) == 0  # what was assigned holds
        async with here.limiter():
            async with asyncio.timeout(30):  # routers come back with their next report
                seconds = 0
                while seconds < 7:
                    assert await through(one, 5) == 0
                    await asyncio.sleep(0.5)
                    seconds += 0.5  # type: ignore[assignment]
        assert before <= 400 + IN_FLIGHT


async def test_without_the_store_each_limiter_gives_its_part(tmp_path: Path) -> None:
    async with place(tmp_path) as here, here.limiter(limiters=2):
        await here.valkey.kill()
        one = load_of(await here.router(SECOND), 300)
        started = time.monotonic() + 0.2
        await one.run(started, 5)
        assert not one.other
        assert 3 * 50 * 0.8 <= passed([one], 2, 5) <= 3 * 50 * 1.15
        await here.valkey.start()


async def test_two_rate_limiters_share_by_what_their_routers_are_asked_for(tmp_path: Path) -> None:
    async with (
        place(tmp_path) as here,
        here.limiter("a", limiters=2),
        here.limiter("b", limiters=2),
    ):
        loads = [
            load_of(await here.router(SECOND, name=name), rate)
            for name, rate in (("a", 270), ("b", 130))
        ]
        started = time.monotonic() + 0.2
        await asyncio.gather(*(one.run(started, 16) for one in loads))
        assert 4 * 100 * 0.85 <= passed(loads, 12, 16) <= 4 * 100 * 1.15
        assert passed(loads[:1], 12, 16) > passed(loads[1:], 12, 16) * 1.3


@pytest.mark.parametrize(("mode", "rest"), [("local", False), ("open", True)])
async def test_without_any_rate_limiter_a_router_goes_on_by_itself(
    tmp_path: Path, mode: str, rest: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "TTL_S", 1)
    async with place(tmp_path) as here:
        async with here.limiter() as running:
            limited = orders(here.backend.port, SECOND)
            (quotas,) = running.quota_addresses
            one = await here.stack.enter_async_context(
                sharing_router(limited, quotas, ratelimit_when_away=mode)
            )
            assert await through(one, 1) == 1
        await asyncio.sleep(1.5)  # until its assignment is over: Envoy counts in whole seconds
        load = load_of(one, 300)
        await load.run(time.monotonic(), 3)
        assert not load.other
        if rest:
            assert not load.refused
        else:
            assert 2 * 100 * 0.7 <= passed([load], 1, 3) <= 2 * 100 * 1.3


async def test_who_is_seen_first_while_every_rate_limiter_is_away_is_held_to_the_limit(
    tmp_path: Path,
) -> None:
    async with place(tmp_path) as here:
        one = await here.router(HOUR)
        assert 400 <= await through(one, 1_000) <= 2 * 400 + IN_FLIGHT  # as two windows would
        refused = await one.get("/orders/a")
        assert refused.json() == TOO_MANY
        assert int(refused.headers["retry-after"]) > 0

        key = [{"type": "header", "key": "X-User"}]
        each = await here.router(HOUR, keyExtraction=key)
        for who in ("ann", "bob"):
            assert 400 <= await through(each, 900, **{"x-user": who}) <= 2 * 400 + IN_FLIGHT
        assert await through(each, 1) == 1  # nobody in particular

        load = load_of(await here.router(SECOND), 400)
        await load.run(time.monotonic(), 4)
        assert not load.other
        assert 2 * 100 * 0.7 <= passed([load], 1, 3) <= 2 * 100 * 1.3


async def test_a_ceiling_is_not_below_what_shares_let_pass_around_the_end_of_a_window(
    tmp_path: Path,
) -> None:
    window_s, near_s = 30, 8
    async with place(tmp_path) as here, here.limiter():
        one = await here.router({"limit": 60, "duration": f"{window_s}s"})
        await asyncio.sleep((window_s - near_s - time.time()) % window_s)
        end_s = (time.time() // window_s + 1) * window_s + near_s
        found = 0
        while found < 110 and time.time() < end_s:  # half a window in all: 60 and as many again
            found += await through(one, 5)
            await asyncio.sleep(0.05)
        assert found >= 110


async def test_callers_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    shares = metrics.QUOTA_SHARES
    before = shares._value.get()
    async with place(tmp_path) as here, here.limiter():
        key = [{"type": "header", "key": "X-User"}]
        one = await here.router(SECOND, keyExtraction=key)
        for number in range(50):
            await through(one, 1, **{"x-user": f"user-{number}"})
        await until(lambda: shares._value.get() == before + 50)
        await until(lambda: shares._value.get() == before, timeout_s=60)
        assert await through(one, 5, **{"x-user": "user-1"}) == 5
        await until(lambda: shares._value.get() == before + 1)
