"""Thousands of APIs with three policies each, called at random, against plain routing.

`python -m tests.bench.many_apis [APIS]` (default 5000). Two bases: an API without policies in the
same gateway, and an Envoy that only routes.
"""

import asyncio
import functools
import sys
import tempfile
from pathlib import Path

import httpx

from tests.bench.load import (
    OTHERS_CORE,
    ROUTER_CORE,
    Case,
    pin,
    plain_router,
    ratios,
    upstream,
    wrk,
)
from tests.servers.gateway import Gateway, gateway, rest_api

ORIGIN = "https://app.example.com"
POLICIES = [
    {"name": "cors", "params": {"allowedOrigins": [ORIGIN]}},
    {"name": "rbac", "params": {"rules": [{"methods": ["GET"]}]}},
    {"name": "basic-ratelimit", "params": {"limits": [{"requests": 10**9, "duration": "1m"}]}},
]
_AT_RANDOM = """
math.randomseed(7)
request = function()
  return wrk.format("GET", string.format("/many-%d/x", math.random(0, {last})))
end
"""


async def load(running: Gateway, url: str, count: int) -> None:
    """Create the APIs, eight at a time, and wait for the last one."""
    names = [f"many-{number}" for number in range(count)]
    async with running.api() as api:

        async def worker(queue: list[str]) -> None:
            while queue:
                document = rest_api(queue.pop(), url, policies=POLICIES)
                (await api.post("/rest-apis", json=document)).raise_for_status()

        queue = names[::-1]
        await asyncio.gather(*(worker(queue) for _ in range(8)))
        (await api.post("/rest-apis", json=rest_api("bare", url))).raise_for_status()
    async with asyncio.timeout(120), httpx.AsyncClient(base_url=running.url) as caller:
        for name in ("bare", names[0], names[-1]):
            while (await caller.get(f"/{name}/x")).status_code != httpx.codes.OK:
                await asyncio.sleep(0.05)


async def main(count: int) -> None:
    environment = {"SIGNALBOX_ENVOY_CONCURRENCY": "1"}
    async with upstream() as url, gateway(environment=environment) as running:
        await load(running, url, count)
        for name, pid in running.children().items():
            pin(pid, ROUTER_CORE if name == "envoy" else OTHERS_CORE)
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder) / "random.lua"
            script.write_text(_AT_RANDOM.replace("{last}", str(count - 1)))
            router = running.children()["envoy"]
            origin = [f"Origin: {ORIGIN}"]
            many = functools.partial(wrk, running.url, headers=origin, script=str(script))
            one = functools.partial(wrk, f"{running.url}/many-0/x", headers=origin)
            async with plain_router(url, concurrency=1) as (plain, pid):
                found = await ratios(
                    {
                        "an API without policies": Case(
                            router, functools.partial(wrk, f"{running.url}/bare/x")
                        ),
                        f"3 policies, {count:,} APIs at random": Case(router, many),
                        "3 policies, one of them": Case(router, one),
                        "a bare Envoy": Case(pid, functools.partial(wrk, f"{plain}/x")),
                    },
                    base="an API without policies",
                )
    for name, ratio in found.items():
        print(
            f"{name}: throughput {ratio.throughput:.2f} [{ratio.lowest:.2f}-{ratio.highest:.2f}],"
            f" CPU {ratio.cpu:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000))
