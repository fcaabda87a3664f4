"""Whatever arrives, in whatever pieces: the same answers, or an orderly end."""

import asyncio
from typing import NamedTuple

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.xds.wire.h2.peer import (
    GREETING,
    REQUEST_BLOCK,
    Answer,
    Kept,
    Peer,
    data,
    headers,
    prefixed,
)
from xds.wire.h2 import Limits, Status
from xds.wire.h2 import frames as wire
from xds.wire.h2.frames import frame

MANY = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
LIMITS = Limits(
    streams_max=4,
    message_max_bytes=1_000,
    held_max_bytes=2_000,
    unsent_stream_max_bytes=2_000,
    unsent_max_bytes=4_000,
    header_block_max_bytes=500,
    stream_window_bytes=3_000,
    connection_window_bytes=65_535,
)


class Call(NamedTuple):
    """One call of a valid conversation: its messages, and how they travel."""

    messages: list[bytes]
    cuts: list[int]  # sizes of DATA payloads
    padding: int
    block_cuts: list[int]
    trailers: bool


calls = st.builds(
    Call,
    messages=st.lists(st.binary(max_size=200), max_size=4),
    cuts=st.lists(st.integers(0, 100), max_size=8),
    padding=st.integers(0, 20),
    block_cuts=st.lists(st.integers(0, 20), max_size=4),
    trailers=st.booleans(),
)


def pieces(payload: bytes, sizes: list[int]) -> list[bytes]:
    cut = []
    for size in sizes:
        cut.append(payload[:size])
        payload = payload[size:]
    return [*cut, payload]


def frames_of(number: int, call: Call) -> list[list[bytes]]:
    """The frames of a call, in groups that nothing may come between."""
    first, *more = pieces(REQUEST_BLOCK, call.block_cuts)
    block = [headers(number, 0 if more else wire.END_HEADERS, first)]
    for at, piece in enumerate(more):
        last = wire.END_HEADERS if at == len(more) - 1 else 0
        block.append(frame(wire.CONTINUATION, last, number, piece))
    groups = [block]
    payloads = pieces(b"".join(map(prefixed, call.messages)), call.cuts)
    padding = bytes((call.padding,)), bytes(call.padding)
    for at, payload in enumerate(payloads):
        end = 0 if call.trailers or at < len(payloads) - 1 else wire.END_STREAM
        if call.padding:
            groups.append([data(number, payload.join(padding), end | wire.PADDED)])
        else:
            groups.append([data(number, payload, end)])
    if call.trailers:
        groups.append([headers(number, wire.END_HEADERS | wire.END_STREAM)])
    return groups


@MANY
@given(st.lists(calls, max_size=5), st.randoms(use_true_random=False), st.data())
def test_valid_conversations_give_the_same_answers_however_they_are_cut(
    told: list[Call], random: object, draw: st.DataObject
) -> None:
    waiting = [frames_of(2 * at + 1, call) for at, call in enumerate(told)]
    sent = [GREETING]
    begun = 0
    while any(waiting):  # streams are begun in order, and go on in any
        begun_now = [at for at, groups in enumerate(waiting) if groups and at <= begun]
        at = draw.draw(st.sampled_from(begun_now or [begun + 1]))
        begun = max(begun, at + 1)
        sent += waiting[at].pop(0)
    conversation = b"".join(sent)

    async def check() -> None:
        peer = Peer(Kept())
        at = 0
        while at < len(conversation):
            size = draw.draw(st.integers(1, 400))
            peer.send(conversation[at : at + size])
            at += size
        peer.read()
        assert not peer.wire.closed
        assert [peer.answers.get(2 * at + 1) for at in range(len(told))] == [
            Answer(call.messages, peer.answers[2 * at + 1].fields, ended=True)
            for at, call in enumerate(told)
        ]
        assert {one.status for one in peer.answers.values()} <= {Status.OK}
        assert peer.counters.streams_open == 0
        assert peer.connection._held_bytes == 0

    asyncio.run(check())


