"""The access log at full load: every request counted, and what one costs in Python.

First each step by itself on one message of Envoy's, in CPU time, then the whole way: wrk at full
load through Envoy for ten seconds, analytics in a process of its own, JetStream on file storage,
SQLite.
"""

import asyncio
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

from analytics.aggregation import Aggregation
from analytics.batch import requests_served
from analytics.framing import Framing
from analytics.ports import Selection
from analytics.sql import open_totals
from analytics.totals import Batch, fold
from bus.envelope import decode, encode
from tests.analytics.router import Router, router
from tests.bench.load import wrk
from tests.servers.nats import nats_server
from xds.wire.messages import build, message_class

_MESSAGE = "envoy.service.accesslog.v3.StreamAccessLogsMessage"
_ENTRIES = 200
_SECONDS = 10
_ROUNDS = 7
_ALL = Selection(0, 1 << 40)


def _message() -> bytes:
    """One message as Envoy sends it, of requests for ten operations."""
    entries = [
        {
            "common_properties": {
                "start_time": f"2025-11-23T10:00:00.{number:06}Z",
                "duration": f"0.00{1000 + number}s",
                "time_to_first_upstream_tx_byte": "0.000200s",
                "time_to_last_upstream_rx_byte": f"0.000{500 + number}s",
                "route_name": f"GET|/weather/v1/{number % 10}|*|weather",
                "upstream_cluster": "weather.example:443",
                "stream_id": f"c6ed9afb-8a0e-45df-b668-{number:012}",
                "downstream_remote_address": _address(50_000 + number),
                "downstream_local_address": _address(8080),
                "upstream_remote_address": _address(443),
            },
            "request": {
                "authority": "gateway.example",
                "path": f"/weather/v1/{number % 10}?city={number}",
                "user_agent": "bench/1.0",
                "request_headers_bytes": 300,
                "request_headers": {"x-signalbox-application": "shop"},
            },
            "response": {
                "response_code": 200,
                "response_headers_bytes": 90,
                "response_body_bytes": 500,
                "response_code_details": "via_upstream",
            },
        }
        for number in range(_ENTRIES)
    ]
    message = build(_MESSAGE, {"http_logs": {"log_entry": entries}})
    raw: bytes = message.SerializeToString()
    return raw


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _us_per_entry(step: Callable[[], object]) -> float:
    """Median of rounds of at least 50 ms."""
    times = []
    for _ in range(_ROUNDS):
        count, start = 0, time.process_time()
        while (took := time.process_time() - start) < 0.05:
            step()
            count += 1
        times.append(took / count / _ENTRIES * 1e6)
    return statistics.median(times)


def _steps() -> None:
    raw = _message()
    kind = message_class(_MESSAGE)
    entries = kind.FromString(raw).http_logs.log_entry
    event = requests_served("router-1", entries)
    message = encode(event, "one")
    print(f"message: {len(raw) / _ENTRIES:.0f} B per entry; event: ", end="")
    print(f"{len(message.body) / _ENTRIES:.0f} B per request")
    steps: dict[str, Callable[[], object]] = {
        "find the message's end": lambda: Framing().feed(raw),
        "parse": lambda: kind.FromString(raw),
        "into columns": lambda: requests_served("router-1", entries),
        "into JSON": lambda: encode(event, "one"),
        "read and check": lambda: decode(*message),
        "fold": lambda: fold(event),
    }
    total = 0.0
    for name, step in steps.items():
        cost = _us_per_entry(step)
        total += cost
        print(f"  {name:24} {cost:6.2f} µs per entry")
    print(f"  {'all of it':24} {total:6.2f} µs per entry")


async def _stores(folder: Path) -> None:
    """What a transaction costs, with few and with many operations."""
    for operations in (10, 5_000):
        async with open_totals(f"sqlite+aiosqlite:///{folder}/{operations}.db") as store:
            times = []
            for number in range(10):
                calls = [fold(_event(operations, number * 30 + part)) for part in range(30)]
                batches = [Batch(f"{number}-{part}", one) for part, one in enumerate(calls)]
                start = time.process_time()
                await store.count(batches)
                times.append(time.process_time() - start)
            median_s = statistics.median(times)
            print(f"  30 events, {operations} operations: {median_s * 1e3:.0f} ms", end="")
            print(f" = {median_s / 30 / _ENTRIES * 1e6:.2f} µs per request")


def _event(operations: int, seed: int) -> Any:
    kind = message_class(_MESSAGE)
    entries = kind.FromString(_message()).http_logs.log_entry
    for number, entry in enumerate(entries):
        chosen = (seed * _ENTRIES + number) * 7919 % operations
        entry.common_properties.route_name = f"GET|/api/{chosen}|*|api-{chosen % 100}"
    return requests_served("router-1", entries)


async def _full_load(folder: Path) -> bool:
    database = f"sqlite+aiosqlite:///{folder}/totals.db"
    path = folder / "als.sock"
    async with nats_server() as nats, open_totals(database) as store:
        with socket.socket(socket.AF_UNIX) as held:
            held.bind(str(path))
            held.listen(16)
            async with (
                _component(nats.url, database, held.fileno()) as pid,
                router(path, concurrency=1) as envoy,
            ):
                idle_s = _cpu_s(pid)
                result = await wrk(
                    f"http://127.0.0.1:{envoy.port}/weather/v1/oslo", seconds=_SECONDS
                )
                sent = await _sent(envoy)
                took_s, counted = await _counted(store, sent)
                busy_s = _cpu_s(pid) - idle_s
    print(f"  {result.requests_per_s:.0f} requests/s, p99 {result.p99_ms:.1f} ms")
    print(f"  sent {sent}, counted {counted}, all in {took_s:.1f} s after the last")
    print(f"  analytics, all its CPU time: {busy_s / sent * 1e6:.1f} µs per request")
    return counted == sent


async def _sent(envoy: Router) -> int:
    """What Envoy has answered, by its own count."""
    name = "http.http.downstream_rq_completed"
    return (await envoy.envoy.stats("http.http.downstream_rq_completed"))[name]


async def _counted(store: Any, wanted: int) -> tuple[float, int]:
    start = time.perf_counter()
    while True:
        aggregation = Aggregation(("api",))
        await aggregation.add_all(store.rows(_ALL))
        counted = aggregation.total().requests
        took_s = time.perf_counter() - start
        if counted >= wanted or took_s > 30:
            return took_s, counted
        await asyncio.sleep(0.05)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def _component(nats_url: str, database: str, descriptor: int) -> AsyncIterator[int]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.analytics.component", nats_url, database, str(descriptor)),
        pass_fds=(descriptor,),
        stdout=PIPE,
    )
    assert process.stdout is not None
    try:
        while await process.stdout.readline() != b"ready\n":
            assert process.returncode is None
        yield process.pid
    finally:
        process.terminate()
        await process.communicate()


async def _main() -> int:
    print("each step by itself")
    _steps()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        print("counting in SQLite")
        await _stores(Path(folder))
        print(f"full load for {_SECONDS} s")
        complete = await _full_load(Path(folder))
    print("  counted = sent" if complete else "  NOT all that was sent is counted")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(_main()))
