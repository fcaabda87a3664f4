"""Thousands of APIs with three policies each, called at random, against plain routing.

`python -m tests.bench.many_apis [APIS]` (default 5000). As many APIs without policies stand beside
them in the same gateway: called at random too they are the base, which has the same tables and the
same cold caches. For comparison one API of each kind, and an Envoy that only routes.
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
POLICIES: list[dict[str, object]] = [
    {"name": "cors", "params": {"allowedOrigins": [ORIGIN]}},
    {"name": "rbac", "params": {"rules": [{"methods": ["GET"]}]}},
    {"name": "basic-ratelimit", "params": {"limits": [{"requests": 10**9, "duration": "1m"}]}},
]
KINDS: dict[str, list[dict[str, object]]] = {"plain": [], "guarded": POLICIES}
_AT_RANDOM = """
math.randomseed(7)
request = function()
  return wrk.format("GET", string.format("/{kind}-%d/x", math.random(0, {last})))
end
"""


async def load(running: Gateway, url: str, count: int) -> None:
    """Create the APIs of both kinds, eight at a time, and wait for the last ones."""
    queue = [(f"{kind}-{number}", kind) for number in range(count) for kind in KINDS][::-1]
    async with running.api() as api:

        async def worker() -> None:
            while queue:
                name, kind = queue.pop()
                document = rest_api(name, url, policies=KINDS[kind])
                (await api.post("/rest-apis", json=document)).raise_for_status()

        await asyncio.gather(*(worker() for _ in range(8)))
    async with asyncio.timeout(120), httpx.AsyncClient(base_url=running.url) as caller:
        for kind in KINDS:
            for number in (0, count - 1):
                while (await caller.get(f"/{kind}-{number}/x")).status_code != httpx.codes.OK:
                    await asyncio.sleep(0.05)


async def main(count: int) -> None:
    environment = {"SIGNALBOX_ENVOY_CONCURRENCY": "1"}
    async with upstream() as url, gateway(environment=environment) as running:
        await load(running, url, count)
        for name, pid in running.children().items():
            pin(pid, ROUTER_CORE if name == "envoy" else OTHERS_CORE)
        with tempfile.TemporaryDirectory() as folder:
            router = running.children()["envoy"]
            call = functools.partial(wrk, headers=[f"Origin: {ORIGIN}"])

            def at_random(kind: str) -> Case:
                script = Path(folder) / f"{kind}.lua"
                text = _AT_RANDOM.replace("{kind}", kind).replace("{last}", str(count - 1))
                script.write_text(text)
                return Case(router, functools.partial(call, running.url, script=str(script)))

            def one(kind: str) -> Case:
                return Case(router, functools.partial(call, f"{running.url}/{kind}-0/x"))

            async with plain_router(url, concurrency=1) as (plain, pid):
                base = f"no policies, {count:,} APIs at random"
                found = await ratios(
                    {
                        base: at_random("plain"),
                        f"3 policies, {count:,} APIs at random": at_random("guarded"),
                        "no policies, one of them": one("plain"),
                        "3 policies, one of them": one("guarded"),
                        "a bare Envoy": Case(pid, functools.partial(call, f"{plain}/x")),
                    },
                    base=base,
                )
    for name, ratio in found.items():
        print(
            f"{name}: throughput {ratio.throughput:.2f} [{ratio.lowest:.2f}-{ratio.highest:.2f}],"
            f" CPU {ratio.cpu:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000))
