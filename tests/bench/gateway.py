"""The whole gateway: start, memory, time from a change to its first request, cost of a chain.

`python -m tests.bench.gateway [APIS]`: APIS is how many the large gateway holds (default 5000).
"""

import asyncio
import functools
import sys
import tempfile
import time
from pathlib import Path

import httpx

from tests.bench.load import (
    OTHERS_CORE,
    ROUTER_CORE,
    Case,
    Result,
    percentile,
    pin,
    plain_router,
    ratios,
    upstream,
    wrk,
)
from tests.servers.gateway import Gateway, gateway, rest_api

ONE_WORKER = {"SIGNALBOX_ENVOY_CONCURRENCY": "1", "SIGNALBOX_API_KEYS_PER_USER_PER_API": "2000"}
KEYS = 1_000
CHANGES = 60


def chain_api(name: str, url: str) -> dict[str, object]:
    """cors + key (digests) + limit per client + header edit."""
    return rest_api(
        name,
        url,
        policies=[
            {"name": "cors", "params": {"allowedOrigins": ["https://app.example"]}},
            {"name": "api-key-auth", "params": {"key": "X-API-Key", "in": "header"}},
            {
                "name": "basic-ratelimit",
                "params": {"limits": [{"requests": 100_000_000, "duration": "1m"}]},
            },
            {
                "name": "set-headers",
                "params": {"request": {"headers": [{"name": "x-team", "value": "weather"}]}},
            },
        ],
    )


