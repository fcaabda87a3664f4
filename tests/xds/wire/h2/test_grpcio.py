"""gRPC's own client, over a Unix socket."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from tests.xds.wire.h2.peer import Echo, Kept
from xds.wire.h2 import Limits, RpcRefused, Status, serve_stream, serve_unary

MIB = 2**20
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
LARGE = Limits(message_max_bytes=8 * MIB)


@asynccontextmanager
async def channel(address: str, *more: tuple[str, int]) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(address, options=[*UNLIMITED, *more]) as opened:
        yield opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "h2.sock"


async def test_unary_calls_of_every_size(path: Path) -> None:
    async with (
        serve_unary(lambda message: message[::-1], path=path, limits=LARGE) as server,
        channel(server.address) as client,
    ):
        call = client.unary_unary("/test.Service/Unary")
        for size in (0, 1, 16_379, 16_380, 65_530, 65_535, 70_000, MIB, 4 * MIB):
            message = (b"abcdefg" * (size // 7 + 1))[:size]
            assert await call(message, timeout=60) == message[::-1]
        assert server.counters.streams_open == 0
        assert server.counters.messages_sent == 9


async def test_unary_calls_over_tcp(path: Path) -> None:
    async with serve_unary(lambda message: message) as server, channel(server.address) as client:
        assert await client.unary_unary("/test.Service/Unary")(b"x", timeout=60) == b"x"


async def test_a_stream_of_messages_both_ways(path: Path) -> None:
    async with (
        serve_stream(Echo, path=path, limits=LARGE) as server,
        channel(server.address) as client,
    ):
        call = client.stream_stream("/test.Service/Stream")(timeout=60)
        for size in (0, 1, 1_000, 100_000, 4 * MIB, 5):
            await call.write(b"m" * size)
            assert await call.read() == b"m" * size
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() == grpc.StatusCode.OK


async def test_many_messages_without_waiting_for_answers(path: Path) -> None:
    async with serve_stream(Echo, path=path) as server, channel(server.address) as client:

        async def requests() -> AsyncIterator[bytes]:
            for number in range(2_000):
                yield b"%d" % number * 100

        call = client.stream_stream("/test.Service/Stream")(requests(), timeout=60)
        assert [one async for one in call] == [b"%d" % number * 100 for number in range(2_000)]


async def test_many_calls_at_once(path: Path) -> None:
    async def later(message: bytes) -> bytes:
        await asyncio.sleep(0)
        return message

    async with serve_unary(later, path=path) as server, channel(server.address) as client:
        call = client.unary_unary("/test.Service/Unary")
        sent = [b"%d" % number for number in range(2_000)]
        assert list(await asyncio.gather(*(call(one, timeout=60) for one in sent))) == sent
        assert server.counters.messages_sent == 2_000


async def test_errors_arrive_with_status_and_message(path: Path) -> None:
    def refuses(message: bytes) -> bytes:
        if message == b"fail":
            raise ZeroDivisionError("secret")
        raise RpcRefused(Status.PERMISSION_DENIED, "not yoü: 100 %")

    async with serve_unary(refuses, path=path) as server, channel(server.address) as client:
        call = client.unary_unary("/test.Service/Unary")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"x", timeout=60)
        assert refused.value.code() == grpc.StatusCode.PERMISSION_DENIED
        assert refused.value.details() == "not yoü: 100 %"
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await call(b"fail", timeout=60)
        assert failed.value.code() == grpc.StatusCode.INTERNAL
        assert "secret" not in str(failed.value.details())


async def test_compressed_requests_are_refused_as_unimplemented(path: Path) -> None:
    async with (
        serve_unary(lambda message: message, path=path) as server,
        channel(server.address) as client,
    ):
        call = client.unary_unary("/test.Service/Unary")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"x" * 10_000, compression=grpc.Compression.Gzip, timeout=60)
        assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert await call(b"x", timeout=60) == b"x"


async def test_deadlines_and_cancellations_of_the_client_end_the_work(path: Path) -> None:
    ended: asyncio.Queue[str] = asyncio.Queue()
    begun = asyncio.Event()

    async def hangs(message: bytes) -> bytes:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.put_nowait(message.decode())
        return b""

    async with serve_unary(hangs, path=path) as server, channel(server.address) as client:
        method = client.unary_unary("/test.Service/Unary")
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await method(b"deadline", timeout=0.5)
        assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert await asyncio.wait_for(ended.get(), 30) == "deadline"
        begun.clear()
        call = method(b"cancelled", timeout=60)
        waiting = asyncio.ensure_future(call)
        await asyncio.wait_for(begun.wait(), 30)
        call.cancel()
        assert await asyncio.wait_for(ended.get(), 30) == "cancelled"
        await asyncio.wait([waiting])
        assert server.counters.resets_received == 2


async def test_a_cancelled_stream_is_lost_and_the_connection_goes_on(path: Path) -> None:
    services = Kept()
    async with serve_stream(services, path=path) as server, channel(server.address) as client:
        call = client.stream_stream("/test.Service/Stream")(timeout=60)
        await call.write(b"x")
        assert await call.read() == b"x"
        call.cancel()
        async with asyncio.timeout(30):
            while not services.handlers[0].was_lost:
                await asyncio.sleep(0.01)
        second = client.stream_stream("/test.Service/Stream")(timeout=60)
        await second.write(b"y")
        assert await second.read() == b"y"
        await second.done_writing()
        assert await second.code() == grpc.StatusCode.OK
        assert server.counters.connections == 1


async def test_keepalive_pings_keep_an_idle_connection(path: Path) -> None:
    options = [
        ("grpc.keepalive_time_ms", 100),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    async with (
        serve_unary(lambda message: message, path=path) as server,
        channel(server.address, *options) as client,
    ):
        call = client.unary_unary("/test.Service/Unary")
        assert await call(b"x", timeout=60) == b"x"
        told = server.counters.bytes_sent
        async with asyncio.timeout(60):
            while server.counters.bytes_sent < told + 3 * 17:  # three acknowledged pings
                await asyncio.sleep(0.01)
        assert await call(b"x", timeout=60) == b"x"
        assert server.counters.connections == 1


async def test_draining_finishes_calls_and_clients_move_on(path: Path) -> None:
    promise: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    begun = asyncio.Event()

    def slow(message: bytes) -> asyncio.Future[bytes]:
        begun.set()
        return promise

    async with serve_unary(slow, path=path) as server, channel(server.address) as client:
        call = client.unary_unary("/test.Service/Unary")
        waiting = asyncio.ensure_future(call(b"x", timeout=60))
        await asyncio.wait_for(begun.wait(), 30)
        draining = asyncio.ensure_future(server.drain(30))
        async with serve_unary(lambda message: b"successor", path=path):
            promise.set_result(b"finished")
            assert await waiting == b"finished"
            await asyncio.wait_for(draining, 30)
            assert server.counters.connections_open == 0
            assert path.is_socket()  # the successor's
            assert await call(b"x", timeout=60, wait_for_ready=True) == b"successor"


async def test_draining_cuts_what_does_not_end_in_time(path: Path) -> None:
    services = Kept()
    async with serve_stream(services, path=path) as server, channel(server.address) as client:
        call = client.stream_stream("/test.Service/Stream")(timeout=60)
        await call.write(b"x")
        assert await call.read() == b"x"
        await server.drain(0.05)
        assert services.handlers[0].was_lost == 1
        assert await call.code() == grpc.StatusCode.UNAVAILABLE


async def test_the_socket_is_private_and_goes_with_the_server(path: Path) -> None:
    async with serve_unary(lambda message: message, path=path):
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()
    path.write_text("not a socket")
    with pytest.raises(OSError, match="in use"):
        async with serve_unary(lambda message: message, path=path):
            pass
    assert path.read_text() == "not a socket"
