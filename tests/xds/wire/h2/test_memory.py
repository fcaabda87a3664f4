"""Memory stays flat however many calls were served."""

import asyncio
import gc
import sys

import pytest

from tests.xds.wire.h2.peer import Echo, Peer, call, data, greeted, headers, prefixed
from xds.wire.h2 import Counters, Stream, StreamHandler
from xds.wire.h2 import frames as wire
from xds.wire.h2.unary import UnaryService

TURN = 1_000  # calls sent together
TURNS = 200
WARM_TURNS = 20
KEPT_MAX_BLOCKS = 1_000  # one call in 200 that leaves something behind is seen


def calls(first: int) -> bytes:
    """`TURN` requests: most are whole, one in ten is reset within its message."""
    sent = []
    for number in range(first, first + 2 * TURN, 2):
        if number % 20 == 1:
            sent.append(headers(number) + data(number, prefixed(b"x" * 50)[:20]))
            sent.append(wire.rst_stream(number, wire.ErrorCode.CANCEL))
        else:
            sent.append(call(number, b"message of %d" % number))
    return b"".join(sent)


async def serve(peer: Peer, first: int, turns: int) -> None:
    for turn in range(turns):
        peer.connection.data_received(calls(first + 2 * TURN * turn))
        await asyncio.sleep(0)
        peer.connection.data_received(wire.window_update(0, 2**16))
        peer.connection.outbound.flush()
        peer.wire.written.clear()


async def kept_blocks(peer: Peer, turns: int = TURNS) -> int:
    """Blocks of memory that 1,000 calls a turn leave behind, after some have warmed it up."""
    await serve(peer, 1, WARM_TURNS)
    gc.collect()
    before = sys.getallocatedblocks()
    await serve(peer, 1 + 2 * TURN * WARM_TURNS, turns)
    gc.collect()
    return sys.getallocatedblocks() - before


async def test_memory_is_flat_over_many_unary_calls() -> None:
    async with UnaryService(lambda message: message, 5, Counters()) as service:
        peer = greeted(service.open)
        assert await kept_blocks(peer) < KEPT_MAX_BLOCKS
        assert peer.counters.streams == (TURNS + WARM_TURNS) * TURN
        assert peer.counters.streams_open == 0


async def test_memory_is_flat_over_many_streams() -> None:
    def echo(stream: Stream) -> StreamHandler:
        return Echo(stream)

    peer = greeted(echo)
    assert await kept_blocks(peer) < KEPT_MAX_BLOCKS
    assert peer.counters.streams_open == 0


@pytest.mark.slow
async def test_memory_is_flat_over_a_million_calls() -> None:
    async with UnaryService(lambda message: message, 5, Counters()) as service:
        assert await kept_blocks(greeted(service.open), turns=1_000) < KEPT_MAX_BLOCKS
    assert await kept_blocks(greeted(Echo), turns=1_000) < KEPT_MAX_BLOCKS