def resident_mb(pid: int) -> float:
    """Proportional set size of a process, MB: shared pages counted by share; RSS if not known."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        text = ""
    for line in text.splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) / 1024
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(one.split()[1]) / 1024 for one in status.splitlines() if one[:6] == "VmRSS:")


def print_memory(running: Gateway, what: str) -> None:
    processes = {"supervisor": running.process.pid, **running.children()}
    sizes = {name: resident_mb(pid) for name, pid in processes.items()}
    parts = ", ".join(f"{name} {size:.0f}" for name, size in sizes.items())
    print(f"{what}: resident {sum(sizes.values()):.0f} MB ({parts})", flush=True)


async def load_apis(api: httpx.AsyncClient, url: str, names: list[str]) -> float:
    """Create the APIs, eight at a time; seconds it took."""
    began = time.monotonic()
    queue = list(reversed(names))

    async def worker() -> None:
        while queue:
            name = queue.pop()
            answer = await api.post("/rest-apis", json=rest_api(name, f"{url}/{len(queue) % 10}"))
            assert answer.status_code == 201, answer.text

    await asyncio.gather(*(worker() for _ in range(8)))
    return time.monotonic() - began


async def live(caller: httpx.AsyncClient, path: str, headers: dict[str, str] | None = None) -> None:
    deadline = time.monotonic() + 120
    while (await caller.get(path, headers=headers)).status_code != 200:
        if time.monotonic() > deadline:
            raise SystemExit(f"{path} did not get live")
        await asyncio.sleep(0.0005)


async def change_latency(running: Gateway, url: str, label: str) -> None:
    """From sending the REST call to the first 200 on the new API, and on a changed one."""
    slug = label.split(maxsplit=1)[0].replace(",", "")
    created: list[float] = []
    changed: list[float] = []
    async with running.api() as api, httpx.AsyncClient(base_url=running.url) as caller:
        await api.get("/rest-apis/none")
        for number in range(CHANGES):
            name = f"new-{slug}-{number}"
            began = time.perf_counter()
            document = rest_api(name, url, operations=[{"method": "GET", "path": "/x"}])
            posting = asyncio.create_task(api.post("/rest-apis", json=document))
            await live(caller, f"/{name}/x")
            created.append((time.perf_counter() - began) * 1000)
            assert (await posting).status_code == 201
            document["spec"]["operations"] = [{"method": "GET", "path": f"/moved-{number}"}]
            began = time.perf_counter()
            putting = asyncio.create_task(api.put(f"/rest-apis/{name}", json=document))
            await live(caller, f"/{name}/moved-{number}")
            changed.append((time.perf_counter() - began) * 1000)
            assert (await putting).status_code == 200
    for what, times in (("create", created), ("change", changed)):
        print(
            f"{what} to first 200, {label}: p50 {percentile(times, 0.5):.1f} ms, "
            f"p99 {percentile(times, 0.99):.1f} ms",
            flush=True,
        )


async def keyed(running: Gateway, name: str) -> str:
    """A key of the API, with KEYS - 1 others beside it."""
    async with running.api() as api:
        key = ""
        for number in range(KEYS):
            answer = await api.post(f"/rest-apis/{name}/api-keys", json={"name": f"key-{number}"})
            assert answer.status_code == 201, answer.text
            key = answer.json()["apiKey"]["apiKey"]
    return str(key)


async def chain_ratio(running: Gateway, url: str, label: str, key: str) -> None:
    for name, pid in running.children().items():
        pin(pid, ROUTER_CORE if name == "envoy" else OTHERS_CORE)
    router = running.children()["envoy"]
    header = [f"X-API-Key: {key}"]
    async with plain_router(url, concurrency=1) as (plain, pid):
        found = await ratios(
            {
                "plain": Case(pid, functools.partial(wrk, f"{plain}/x")),
                "routed, log": Case(router, functools.partial(wrk, f"{running.url}/bare/x")),
                "chain, log": Case(
                    router, functools.partial(wrk, f"{running.url}/chained/x", headers=header)
                ),
            },
            base="plain",
        )
    for name, one in found.items():
        print(
            f"{label}: {name}: throughput {one.throughput:.3f} "
            f"[{one.lowest:.3f}-{one.highest:.3f}], CPU {one.cpu:.3f}",
            flush=True,
        )


async def changes_under_load(running: Gateway, url: str) -> None:
    """1,000 creates, updates and deletes while an API that exists is called all the time."""
    load = asyncio.create_task(wrk(f"{running.url}/bare/x", seconds=25, connections=8))
    began = time.monotonic()
    done = 0
    async with running.api() as api:
        while done < 1_000 and time.monotonic() - began < 24:
            name = f"churn-{done // 3 % 20}"
            document = rest_api(name, f"{url}/{done % 7}")
            match done % 3:
                case 0:
                    answer = await api.post("/rest-apis", json=document)
                case 1:
                    answer = await api.put(f"/rest-apis/{name}", json=document)
                case _:
                    answer = await api.delete(f"/rest-apis/{name}")
            assert answer.is_success, answer.text
            done += 1
    result: Result = await load
    print(
        f"{done} changes in {time.monotonic() - began:.1f} s of load: "
        f"{result.failures} of {result.requests} requests failed",
        flush=True,
    )


async def counted(running: Gateway) -> None:
    """Full load for 10 s: requests sent, and requests in the reports."""
    async with running.api() as api:

        async def total() -> int:
            answer = await api.get("/reports/usage", params={"groupBy": "api", "api": "bare"})
            return sum(int(row["requests"]) for row in answer.json()["rows"])

        async def settled() -> int:
            last, same = await total(), 0
            while same < 8:
                await asyncio.sleep(0.5)
                now = await total()
                same = same + 1 if now == last else 0
                last = now
            return last

        before = await settled()
        result = await wrk(f"{running.url}/bare/x", seconds=10, connections=32)
        after = await settled()
    # wrk does not count what was in flight when it stopped: at most one request a connection
    print(
        f"access log at full load: {result.requests} answered, {after - before} counted "
        f"(up to 32 in flight at the end)",
        flush=True,
    )


async def main(apis: int) -> None:
    async with upstream() as url:
        with tempfile.TemporaryDirectory(prefix="sbx-bench-") as folder:
            await _basic(url)
            place = Path(folder)
            async with gateway(folder=place, environment=ONE_WORKER) as running:
                print(f"start, standard, empty: ready in {running.ready_s:.2f} s", flush=True)
                async with running.api() as api, httpx.AsyncClient(base_url=running.url) as caller:
                    await load_apis(api, url, [f"small-{number}" for number in range(8)])
                    await load_apis(api, url, ["bare"])
                    answer = await api.post("/rest-apis", json=chain_api("chained", url))
                    assert answer.status_code == 201, answer.text
                    key = await keyed(running, "chained")
                    await live(caller, "/chained/x", {"X-API-Key": key})
                    print_memory(running, "standard, 10 APIs")
                    await chain_ratio(running, url, "10 APIs", key)
                    await counted(running)
                    await changes_under_load(running, url)
                    took = await load_apis(api, url, [f"a{number}" for number in range(990)])
                    await live(caller, "/a989/x")
                    print(f"990 APIs created in {took:.1f} s", flush=True)
                    await change_latency(running, url, "1,000 APIs")
                    more = [f"b{number}" for number in range(apis - 1000)]
                    took = await load_apis(api, url, more)
                    await live(caller, f"/{more[-1]}/x")
                    print(f"{len(more)} APIs created in {took:.1f} s", flush=True)
                    await change_latency(running, url, f"{apis:,} APIs")
                    print_memory(running, f"standard, {apis:,} APIs")
                    await chain_ratio(running, url, f"{apis:,} APIs", key)
            async with (
                gateway(folder=place, environment=ONE_WORKER) as running,
                httpx.AsyncClient(base_url=running.url) as caller,
            ):
                print(
                    f"cold start with {apis:,} APIs: ready in {running.ready_s:.2f} s", flush=True
                )
                missing = [
                    name
                    for name in (*more[:: max(1, len(more) // 50)], "a0", "a989")
                    if (await caller.get(f"/{name}/x")).status_code != 200
                ]
                print(f"APIs not served when ready: {len(missing)} {missing[:3]}", flush=True)


async def _basic(url: str) -> None:
    async with (
        gateway(tier="basic", environment=ONE_WORKER) as running,
        running.api() as api,
        httpx.AsyncClient(base_url=running.url) as caller,
    ):
        print(f"start, basic, empty: ready in {running.ready_s:.2f} s", flush=True)
        await load_apis(api, url, [f"small-{number}" for number in range(10)])
        await live(caller, "/small-9/x")
        print_memory(running, "basic, 10 APIs")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5_000))
