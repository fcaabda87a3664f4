"""Limits that routers hold by shares, in a whole gateway: one word in a policy says so."""

import asyncio
from typing import Any

import httpx

from tests.servers.gateway import gateway, rest_api
from tests.servers.http_backend import http_backend

PATIENCE_S = 60.0
REFUSED_BY_SHARE = "x-ratelimit-quota"


def limited(upstream: str, limit: int, backend: str) -> dict[str, Any]:
    quota = {"name": "hourly", "limits": [{"limit": limit, "duration": "1h"}]}
    params = {"backend": backend, "quotas": [quota]}
    policies = [{"name": "advanced-ratelimit", "version": "v1", "params": params}]
    return rest_api("shop", upstream, policies=policies)


async def used_up(client: httpx.AsyncClient) -> int:
    """Ask until refused for good; how many passed."""
    passed, refusals = 0, 0
    async with asyncio.timeout(PATIENCE_S):
        while refusals < 200:
            answer = await client.get("/shop/a")
            assert answer.status_code in (200, 429), answer.text
            passed, refusals = (
                (passed + 1, 0) if answer.status_code == 200 else (passed, refusals + 1)
            )
            if refusals:
                await asyncio.sleep(0.05)
    return passed


async def test_one_word_says_who_counts_and_an_update_is_counted_anew() -> None:
    async with (
        http_backend() as backend,
        gateway(tier="standard") as running,
        running.api() as api,
        httpx.AsyncClient(base_url=running.url) as client,
    ):

        async def applied(limit: int, way: str, method: str = "PUT") -> None:
            path = "/rest-apis" if method == "POST" else "/rest-apis/shop"
            document = limited(backend.url, limit, way)
            answer = await api.request(method, path, json=document)
            assert answer.status_code in (200, 201), answer.text
            await api.get("/rest-apis/shop/status", params={"waitSeconds": 20}, timeout=40)

        async def answers(wanted: int) -> None:
            async with asyncio.timeout(PATIENCE_S):
                while (await client.get("/shop/a")).status_code != wanted:
                    await asyncio.sleep(0.05)

        await applied(100, "redis-local-async", "POST")
        await answers(200)
        assert 90 <= await used_up(client) <= 110
        refused = await client.get("/shop/a")
        assert refused.json()["error"] == "Too Many Requests"
        assert refused.headers[REFUSED_BY_SHARE] == "hourly"

        await applied(100, "redis")  # the same counter
        await asyncio.sleep(0.5)
        await answers(429)
        await applied(150, "redis-local-async")  # another limit, another counter
        await answers(200)
        assert 100 <= await used_up(client) <= 160
