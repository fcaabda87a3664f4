"""What a call from Envoy costs Python: `python -m tests.bench.h2_server`.

The same handlers behind the server of `xds.wire.h2` and behind grpc.aio, on Unix sockets, 64 calls
at once from one connection of another process, which writes HTTP/2 frames without much thought.
CPU time of the serving process, all its threads, by uvloop; rounds alternate between the servers.
"""

import asyncio
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import grpc.aio
import uvloop

from tests.xds.wire.h2.peer import GREETING, data, headers, prefixed
from xds.wire.h2 import Stream, serve_stream, serve_unary
from xds.wire.h2 import frames as wire

AT_ONCE = 64
CALLS = 8_000
ROUNDS = 5
SERVERS = ("h2", "grpc")
REQUEST = b"a request of Envoy's usual size, about two hundred bytes. " * 4
REPLY = b"an answer of about fifty bytes, as most of them are"
METHODS = {"unary": "/bench.Service/Unary", "stream": "/bench.Service/Stream"}


class Twice:
    """Answers every message; ends when the client does."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def message(self, data: bytes) -> None:
        self.stream.send(REPLY)

    def half_closed(self) -> None:
        self.stream.finish()

    def lost(self) -> None:
        pass


class Client(asyncio.Protocol):
    """Keeps `AT_ONCE` calls going; a stream sends its second message when the first is answered."""

    transport: asyncio.Transport

    def __init__(self, kind: str, calls: int) -> None:
        self.done = asyncio.get_running_loop().create_future()
        self.kind = kind
        self.left = calls
        self.open = 0
        self.number = 1
        self.buffer = b""
        self.messages: dict[int, int] = {}
        path = METHODS[kind].encode()
        # literal without indexing, name of static entry 4 (:path)
        self.block = b"\x83\x86\x04" + bytes((len(path),)) + path + REQUEST_BLOCK_END

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass of it
        window = wire.window_update(0, 2**30)
        self.transport.write(GREETING + window + b"".join(self.begin() for _ in range(AT_ONCE)))

    def begin(self) -> bytes:
        if not self.left:
            return b""
        self.left -= 1
        self.open += 1
        number, self.number = self.number, self.number + 2
        self.messages[number] = 0
        end = wire.END_STREAM if self.kind == "unary" else 0
        return headers(number, wire.END_HEADERS, self.block) + data(number, prefixed(REQUEST), end)

    def data_received(self, data_: bytes) -> None:
        self.buffer += data_
        buffer, at, out = self.buffer, 0, []
        while len(buffer) - at >= 9:
            high, low, kind, flags, number = wire.FRAME_HEADER.unpack_from(buffer, at)
            stop = at + 9 + (high << 8 | low)
            if stop > len(buffer):
                break
            if kind == wire.PING and not flags & wire.ACK:
                out.append(wire.frame(wire.PING, wire.ACK, 0, buffer[at + 9 : stop]))
            elif kind == wire.SETTINGS and not flags & wire.ACK:
                out.append(wire.frame(wire.SETTINGS, wire.ACK, 0))
            elif kind == wire.DATA and stop - at > 9:
                assert buffer[at + 14 : stop] == REPLY
                self.messages[number] += 1
                if self.kind == "stream":
                    end = wire.END_STREAM if self.messages[number] == 2 else 0
                    out.append(data(number, b"" if end else prefixed(REQUEST), end))
            elif kind in (wire.RST_STREAM, wire.GOAWAY):
                raise SystemExit(f"the server gave up: frame type {kind}")
            if kind == wire.HEADERS and flags & wire.END_STREAM:
                assert self.messages.pop(number) == (1 if self.kind == "unary" else 2)
                self.open -= 1
                out.append(self.begin())
            at = stop
        self.buffer = buffer[at:]
        self.transport.write(b"".join(out))
        if not self.open:
            self.done.set_result(None)


REQUEST_BLOCK_END = (
    b"\x01\x05bench"  # :authority
    b"\x0f\x10\x10application/grpc"  # content-type
    b"\x00\x02te\x08trailers"
)


async def _call(kind: str, path: str, calls: int) -> None:
    loop = asyncio.get_running_loop()
    transport, client = await loop.create_unix_connection(lambda: Client(kind, calls), path)
    await client.done
    transport.close()


async def _serve(folder: Path, orders: Connection) -> None:
    """Both servers in one process; tells the CPU seconds it has used whenever it is asked."""

    async def grpc_unary(request: bytes, _: object) -> bytes:
        return REPLY

    async def grpc_stream(requests: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
        async for _request in requests:
            yield REPLY

    server = grpc.aio.server()
    methods = {
        "Unary": grpc.unary_unary_rpc_method_handler(grpc_unary),
        "Stream": grpc.stream_stream_rpc_method_handler(grpc_stream),
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("bench.Service", methods),)
    )
    for kind in METHODS:
        server.add_insecure_port(f"unix:{folder}/grpc-{kind}")
    await server.start()
    async with (
        serve_unary(lambda request: REPLY, path=folder / "h2-unary"),
        serve_stream(Twice, path=folder / "h2-stream"),
    ):
        orders.send(0.0)
        loop = asyncio.get_running_loop()
        asked = asyncio.Event()
        loop.add_reader(orders.fileno(), asked.set)
        while True:
            await asked.wait()
            asked.clear()
            if not orders.recv():
                break
            orders.send(time.process_time())
        loop.remove_reader(orders.fileno())
    await server.stop(0)


def _served(folder: Path, orders: Connection) -> None:
    uvloop.run(_serve(folder, orders))


def _cpu_s(orders: Connection) -> float:
    orders.send(True)
    spent: float = orders.recv()
    return spent


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else CALLS
    context = multiprocessing.get_context("spawn")
    orders, theirs = context.Pipe()
    with tempfile.TemporaryDirectory(prefix="h2-") as name:
        folder = Path(name)
        process = context.Process(target=_served, args=(folder, theirs))
        process.start()
        orders.recv()
        try:
            for kind in METHODS:
                costs: dict[str, list[float]] = {"h2": [], "grpc": []}
                rates: dict[str, list[float]] = {"h2": [], "grpc": []}
                for round_ in range(ROUNDS + 1):
                    for server in SERVERS:
                        before, begin = _cpu_s(orders), time.perf_counter()
                        uvloop.run(_call(kind, str(folder / f"{server}-{kind}"), calls))
                        taken_s = time.perf_counter() - begin
                        spent_s = _cpu_s(orders) - before
                        if round_:  # the first one warms up
                            costs[server].append(spent_s * 1e6 / calls)
                            rates[server].append(calls / taken_s)
                ours, aio = (statistics.median(costs[server]) for server in ("h2", "grpc"))
                ours_rate, aio_rate = (statistics.median(rates[s]) for s in ("h2", "grpc"))
                print(
                    f"{kind} call{' of two messages' * (kind == 'stream')}, {AT_ONCE} at once: "
                    f"xds.wire.h2 {ours:.1f} us of Python ({ours_rate:,.0f}/s), "
                    f"grpc.aio {aio:.0f} us ({aio_rate:,.0f}/s), ratio {aio / ours:.1f}"
                )
        finally:
            orders.send(False)
            process.join(30)
            if process.is_alive():
                process.terminate()


if __name__ == "__main__":
    main()
