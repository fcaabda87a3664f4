"""Python policies through a real Envoy, against plain routing through the same Envoy.

`python -m tests.bench.engine [ROUNDS]`. The router has one core, everything else the other. A
worker of the engine runs as it does in a gateway; its CPU time per request is what Python costs.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from tests.bench.load import (
    OTHERS_CORE,
    ROUTER_CORE,
    Case,
    Result,
    cpu_s,
    percentile,
    pin,
    ratios,
    upstream,
    wrk,
)
from tests.policy_engine.engine.processes import ProcessGateway, process_gateway
from tests.policy_engine.python_gateway import ref

ROUNDS = 5
SECONDS = 2.0
CONNECTIONS = 64
PROBES = 2_000  # requests at low load
BODY = '{"text": "' + "x" * 980 + '", "n": 1}'
POST = f"""
wrk.method = "POST"
wrk.body = '{BODY}'
wrk.headers["Content-Type"] = "application/json"
"""
HEADERS: dict[str, Any] = {
    "plain": [],
    "header": [ref("check")],
    "answer header": [ref("stamp", word="a")],
    "three in a hop": [ref("check"), ref("check"), ref("check")],
    "condition": [ref("check", executionCondition="request.Body == {}")],
    "shadow": [ref("check", mode="shadow")],
    "coroutine": [ref("check-later")],
}
BODIES: dict[str, Any] = {
    "plain body": [],
    "1 KB body": [ref("check-body")],
    "1 KB body, changed": [ref("change-body")],
    "both bodies": [ref("look")],
}


def path(name: str) -> str:
    return "/" + name.replace(" ", "-").replace(",", "")


async def spent(gw: ProcessGateway, url: str, script: str | None) -> tuple[float, float]:
    """Microseconds of the worker and of the router per request."""
    (worker,) = gw.workers
    before = cpu_s(worker.pid), cpu_s(gw.envoy.pid)
    result = await wrk(
        url, seconds=SECONDS, connections=CONNECTIONS, headers=["x-client: me"], script=script
    )
    return (
        (cpu_s(worker.pid) - before[0]) / result.requests * 1e6,
        (cpu_s(gw.envoy.pid) - before[1]) / result.requests * 1e6,
    )


async def latencies(url: str) -> list[float]:
    """Milliseconds of requests one after the other, on one connection."""
    took: list[float] = []
    async with httpx.AsyncClient(timeout=30) as client:
        for _ in range(PROBES):
            began = time.perf_counter()
            answer = await client.get(url, headers={"x-client": "me"})
            took.append((time.perf_counter() - began) * 1e3)
            assert answer.status_code == 200
            await asyncio.sleep(0.001)
    return took


async def measure(
    gw: ProcessGateway, cases: dict[str, Any], base: str, script: str | None, rounds: int
) -> None:
    def case(name: str) -> Case:
        async def run() -> Result:
            while True:
                result = await wrk(
                    gw.url + path(name),
                    seconds=SECONDS,
                    connections=CONNECTIONS,
                    headers=["x-client: me"],
                    script=script,
                )
                if result.requests:
                    return result
                print(f"{name}: the machine stood still, again")

        return Case(gw.envoy.pid, run)

    found = await ratios({name: case(name) for name in cases}, base=base, rounds=rounds)
    print(f"{'':24}{'throughput':>12}{'range':>16}{'Python us':>12}{'router us':>12}")
    for name, one in found.items():
        python_us, router_us = await spent(gw, gw.url + path(name), script)
        spread = f"{one.lowest:.2f}-{one.highest:.2f}"
        print(f"{name:24}{one.throughput:12.2f}{spread:>16}{python_us:12.1f}{router_us:12.1f}")


async def main(rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="engine-bench-") as folder:
        async with upstream() as url:
            operations = {f"GET {path(name)}": refs for name, refs in HEADERS.items()}
            operations |= {f"POST {path(name)}": refs for name, refs in BODIES.items()}
            async with process_gateway(Path(folder), operations, upstream=url) as gw:
                await gw.serving()
                (worker,) = gw.workers
                pin(gw.envoy.pid, ROUTER_CORE)
                pin(worker.pid, OTHERS_CORE)
                script = Path(folder) / "post.lua"
                script.write_text(POST)
                await measure(gw, HEADERS, "plain", None, rounds)
                await measure(gw, BODIES, "plain body", str(script), rounds)
                plain = await latencies(gw.url + path("plain"))
                header = await latencies(gw.url + path("header"))
                print("\none request at a time, ms        p50      p99")
                for name, took in (("plain", plain), ("header", header)):
                    print(f"{name:24}{statistics.median(took):12.2f}{percentile(took, 0.99):9.2f}")
                print(f"worker: {worker.resident_mb():.0f} MB resident")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS))
