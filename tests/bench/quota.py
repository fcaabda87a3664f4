"""Limits held by shares: what they cost a router, and how exact they are over two.

`python -m tests.bench.quota [ROUNDS]`. Throughput is against plain routing through the same kind
of Envoy in the same rounds; windows are against the limit. The rate limiter runs in a process of
its own, and so does each load.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

from tests.bench.limiter import limiter_process
from tests.bench.load import (
    OTHERS_CORE,
    ROUTER_CORE,
    Case,
    cpu_s,
    pin,
    plain_router,
    ratios,
    upstream,
    wrk,
)
from tests.ratelimiter.sharing import Load, orders, sharing_router
from tests.servers.valkey import ValkeyServer, valkey_server

ROUNDS = 5
SECONDS = 2.0
CONNECTIONS = 32
CLIENTS = 500
LIMIT = 100
MANY = 1_000_000_000
SETTLED_S = 2
MOVE_S = 8
END_S = 16
SCRIPT = f"""
math.randomseed(os.time())
request = function()
  return wrk.format("GET", "/orders/a", {{["x-user"] = "user-" .. math.random({CLIENTS})}})
end
"""


def limiter_of(valkey: ValkeyServer, socket: Path) -> AbstractAsyncContextManager[int]:
    """A process that hands out shares, by its id."""
    return limiter_process(
        socket,
        redis_addresses=[f"unix:{valkey.socket}"],
        ratelimiter_port=0,
        ratelimiter_quota_socket=socket,
        ratelimiter_limiters=1,
    )


async def load(port: int, first: float, then: float, seconds: float) -> None:
    """A load of its own process: passed requests by second, as JSON.

    It says that it is ready, and is told when to start.
    """
    made = Load(port, first)
    print("ready", flush=True)
    started = float(await asyncio.to_thread(sys.stdin.readline))

    async def move() -> None:
        await asyncio.sleep(started + MOVE_S - time.monotonic())
        made.rate = then

    await asyncio.gather(made.run(started, seconds), move())
    windows = [
        sum(made.passed[second * 10 + tenth] for tenth in range(10))
        for second in range(round(seconds))
    ]
    print(json.dumps({"windows": windows, "late_s": made.late_s, "other": dict(made.other)}))


async def loaded(port: int, all_ready: asyncio.Barrier, *numbers: float) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.bench.quota", "load", str(port), *map(str, numbers)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await process.stdout.readline()
    await all_ready.wait()
    out = (await process.communicate(f"{time.monotonic() + 0.5}\n".encode()))[0]
    found: dict[str, Any] = json.loads(out)
    return found


async def throughput(rounds: int) -> None:
    """What a share costs a router: for everybody together, and per user."""
    with (
        tempfile.NamedTemporaryFile("w", suffix=".lua") as script,
        tempfile.TemporaryDirectory() as folder,
    ):
        script.write(SCRIPT)
        script.flush()
        socket = Path(folder) / "q.sock"
        async with AsyncExitStack() as stack:
            behind = await stack.enter_async_context(upstream())
            valkey = await stack.enter_async_context(valkey_server())
            pid = await stack.enter_async_context(limiter_of(valkey, socket))
            pin(pid, OTHERS_CORE)
            url, router = await stack.enter_async_context(plain_router(behind, concurrency=1))
            port = int(behind.rpartition(":")[2])

            def case(router: int, url: str) -> Case:
                return Case(
                    router,
                    lambda: wrk(url, seconds=SECONDS, connections=CONNECTIONS, script=script.name),
                )

            cases = {"plain": case(router, f"{url}/orders/a")}
            rate = {"limit": MANY, "duration": "1s"}
            by_user = {"keyExtraction": [{"type": "header", "key": "X-User"}]}
            of_api = {"keyExtraction": [{"type": "apiname"}]}
            limited = orders(port, rate)
            unlimited = limited.spec.model_copy(update={"policies": ()})
            routed = limited.model_copy(update={"spec": unlimited})
            for name, limited in {
                "the same route without a limit": routed,
                "a limit for the API": orders(port, rate, **of_api),
                "a limit for the route": orders(port, rate),
                f"a limit per user, {CLIENTS} of them": orders(port, rate, **by_user),
            }.items():
                made = await stack.enter_async_context(sharing_router(limited, f"unix:{socket}"))
                pin(made.envoy.pid, ROUTER_CORE)
                at = str(made.client.base_url)
                cases[name] = case(made.envoy.pid, at)
                await wrk(at, seconds=SECONDS, connections=CONNECTIONS, script=script.name)
            used = cpu_s(pid)
            found = await ratios(cases, base="plain", rounds=rounds)
            python_s = cpu_s(pid) - used
            for name, one in found.items():
                print(
                    f"{name:36} {one.throughput:.2f} of plain ({one.lowest:.2f} to"
                    f" {one.highest:.2f}), router's CPU {one.cpu:.2f}",
                    flush=True,
                )
            print(f"Python in all rounds: {python_s:.2f} s")


async def accuracy(name: str, rates: tuple[float, float], then: tuple[float, float]) -> None:
    """Two routers, one limit of `LIMIT` per second."""
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "q.sock"
        async with AsyncExitStack() as stack:
            behind = await stack.enter_async_context(upstream())
            valkey = await stack.enter_async_context(valkey_server())
            await stack.enter_async_context(limiter_of(valkey, socket))
            limited = orders(int(behind.rpartition(":")[2]), {"limit": LIMIT, "duration": "1s"})
            ports = []
            for _ in rates:
                made = await stack.enter_async_context(sharing_router(limited, f"unix:{socket}"))
                ports.append(int(made.client.base_url.port or 0))
            together = asyncio.Barrier(len(rates))
            runs = await asyncio.gather(
                *(
                    loaded(port, together, first, later, END_S)
                    for port, first, later in zip(ports, rates, then, strict=True)
                )
            )
        windows = [a + b for a, b in zip(*(run["windows"] for run in runs), strict=True)]
        late = max(run["late_s"] for run in runs)
        steady = [one / LIMIT for one in windows[SETTLED_S:MOVE_S]]
        after = [one / LIMIT for one in windows[MOVE_S + 2 :]]
        print(
            f"{name:12} first second {windows[0] / LIMIT:.2f}; seconds {SETTLED_S} to {MOVE_S}:"
            f" mean {statistics.mean(steady):.3f}, {min(steady):.2f} to {max(steady):.2f}; then"
            f" {windows[MOVE_S] / LIMIT:.2f}, {windows[MOVE_S + 1] / LIMIT:.2f}, from then on mean"
            f" {statistics.mean(after):.3f}; load at worst {late * 1e3:.0f} ms behind",
            flush=True,
        )
        print(f"             {windows}", flush=True)


async def main(rounds: int) -> None:
    for name, rates, then in (
        ("equal", (300, 300), (300, 300)),
        ("20 to 1", (400, 20), (400, 20)),
        ("moves", (400, 20), (20, 400)),
    ):
        await accuracy(name, rates, then)
    await throughput(rounds)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["load", port, *numbers]:
            asyncio.run(load(int(port), *map(float, numbers)))
        case [rounds]:
            asyncio.run(main(int(rounds)))
        case _:
            asyncio.run(main(ROUNDS))
