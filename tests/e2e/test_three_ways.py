"""Three ways to keep one limit, switched by one word, over two routers: as docs/rate-limits.md."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tests.ratelimiter.sharing import Load, passed
from tests.servers.gateway import SIGNALBOX, Gateway, free_ports, gateway
from tests.servers.http_backend import Answer, http_backend

LIMIT = 100
EACH = 250  # requests a second at each router
SETTLED_S, END_S = 3, 8
DOCUMENT = """\
apiVersion: gateway.api-platform.wso2.com/v1
kind: RestApi
metadata: {{name: shop}}
spec:
  displayName: Shop
  version: v1
  context: /shop
  upstream: {{main: {{url: {upstream}}}}}
  policies:
    - name: basic-ratelimit
      version: v1
      params: {{backend: {backend}, limits: [{{requests: {limit}, duration: 1s}}]}}
  operations: [{{method: GET, path: /a}}]
"""


@asynccontextmanager
async def second_router(running: Gateway) -> AsyncIterator[int]:
    """`signalbox run router` beside the gateway's own; where it listens."""
    port, https_port, admin_port = free_ports(3)
    settings = {
        "router_name": "second",
        "http_port": port,
        "https_port": https_port,
        "envoy_admin_port": admin_port,
    }
    words = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    given = {name: text for name, text in running.environment.items() if "_PORT" not in name}
    with (running.folder / "second.txt").open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            str(SIGNALBOX), "run", "router", *words, env=given, stdout=output, stderr=output
        )
    try:
        async with asyncio.timeout(60), httpx.AsyncClient() as client:
            while True:
                try:
                    url = f"http://127.0.0.1:{port}/_gateway-health/ready"
                    if (await client.get(url)).status_code == 200:
                        break
                except httpx.TransportError:
                    assert process.returncode is None
                await asyncio.sleep(0.05)
        yield port
    finally:
        process.terminate()
        await process.wait()


async def a_second(*ports: int) -> float:
    """How much passes in a second through all routers together, once that is steady."""
    loads = [Load(port, EACH, "/shop/a") for port in ports]
    started = time.monotonic() + 0.1
    await asyncio.gather(*(one.run(started, END_S) for one in loads))
    assert not any(one.other for one in loads), [one.other for one in loads]
    assert all(sum(one.passed.values()) for one in loads)
    return passed(loads, SETTLED_S, END_S) / (END_S - SETTLED_S)


async def test_one_word_switches_who_counts_over_two_routers() -> None:
    async with (
        http_backend() as backend,
        gateway() as running,
        second_router(running) as second,
    ):
        backend.answer = lambda _: Answer(body=b"ok")
        own = running.port("http")
        seen: dict[str, float] = {}
        for way in ("memory", "redis", "redis-local-async"):
            text = DOCUMENT.format(upstream=backend.url, backend=way, limit=LIMIT)
            code, out, err = await running.cli("apply", "-f", "-", stdin=text)
            assert (code, err) == (0, ""), err
            assert "live on 2 of 2 routers" in out
            seen[way] = await a_second(own, second)
        assert 2 * LIMIT * 0.85 <= seen["memory"] <= 2 * LIMIT * 1.15, seen
        # of the five seconds, windows of six are seen
        assert LIMIT * 0.85 <= seen["redis"] <= LIMIT * 1.25, seen
        assert LIMIT * 0.85 <= seen["redis-local-async"] <= LIMIT * 1.15, seen


async def test_a_router_beside_the_gateways_own_leaves_it_alone() -> None:
    async with gateway() as running, running.api() as api, second_router(running) as second:

        async def connected() -> set[str]:
            listed = (await api.get("/routers")).json()["routers"]
            return {one["node"] for one in listed if one["connected"]}

        async with asyncio.timeout(60), httpx.AsyncClient() as client:
            while len(before := await connected()) < 2:
                await asyncio.sleep(0.05)
            await running.kill("envoy")  # started again, as it was
            while True:
                with contextlib.suppress(httpx.TransportError):
                    url = f"{running.url}/_gateway-health/ready"
                    if (await client.get(url)).status_code == 200 and await connected() == before:
                        break
                await asyncio.sleep(0.05)
            found = await client.get(f"http://127.0.0.1:{second}/_gateway-health/ready")
            assert found.status_code == 200