numbers = st.sampled_from([0, 1, 2, 3, 5, 7, 9, 11, 2**31 - 1])
any_frame = st.builds(
    frame,
    st.one_of(st.integers(0, 10), st.integers(0, 255)),
    st.integers(0, 255),
    numbers,
    st.binary(max_size=60),
)
likely_frame = st.one_of(
    st.builds(headers, numbers, st.sampled_from([0, 1, 4, 5, 0x24, 0x2D])),
    st.builds(data, numbers, st.binary(max_size=300).map(prefixed), st.sampled_from([0, 1, 8, 9])),
    st.builds(data, numbers, st.binary(max_size=30), st.sampled_from([0, 1])),
    st.builds(wire.window_update, numbers, st.integers(0, 2**31 - 1)),
    st.builds(wire.rst_stream, numbers, st.sampled_from(wire.ErrorCode)),
    st.builds(
        wire.settings,
        st.dictionaries(st.sampled_from(wire.Setting), st.integers(0, 70_000), max_size=3),
    ),
    st.builds(frame, st.just(wire.PING), st.sampled_from([0, 1]), st.just(0), st.just(b"draining")),
    st.builds(frame, st.just(wire.CONTINUATION), st.sampled_from([0, 4]), numbers),
)
few_numbers = st.sampled_from([1, 3, 5, 7])
legal_frame = st.one_of(
    st.builds(headers, few_numbers, st.sampled_from([4, 5])),
    st.builds(data, few_numbers, st.binary(max_size=300).map(prefixed), st.sampled_from([0, 1])),
    st.builds(wire.window_update, few_numbers, st.integers(1, 500)),
    st.builds(wire.rst_stream, few_numbers, st.just(wire.ErrorCode.CANCEL)),
    st.builds(wire.settings, st.just({wire.Setting.INITIAL_WINDOW_SIZE: 20})),
)


async def survives(sent: list[bytes], *, drain_at: int) -> None:
    """Feed it and see that the server's account is in order, whatever has happened."""
    services = Kept()
    peer = Peer(services, LIMITS)
    for at, piece in enumerate(sent):
        if at == drain_at and not peer.wire.closed:
            peer.connection.drain()
        peer.send(piece)  # must not raise
        assert peer.counters.streams_open <= LIMITS.streams_max
        assert 0 <= peer.connection._held_bytes <= LIMITS.held_max_bytes
        unsent = peer.connection.outbound._unsent_bytes
        assert 0 <= unsent <= LIMITS.unsent_max_bytes
    peer.read()  # asserts that nothing follows the end of a stream, and HPACK is right
    opened = {one.stream.id for one in services.handlers}
    assert peer.counters.streams == len(opened) == len(services.handlers)
    answered = {number for number, one in peer.answers.items() if one.fields}
    assert answered <= opened
    assert peer.counters.messages_sent <= peer.counters.messages_received
    assert all(one.was_lost <= 1 for one in services.handlers)
    if peer.counters.connection_errors:
        assert peer.goaways[-1][1] != wire.ErrorCode.NO_ERROR
    if peer.wire.closed:
        assert peer.goaways
        assert peer.counters.streams_open == 0
    peer.connection.connection_lost(None)
    assert peer.gone
    assert peer.counters.streams_open == peer.counters.connections_open == 0
    assert peer.connection._held_bytes == 0
    assert peer.connection.outbound._unsent_bytes == 0


@MANY
@given(st.lists(st.binary(min_size=1, max_size=200), max_size=20), st.booleans())
def test_garbage_ends_in_goaway_and_never_raises(sent: list[bytes], greets: bool) -> None:
    asyncio.run(survives([GREETING, *sent] if greets else sent, drain_at=-1))


@MANY
@given(st.lists(st.one_of(any_frame, likely_frame), max_size=40), st.integers(-1, 40))
def test_frames_without_sense_never_raise(sent: list[bytes], drain_at: int) -> None:
    asyncio.run(survives([GREETING, *sent], drain_at=drain_at))


@MANY
@given(st.lists(legal_frame, max_size=60), st.integers(-1, 60))
def test_streams_in_any_state_keep_their_account(sent: list[bytes], drain_at: int) -> None:
    begin = [headers(number) for number in (1, 3, 5, 7)]
    asyncio.run(survives([GREETING, *begin, *sent], drain_at=drain_at))
