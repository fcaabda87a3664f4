"""Preflights that the gateway answers are no requests to the API: no limit counts them."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ratelimiter.quotas.test_routers import place
from tests.ratelimiter.sharing import sharing_router
from tests.xds.routing import Router, api

LIMIT = 30  # what shares can hold, too
ORIGIN = "https://app.example.com"
CORS = {"name": "cors", "params": {"allowedOrigins": [ORIGIN]}}


def basic(backend: str) -> dict[str, Any]:
    limits = [{"requests": LIMIT, "duration": "1h"}]
    return {"name": "basic-ratelimit", "params": {"backend": backend, "limits": limits}}


def advanced(backend: str) -> dict[str, Any]:
    quota = {"limits": [{"limit": LIMIT, "duration": "1h"}], "keyExtraction": [{"type": "ip"}]}
    return {"name": "advanced-ratelimit", "params": {"backend": backend, "quotas": [quota]}}


def shop(upstream: int, *policies: dict[str, Any], **operation: Any) -> Any:
    return api(
        yaml.safe_dump(
            {
                "name": "orders",
                "context": "/orders",
                "policies": list(policies),
                "upstream": {"main": {"url": f"http://127.0.0.1:{upstream}"}},
                "operations": [{"method": "GET", "path": "/a", **operation}],
            }
        )
    )


async def preflight(router: Router, origin: str = ORIGIN) -> int:
    headers = {"origin": origin, "access-control-request-method": "GET"}
    answer = await router.client.request("OPTIONS", "/orders/a", headers=headers)
    return answer.status_code


@pytest.mark.parametrize("backend", ["memory", "redis", "redis-local-async"])
@pytest.mark.parametrize("limit", [basic, advanced])
@pytest.mark.parametrize(
    "order", ["cors first", "limit first", "limit of the operation", "cors of it"]
)
async def test_preflights_count_against_no_limit(
    tmp_path: Path, backend: str, limit: Any, order: str
) -> None:
    async with place(tmp_path) as here, here.limiter():
        match order:
            case "cors first":
                orders = shop(here.backend.port, CORS, limit(backend))
            case "limit first":
                orders = shop(here.backend.port, limit(backend), CORS)
            case "cors of it":
                orders = shop(here.backend.port, limit(backend), policies=[CORS])
            case _:
                orders = shop(here.backend.port, CORS, policies=[limit(backend)])
        router = await here.stack.enter_async_context(
            sharing_router(orders, here.quotas, f"unix:{tmp_path / 'rl.sock'}")
        )
        assert {await preflight(router) for _ in range(2 * LIMIT)} == {204}
        assert {await preflight(router, "https://other.example") for _ in range(5)} == {204}
        assert not here.backend.requests
        passed = 0
        async with asyncio.timeout(60):  # shares are given out in portions
            while passed < LIMIT:
                answer = await router.get("/orders/a", headers={"origin": ORIGIN})
                passed += answer.status_code == 200
                if answer.status_code != 200:
                    assert backend == "redis-local-async"
                    await asyncio.sleep(0.2)
        assert {await preflight(router) for _ in range(5)} == {204}  # though all is used


@pytest.mark.parametrize("limit", [basic, advanced])
async def test_what_else_stands_before_cors_still_meets_preflights(
    tmp_path: Path, limit: Any
) -> None:
    async with place(tmp_path) as here, here.limiter():
        before = {"name": "ip-filter", "params": {"deny": ["127.0.0.1"]}}
        for above, own in (
            ([limit("memory"), before, CORS], []),
            ([before, limit("memory"), CORS], []),
            ([limit("memory"), before], [CORS]),
            ([limit("memory")], [before, limit("memory"), CORS]),
        ):
            orders = shop(here.backend.port, *above, policies=own)
            router = await here.stack.enter_async_context(
                sharing_router(orders, here.quotas, f"unix:{tmp_path / 'rl.sock'}")
            )
            assert await preflight(router) == 403


@pytest.mark.parametrize("backend", ["memory", "redis-local-async", "redis"])
@pytest.mark.parametrize("limit", [basic, advanced])
async def test_credentials_cannot_be_tried_by_preflights_beyond_the_limit_before_them(
    tmp_path: Path, backend: str, limit: Any
) -> None:
    users = {"name": "basic-auth", "params": {"username": "shop", "password": "secret"}}
    async with place(tmp_path) as here, here.limiter():
        for above, own in (
            ([limit(backend), users, CORS], []),
            ([limit(backend), users], [CORS]),
            ([limit(backend)], [users, CORS]),
        ):
            orders = shop(here.backend.port, *above, policies=own)
            router = await here.stack.enter_async_context(
                sharing_router(orders, here.quotas, f"unix:{tmp_path / 'rl.sock'}")
            )
            found = [await preflight(router) for _ in range(3 * LIMIT)]
            assert found[0] == 401
            assert found[-1] == 429


async def test_preflights_that_the_upstream_answers_are_requests(tmp_path: Path) -> None:
    forwarded = {**CORS, "params": {**CORS["params"], "forwardPreflight": True}}
    async with place(tmp_path) as here, here.limiter():
        orders = shop(here.backend.port, forwarded, basic("memory"), method="OPTIONS")
        router = await here.stack.enter_async_context(
            sharing_router(orders, here.quotas, f"unix:{tmp_path / 'rl.sock'}")
        )
        answers = [await preflight(router) for _ in range(LIMIT + 1)]
        assert answers == [200] * LIMIT + [429]
