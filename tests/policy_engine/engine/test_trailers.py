"""Requests whose body does not tell its end: HTTP/2 with trailers, without a length."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.events
import pytest

from tests.policy_engine.engine.trial_policies import TRIALS
from tests.policy_engine.python_gateway import PythonGateway, python_gateway, ref

LIMIT = 100_000
_DEADLINE_S = 30


@asynccontextmanager
async def gateway(name: str, **settings: Any) -> AsyncIterator[PythonGateway]:
    limits = {"engine_max_body_bytes": LIMIT, **settings}
    async with python_gateway([ref(name)], classes=TRIALS, settings=limits) as running:
        yield running


async def status(
    running: PythonGateway, body: bytes, *, told: bool = False, trailers: bool = True
) -> int:
    """What is answered to a POST of `body` over HTTP/2; `told`: with its length."""
    place = urlsplit(running.url)
    async with asyncio.timeout(_DEADLINE_S):
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        client.initiate_connection()
        head = [(":method", "POST"), (":scheme", "http"), (":path", "/any"), (":authority", "a.b")]
        if told:
            head.append(("content-length", str(len(body))))
        client.send_headers(1, head)
        rest, found, ended = body, 0, False
        while True:
            while rest and (room := _room(client)):
                client.send_data(1, rest[:room])
                rest = rest[room:]
            if not (rest or ended):
                ended = True
                if trailers:
                    client.send_headers(1, [("x-checksum", "1")], end_stream=True)
                else:
                    client.end_stream(1)
            writer.write(client.data_to_send())
            for event in client.receive_data(await reader.read(65_536)):
                match event:
                    case h2.events.ResponseReceived(headers=headers):
                        found = int(dict(headers or ())[":status"])
                    case h2.events.DataReceived(flow_controlled_length=length):
                        client.acknowledge_received_data(length or 0, 1)
                    case h2.events.StreamEnded() | h2.events.StreamReset():
                        writer.close()
                        return found


def _room(client: h2.connection.H2Connection) -> int:
    return min(client.local_flow_control_window(1), client.max_outbound_frame_size)


@pytest.mark.parametrize("size", [1, 1_000, 90_000, LIMIT])
async def test_a_body_that_ends_with_trailers_is_whole(size: int) -> None:
    async with gateway("look") as running:
        for told in (False, True):
            assert await status(running, b"x" * size, told=told) == 200
            assert running.backend.last.body == b"x" * size
            assert running.backend.last.header("x-seen") == str(size)


async def test_one_that_a_policy_replaces_arrives_as_it_was_replaced() -> None:
    async with gateway("reverse") as running:
        assert await status(running, b"abc" * 20_000) == 200
        assert running.backend.last.body == b"cba" * 20_000


@pytest.mark.parametrize("size", [1, 60_000, 65_535])
async def test_where_it_may_come_in_chunks_it_is_whole_when_it_has_its_length(size: int) -> None:
    async with gateway("both") as running:
        assert await status(running, b"x" * size, told=True) == 200
        assert running.backend.last.body == b"whole:" + b"x" * min(size, 10)
        assert len(running.backend.requests) == 1
        assert await status(running, b"x" * size) == 413
        assert await status(running, b"x" * 65_536, told=True) == 413


@pytest.mark.parametrize("trailers", [True, False])
@pytest.mark.parametrize("size", [1, 200_000])
async def test_chunks_end_where_the_length_says_so(size: int, *, trailers: bool) -> None:
    async with gateway("gather") as running:
        assert await status(running, b"x" * size, told=True, trailers=trailers) == 200
        assert running.backend.last.body == b"<" + b"x" * size + b">"


@pytest.mark.parametrize("trailers", [True, False])
@pytest.mark.parametrize("size", [LIMIT + 1, 3 * LIMIT])
async def test_one_that_is_too_long_is_refused(size: int, *, trailers: bool) -> None:
    async with gateway("look") as running:
        assert await status(running, b"x" * size, trailers=trailers) == 413
        assert not running.backend.requests


async def test_however_much_the_engine_would_take_the_router_gives_it_no_parts() -> None:
    async with gateway("look") as running:
        running.runtime.max_body_bytes = 100 * LIMIT  # the engine is set otherwise than the router
        assert await status(running, b"x" * LIMIT) == 200
        assert await status(running, b"x" * 5_000_000) == 413
        assert len(running.backend.requests) == 1
