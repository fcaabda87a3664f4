"""What a change costs between the ADS server and a router: `python -m tests.bench.xds_change`.

By number of scopes loaded: a cold router until it has them all, and from `publish` to the
acknowledgement and to the first answer of the new version, for a changed and for a new scope.
"""

import asyncio
import os
import statistics
import time
from pathlib import Path

import httptools

from tests.servers.envoy import envoy
from tests.xds.ads.routers import Recorded, ads, answers, bootstrap, listener, socket_folder

LOADED = (10, 1_000, 5_000)
CHANGES = 200


class Probe(asyncio.Protocol):
    """One keep-alive connection that asks again and again until it gets what it wants."""

    def __init__(self) -> None:
        self._wanted = b""
        self._request = b""
        self._done: asyncio.Future[float] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._start()

    def _start(self) -> None:
        self._body = b""
        self._parser = httptools.HttpResponseParser(self)

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        assert self._done is not None
        if self._body == self._wanted:
            self._done.set_result(time.perf_counter())
        else:
            asyncio.get_running_loop().call_soon(self._ask)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def _ask(self) -> None:
        self._start()
        self._transport.write(self._request)

    async def until(self, path: str, wanted: str) -> float:
        """When `path` was first answered with `wanted`."""
        self._request = f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
        self._wanted = wanted.encode()
        self._done = asyncio.get_running_loop().create_future()
        self._ask()
        return await self._done


class Clocked(Recorded):
    """Knows when the router came."""

    connected_s = 0.0

    def connected(self, node: str, version: str) -> None:
        self.connected_s = time.perf_counter()
        super().connected(node, version)


def shown(times_s: list[float]) -> str:
    ranked = sorted(times_s)
    p99 = ranked[int(len(ranked) * 0.99) - 1]
    return f"p50 {statistics.median(ranked) * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms"


def cpu_s(pid: int) -> float:
    """User and system time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(count: int) -> None:
    scopes = [answers(f"api{number}", "old") for number in range(count)]
    async with socket_folder() as socket:
        events = Clocked()
        async with ads(socket, events) as server:
            server.publish([listener(), *scopes])
            async with envoy(bootstrap("router", socket)) as one:
                await events.has(*scopes)
                took_s = time.perf_counter() - events.connected_s
                print(f"{count} scopes: a cold router has them {took_s * 1e3:.0f} ms after it came")
                port = await one.port("http")
                loop = asyncio.get_running_loop()
                _, probe = await loop.create_connection(Probe, "127.0.0.1", port)
                acked: list[float] = []
                changed: list[float] = []
                added: list[float] = []
                used_s = cpu_s(one.pid)
                for number in range(CHANGES):
                    text = f"new {number}"
                    fresh = answers(f"api{number % count}", text)
                    began = time.perf_counter()
                    server.publish([fresh])
                    await events.has(fresh)
                    acked.append(time.perf_counter() - began)
                    text = f"newer {number}"
                    fresh = answers(f"api{number % count}", text)
                    began = time.perf_counter()
                    server.publish([fresh])
                    changed.append(await probe.until(f"/api{number % count}", text) - began)
                    await events.has(fresh)
                    fresh = answers(f"extra{number}", text)
                    began = time.perf_counter()
                    server.publish([fresh])
                    added.append(await probe.until(f"/extra{number}", text) - began)
                    await events.has(fresh)
                used_s = cpu_s(one.pid) - used_s
                print(f"  publish to ACK:                  {shown(acked)}")
                print(f"  publish to 200, changed scope:   {shown(changed)}")
                print(f"  publish to 200, new scope:       {shown(added)}")
                print(f"  Envoy CPU per change, probes in: {used_s / CHANGES / 3 * 1e3:.1f} ms")


async def main() -> None:
    for count in LOADED:
        await measure(count)


if __name__ == "__main__":
    asyncio.run(main())
