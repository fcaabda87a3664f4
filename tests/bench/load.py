"""Load from wrk, against an upstream that costs next to nothing: an Envoy that answers itself."""

import asyncio
import os
import re
import shutil
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from policy_engine.policy import typed
from tests.servers.envoy import envoy
from tests.servers.gateway import free_ports

_HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "envoy.extensions.filters.http.router.v3.Router"


ROUTER_CORE, OTHERS_CORE = 0, 1


def pin(pid: int, core: int) -> None:
    """Keep all threads of a process on one core: what is measured on one, the rest on the other."""
    for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208  (numbers, not paths)
        os.sched_setaffinity(int(thread), {core % (os.cpu_count() or 1)})


@dataclass(frozen=True, slots=True)
class Result:
    """One run of wrk."""

    requests: int
    requests_per_s: float
    failures: int  # answers other than 2xx and 3xx, and broken connections
    p50_ms: float
    p99_ms: float


def _ms(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()  # type: ignore[union-attr]
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}[unit]


async def wrk(
    url: str,
    *,
    seconds: float = 3,
    connections: int = 16,
    headers: Sequence[str] = (),
    script: str | None = None,
) -> Result:
    """Full load on `url` for `seconds`, from one thread."""
    binary = shutil.which("wrk")
    if binary is None:
        raise SystemExit("this benchmark needs wrk: apt-get install wrk")
    arguments = ["-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency"]
    for header in headers:
        arguments += ["-H", header]
    if script is not None:
        arguments += ["-s", script]
    process = await asyncio.create_subprocess_exec(
        binary, *arguments, url, stdout=asyncio.subprocess.PIPE
    )
    pin(process.pid, OTHERS_CORE)
    out = (await process.communicate())[0].decode()

    def find(pattern: str, default: str = "0") -> str:
        match = re.search(pattern, out)
        return match[1] if match else default

    broken = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    return Result(
        requests=int(find(r"(\d+) requests in")),
        requests_per_s=float(find(r"Requests/sec:\s+([\d.]+)")),
        failures=int(find(r"Non-2xx or 3xx responses: (\d+)"))
        + (sum(map(int, broken.groups())) if broken else 0),
        p50_ms=_ms(find(r"\s50%\s+(\S+)", "0ms")),
        p99_ms=_ms(find(r"\s99%\s+(\S+)", "0ms")),
    )


def _listener(port: int, route: dict[str, Any]) -> dict[str, Any]:
    manager = {
        "stat_prefix": "bench",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": typed(_ROUTER)}],
    }
    return {
        "name": f"port-{port}",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": typed(_HCM, manager)}]}],
    }


@asynccontextmanager
async def upstream(body: str = "x" * 100) -> AsyncIterator[str]:
    """URL of an upstream that answers 200 with `body`, at Envoy's speed."""
    (port,) = free_ports(1)
    answer = {"status": 200, "body": {"inline_string": body}}
    route = {"match": {"prefix": "/"}, "direct_response": answer}
    config = {"static_resources": {"listeners": [_listener(port, route)]}}
    async with envoy(config) as running:
        pin(running.pid, OTHERS_CORE)
        yield f"http://127.0.0.1:{port}"


@asynccontextmanager
async def plain_router(url: str, *, concurrency: int) -> AsyncIterator[tuple[str, int]]:
    """URL and process of an Envoy that only routes to `url`; what it costs is 1.00."""
    (port,) = free_ports(1)
    host, _, number = url.removeprefix("http://").partition(":")
    endpoint = {"address": {"socket_address": {"address": host, "port_value": int(number)}}}
    cluster = {
        "name": "up",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "up",
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
    }
    route = {"match": {"prefix": "/"}, "route": {"cluster": "up"}}
    config = {"static_resources": {"listeners": [_listener(port, route)], "clusters": [cluster]}}
    async with envoy(config, concurrency=concurrency) as running:
        pin(running.pid, ROUTER_CORE)
        yield f"http://127.0.0.1:{port}", running.pid


def cpu_s(pid: int) -> float:
    """CPU time that the process has used, seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Case:
    """Something to load, and the process whose CPU time it costs."""

    pid: int
    run: Callable[[], Awaitable[Result]]


@dataclass(frozen=True, slots=True)
class Ratio:
    """A case against the base of the same rounds; 1.00 is free."""

    throughput: float  # median over the rounds
    lowest: float
    highest: float
    cpu: float  # CPU time per request, least of all rounds: noise only adds to it


async def ratios(cases: dict[str, Case], *, base: str, rounds: int = 5) -> dict[str, Ratio]:
    """Each case against `base`, in interleaved rounds."""
    measured: dict[str, list[float]] = {name: [] for name in cases}
    costs: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds):
        rates: dict[str, float] = {}
        for name, case in cases.items():
            before = cpu_s(case.pid)
            result = await case.run()
            if result.failures:
                raise SystemExit(f"{name}: {result.failures} of {result.requests} failed")
            costs[name].append((cpu_s(case.pid) - before) / result.requests)
            rates[name] = result.requests_per_s
        for name, rate in rates.items():
            measured[name].append(rate / rates[base])
    least = min(costs[base])
    return {
        name: Ratio(statistics.median(all_), min(all_), max(all_), least / min(costs[name]))
        for name, all_ in measured.items()
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of `values` lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
