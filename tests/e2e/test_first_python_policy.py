"""The first Python policy of a gateway: its worker is asleep, and nobody is refused for that."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from tests.e2e.waiting import until
from tests.servers.gateway import Gateway, gateway, rest_api
from tests.servers.http_backend import HttpBackend, http_backend

GUARDED = [
    {
        "name": "word-count-guardrail",
        "params": {"request": {"min": 1, "max": 3, "jsonPath": "$.text"}},
    }
]
SHADOWED = [
    {
        "name": "regex-guardrail",
        "mode": "shadow",
        "params": {"request": {"regex": "^please", "jsonPath": "$.text"}},
    }
]
POST = [{"method": "POST", "path": "/*"}]
_DEADLINE_S = 60.0
Parts = tuple[Gateway, HttpBackend, httpx.AsyncClient, httpx.AsyncClient]


@asynccontextmanager
async def busy(processes: int) -> AsyncIterator[None]:
    """Other work on the machine: that many processes that only count."""
    started = [
        await asyncio.create_subprocess_exec(sys.executable, "-c", "while True: pass")
        for _ in range(processes)
    ]
    try:
        yield
    finally:
        for one in started:
            with contextlib.suppress(ProcessLookupError):
                one.kill()
            await one.wait()


@asynccontextmanager
async def gateway_and_clients() -> AsyncIterator[Parts]:
    """A fresh gateway, its upstream, and clients of the management API and of the router."""
    async with (
        http_backend() as backend,
        gateway(tier="basic") as running,
        running.api() as api,
        httpx.AsyncClient(base_url=running.url, timeout=60) as client,
    ):
        yield running, backend, api, client


@pytest.mark.parametrize("others", [0, os.cpu_count() or 2], ids=["idle", "busy"])
async def test_requests_wait_while_the_first_python_policy_wakes_its_worker(others: int) -> None:
    async with gateway_and_clients() as (_, backend, api, client), busy(others):
        document = rest_api("guarded", backend.url, policies=GUARDED, operations=POST)
        assert (await api.post("/rest-apis", json=document)).status_code == 201
        async with asyncio.timeout(_DEADLINE_S):
            while True:
                answer = await client.post("/guarded/a", json={"text": "one two"})
                if answer.status_code == 200:
                    break
                assert answer.status_code == 404, answer.text  # the router does not have it yet
                await asyncio.sleep(0.02)
        refused = await client.post("/guarded/a", json={"text": "one two three four"})
        assert refused.status_code == 422


async def test_only_what_needs_the_worker_waits_for_it() -> None:
    async with gateway_and_clients() as (running, backend, api, client):
        worker = next(pid for name, pid in running.children().items() if name.startswith("engine"))

        async def status(path: str) -> int:
            return (await client.post(path, json={"text": "one two three four"})).status_code

        async def deploy(name: str, policies: list[Any]) -> None:
            document = rest_api(name, backend.url, policies=policies, operations=POST)
            known = (await api.get(f"/rest-apis/{name}")).status_code == 200
            answer = await (
                api.put(f"/rest-apis/{name}", json=document)
                if known
                else api.post("/rest-apis", json=document)
            )
            assert answer.is_success, answer.text

        await deploy("open", [])
        await until(lambda: status("/open/a"), lambda found: found == 200)
        os.kill(worker, signal.SIGSTOP)
        try:
            for name in ("guarded", "open"):
                await deploy(name, GUARDED)
            await deploy("later", [])
            await until(lambda: status("/later/a"), lambda found: found == 200)
            # what came before it has waited: it is not there, or as it was
            assert await status("/guarded/a") == 404
            assert await status("/open/a") == 200
        finally:
            os.kill(worker, signal.SIGCONT)
        for name in ("guarded", "open"):
            found = await until(
                lambda name=name: status(f"/{name}/a"), lambda found: found not in (200, 404)
            )
            assert found == 422


async def test_what_a_python_policy_in_shadow_mode_would_refuse_is_reported() -> None:
    async with gateway_and_clients() as (running, backend, api, client):
        document = rest_api("watched", backend.url, policies=SHADOWED, operations=POST)
        assert (await api.post("/rest-apis", json=document)).status_code == 201
        for text in ("please tell", "tell me"):
            passed = await until(
                lambda text=text: client.post("/watched/a", json={"text": text}),
                lambda answer: answer.status_code == 200,
            )
            assert passed.status_code == 200

        async def reported() -> dict[str, int]:
            answer = await api.get("/reports/usage", params={"groupBy": "shadow", "api": "watched"})
            answer.raise_for_status()
            return {one["shadow"]: one["requests"] for one in answer.json()["rows"]}

        assert await until(reported, lambda told: sum(told.values()) == 2) == {
            "": 1,
            "regex-guardrail": 1,
        }

        async def contexts() -> float:
            port = running.port("engine_metrics")
            text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
            name = "policy_engine_context_build_duration_seconds_count "
            return sum(
                float(line.removeprefix(name))
                for line in text.splitlines()
                if line.startswith(name)
            )

        await until(contexts, lambda count: count == 2)
