"""kill -9 of every part: traffic or state is back by itself, nothing accepted is lost."""

import asyncio
import time
from pathlib import Path

import httpx
import pytest

from tests.e2e.waiting import create, until
from tests.servers.gateway import gateway, rest_api
from tests.servers.http_backend import http_backend


@pytest.mark.parametrize("tier", ["basic", "standard"])
async def test_every_part_may_be_killed(tier: str) -> None:
    async with (
        http_backend() as backend,
        gateway(tier=tier) as running,
        running.api() as api,
        httpx.AsyncClient(base_url=running.url) as caller,
    ):

        async def live(name: str) -> None:
            await until(lambda: caller.get(f"/{name}/x"), lambda one: one.status_code == 200)

        async def accepted(name: str) -> None:
            await create(api, rest_api(name, backend.url))

        await accepted("before")
        await live("before")
        children = running.children()
        for number, child in enumerate(sorted(children)):
            if child == "demo":
                continue
            await running.kill(child)
            await accepted(f"after-{number}")
            await live(f"after-{number}")
            await live("before")
        assert (await api.get("/rest-apis")).json()["count"] == len(running.children()) + 1


async def test_traffic_goes_on_while_the_python_process_and_the_broker_are_dead() -> None:
    async with (
        http_backend() as backend,
        gateway(tier="standard") as running,
        running.api() as api,
        httpx.AsyncClient(base_url=running.url) as caller,
    ):
        await api.post("/rest-apis", json=rest_api("steady", backend.url))
        await until(lambda: caller.get("/steady/x"), lambda one: one.status_code == 200)
        statuses: list[int] = []
        stop = asyncio.Event()

        async def load() -> None:
            deadline = time.monotonic() + 60
            while not stop.is_set() and time.monotonic() < deadline:
                statuses.append((await caller.get("/steady/x")).status_code)

        async with asyncio.TaskGroup() as group:
            group.create_task(load())
            for child in [name for name in running.children() if name not in ("envoy", "router")]:
                await running.kill(child)
            await until(lambda: api.get("/rest-apis"), lambda one: one.status_code == 200)
            stop.set()
        assert len(statuses) > 50
        assert set(statuses) == {200}


async def test_a_restart_of_the_whole_gateway_brings_everything_back(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with http_backend() as backend:
        async with gateway(tier="standard", folder=folder) as running, running.api() as api:
            for number in range(5):
                made = await api.post("/rest-apis", json=rest_api(f"kept-{number}", backend.url))
                assert made.status_code == 201
        async with (
            gateway(tier="standard", folder=folder) as running,
            httpx.AsyncClient(base_url=running.url) as caller,
        ):
            # ready means served: no request may fail from now on
            for number in range(5):
                assert (await caller.get(f"/kept-{number}/x")).status_code == 200


async def test_a_thousand_requests_see_no_error_while_apis_come_change_and_go() -> None:
    async with (
        http_backend() as backend,
        gateway(tier="standard") as running,
        running.api() as api,
        httpx.AsyncClient(base_url=running.url) as caller,
    ):
        await api.post("/rest-apis", json=rest_api("steady", backend.url))
        await until(lambda: caller.get("/steady/x"), lambda one: one.status_code == 200)
        failures: list[int] = []
        served = 0
        stop = asyncio.Event()

        async def load() -> None:
            nonlocal served
            while not stop.is_set():
                for path in ("/steady/x", "/steady/y"):
                    status = (await caller.get(path)).status_code
                    served += 1
                    if status != 200:
                        failures.append(status)

        async def change() -> None:
            for number in range(100):
                document = rest_api(f"busy-{number % 5}", f"{backend.url}/{number}")
                name = document["metadata"]["name"]
                if number < 5:
                    assert (await api.post("/rest-apis", json=document)).status_code == 201
                elif number >= 95:
                    assert (await api.delete(f"/rest-apis/{name}")).status_code == 200
                else:
                    answer = await api.put(f"/rest-apis/{name}", json=document)
                    assert answer.status_code == 200
                steady = rest_api("steady", f"{backend.url}/{number % 2}")
                assert (await api.put("/rest-apis/steady", json=steady)).status_code == 200
            stop.set()

        async with asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(load())
            group.create_task(change())
        assert served > 100
        assert failures == []
