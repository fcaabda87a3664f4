"""Shared limits through a real Envoy, against plain routing through the same kind of Envoy.

`python -m tests.bench.ratelimit [ROUNDS]`. The limiter runs in a process of its own, as it does
where it is deployed alone; its CPU time per decision is what it costs. 1.00 is free.
"""

import asyncio
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from policy_engine.rate_limits.limits import Algorithm, Limit, Quota
from ratelimiter.service import serving, store_of
from ratelimiter.settings import RatelimiterSettings
from tests.bench.limiter import limiter_process
from tests.bench.load import (
    OTHERS_CORE,
    ROUTER_CORE,
    Case,
    cpu_s,
    percentile,
    pin,
    plain_router,
    ratios,
    upstream,
    wrk,
)
from tests.ratelimiter.gateway import actions, bootstrap, call, limiting
from tests.servers.envoy import envoy
from tests.servers.valkey import ValkeyServer, valkey_server

ROUNDS = 5
SECONDS = 2.0
CONNECTIONS = 64
KEYS = 100_000
CLIENTS = 10_000
MANY = 10**12
SCRIPT = f"""
math.randomseed(os.time())
request = function()
  return wrk.format("GET", "/", {{["x-client"] = "client-" .. math.random({CLIENTS})}})
end
"""


@asynccontextmanager
async def limiter_of(valkey: ValkeyServer, socket: Path) -> AsyncIterator[int]:
    """The process that is measured, by its id."""
    async with limiter_process(
        socket,
        redis_addresses=[f"unix:{valkey.socket}"],
        ratelimiter_socket=socket,
        ratelimiter_decision_timeout_s=2,
        ratelimiter_limiters=1,
    ) as pid:
        pin(pid, OTHERS_CORE)
        yield pid


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


async def through_envoy(rounds: int) -> None:
    """Throughput and CPU time for each algorithm."""
    print(f"{rounds} rounds of {SECONDS:g} s, {CONNECTIONS} connections, {CLIENTS} clients\n")
    with (
        tempfile.NamedTemporaryFile("w", suffix=".lua") as script,
        tempfile.TemporaryDirectory() as folder,
    ):
        script.write(SCRIPT)
        script.flush()
        socket = Path(folder) / "rl.sock"
        async with upstream() as behind, valkey_server() as valkey:
            pin(valkey.pid, OTHERS_CORE)
            async with (
                limiter_of(valkey, socket) as pid,
                plain_router(behind, concurrency=1) as (plain_url, plain_pid),
            ):
                port = int(behind.rpartition(":")[2])

                def case(url: str, router: int, seconds: float = SECONDS) -> Case:
                    return Case(
                        router,
                        lambda: wrk(
                            url, seconds=seconds, connections=CONNECTIONS, script=script.name
                        ),
                    )

                for algorithm in Algorithm:
                    quota = Quota("bench", (Limit(MANY, 60.0),), algorithm=algorithm)
                    config = bootstrap(
                        f"unix:{socket}", port, [limiting([{"actions": actions(quota)}])]
                    )
                    async with envoy(config) as router:
                        pin(router.pid, ROUTER_CORE)
                        url = f"http://127.0.0.1:{await router.port('http')}"
                        warm = await wrk(
                            url, seconds=2, connections=CONNECTIONS, script=script.name
                        )
                        used, stored = cpu_s(pid), cpu_s(valkey.pid)
                        measured: list[int] = []

                        async def limited(url: str = url, measured: list[int] = measured):
                            result = await wrk(
                                url, seconds=SECONDS, connections=CONNECTIONS, script=script.name
                            )
                            measured.append(result.requests)
                            return result

                        found = await ratios(
                            {
                                "plain": case(plain_url, plain_pid),
                                "limited": Case(router.pid, limited),
                            },
                            base="plain",
                            rounds=rounds,
                        )
                        calls = sum(measured)
                        python_us = (cpu_s(pid) - used) / calls * 1e6
                        valkey_us = (cpu_s(valkey.pid) - stored) / calls * 1e6
                        ratio = found["limited"]
                        print(
                            f"{algorithm.value:16} {ratio.throughput:.2f} of plain"
                            f" ({ratio.lowest:.2f} to {ratio.highest:.2f}),"
                            f" router's CPU {ratio.cpu:.2f}; Python {python_us:.0f} us and Valkey"
                            f" {valkey_us:.0f} us a decision: {1e6 / python_us:,.0f} decisions per"
                            f" CPU-second; p50 {warm.p50_ms:.1f} ms, p99 {warm.p99_ms:.1f} ms",
                            flush=True,
                        )


async def many_keys() -> None:
    """`KEYS` different keys: what they take, and how long each call takes."""
    async with valkey_server() as valkey:
        settings = RatelimiterSettings(
            redis_addresses=(f"unix:{valkey.socket}",),
            ratelimiter_port=0,
            ratelimiter_limiters=1,
            ratelimiter_decision_timeout_s=5,
        )
        quota = Quota("bench", (Limit(1_000, 3_600.0),))
        async with serving(settings, None, store_of(settings)) as running:
            client = valkey.client()
            empty = int((await client.info("memory"))["used_memory"])
            before_mb = resident_mb(os.getpid())
            numbers = iter(range(KEYS))
            taken: list[float] = []

            async def one_after_the_other() -> None:
                for number in numbers:
                    data = call((quota, [("client", f"client-{number}")]))
                    started = time.perf_counter()
                    reply = running.service(data)
                    if not isinstance(reply, bytes):
                        await reply
                    taken.append(time.perf_counter() - started)

            cpu = resource.getrusage(resource.RUSAGE_SELF)
            async with asyncio.TaskGroup() as group:
                for _ in range(CONNECTIONS):
                    group.create_task(one_after_the_other())
            after = resource.getrusage(resource.RUSAGE_SELF)
            used = after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime
            full = int((await client.info("memory"))["used_memory"])
            count = await client.dbsize()
            await client.aclose()
            print(
                f"\n{KEYS:,} keys, each once: {count:,} in Valkey, {(full - empty) / KEYS:.0f} B"
                f" each ({(full - empty) / 2**20:.1f} MB); the limiter grew by"
                f" {resident_mb(os.getpid()) - before_mb:.0f} MB; p50"
                f" {statistics.median(taken) * 1e3:.2f} ms, p99"
                f" {percentile(taken, 0.99) * 1e3:.2f} ms with {CONNECTIONS} at once;"
                f" {used / KEYS * 1e6:.0f} us of Python each (the making of the calls included)"
            )


async def main(rounds: int) -> None:
    await through_envoy(rounds)
    await many_keys()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS))
