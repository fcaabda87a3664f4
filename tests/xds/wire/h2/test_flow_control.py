"""Windows in both directions: large answers wait, requests are let in as they are read."""

import pytest

from tests.xds.wire.h2.peer import (
    Answer,
    Echo,
    Kept,
    Peer,
    call,
    data,
    greeted,
    headers,
    prefixed,
)
from xds.wire.h2 import Limits, Status, Stream
from xds.wire.h2 import frames as wire
from xds.wire.h2.frames import ErrorCode, Setting

LARGE = bytes(range(256)) * 1_000


class Large(Echo):
    """Answers with much more than it was asked."""

    def message(self, data: bytes) -> None:
        self.stream.send(LARGE)


def received(peer: Peer, stream: int) -> int:
    """Bytes of DATA that came back on `stream`."""
    answer = peer.answer(stream)
    return len(answer.pending) + sum(5 + len(one) for one in answer.messages)


async def test_a_large_answer_waits_for_the_window_of_its_stream() -> None:
    peer = greeted(Large, settings={Setting.INITIAL_WINDOW_SIZE: 10})
    peer.send(wire.window_update(0, 2**30), call(1, b"x"))
    assert received(peer, 1) == 10
    for _ in range(100):
        peer.send(wire.window_update(1, 7))
    assert received(peer, 1) == 710
    assert not peer.answer(1).ended
    peer.send(wire.window_update(1, 2**20))
    assert peer.answer(1).messages == [LARGE]
    assert peer.answer(1).status == Status.OK


async def test_a_large_answer_waits_for_the_window_of_the_connection() -> None:
    peer = greeted(Large, settings={Setting.INITIAL_WINDOW_SIZE: 2**20})
    peer.send(call(1, b"x"))
    assert received(peer, 1) == wire.DEFAULT_WINDOW_BYTES
    peer.send(wire.window_update(0, 2**20))
    assert peer.answer(1).messages == [LARGE]


async def test_streams_that_wait_take_turns() -> None:
    peer = greeted(Large, settings={Setting.INITIAL_WINDOW_SIZE: 2**20})
    peer.send(call(1, b"x"), call(3, b"x"), call(5, b"x"))
    peer.send(wire.window_update(0, 5 * 16_384))
    told = [received(peer, number) for number in (3, 5)]
    assert max(told) - min(told) <= 16_384
    assert min(told) > 0
    peer.send(wire.window_update(0, 2**20))
    assert all(peer.answer(number).messages == [LARGE] for number in (1, 3, 5))


async def test_one_stream_without_a_window_does_not_hold_up_the_others() -> None:
    peer = greeted(Large, settings={Setting.INITIAL_WINDOW_SIZE: 0})
    peer.send(wire.window_update(0, 2**20), call(1, b"x"), call(3, b"x"))
    assert received(peer, 1) == received(peer, 3) == 0
    assert peer.answer(1).fields[":status"] == "200"  # headers need no window
    peer.send(wire.window_update(3, 2**20))
    assert peer.answer(3).messages == [LARGE]
    assert received(peer, 1) == 0


async def test_a_new_initial_window_applies_to_open_streams_and_may_go_below_zero() -> None:
    peer = greeted(Large, settings={Setting.INITIAL_WINDOW_SIZE: 1_000})
    peer.send(wire.window_update(0, 2**20), call(1, b"x"))
    assert received(peer, 1) == 1_000
    peer.send(wire.settings({Setting.INITIAL_WINDOW_SIZE: 3_000}))
    assert received(peer, 1) == 3_000
    peer.send(wire.settings({Setting.INITIAL_WINDOW_SIZE: 500}))  # now 2,500 below zero
    peer.send(wire.window_update(1, 2_500))
    assert received(peer, 1) == 3_000
    peer.send(wire.window_update(1, 1))
    assert received(peer, 1) == 3_001
    peer.send(call(3, b"x"))
    assert received(peer, 3) == 500


async def test_a_new_initial_window_may_not_lift_a_stream_past_the_maximum() -> None:
    peer = greeted(Echo).send(headers(1), wire.window_update(1, 2**31 - 1 - 65_535))
    assert not peer.wire.closed
    peer.send(wire.settings({Setting.INITIAL_WINDOW_SIZE: 65_536}))
    assert peer.refused() == ErrorCode.FLOW_CONTROL_ERROR


async def test_larger_frames_are_sent_to_a_peer_that_takes_them() -> None:
    settings = {Setting.MAX_FRAME_SIZE: 2**20, Setting.INITIAL_WINDOW_SIZE: 2**20}
    peer = greeted(Large, settings=settings).send(wire.window_update(0, 2**20), call(1, b"x"))
    sizes = [len(one.payload) for one in peer.read() if one.kind == wire.DATA]
    assert sizes == [5 + len(LARGE)]
    peer = greeted(Large, settings={Setting.INITIAL_WINDOW_SIZE: 2**20})
    peer.send(wire.window_update(0, 2**20), call(1, b"x"))
    sizes = [len(one.payload) for one in peer.read() if one.kind == wire.DATA]
    assert max(sizes) == 16_384
    assert sum(sizes) == 5 + len(LARGE)


async def test_answers_wait_while_the_transport_is_full() -> None:
    peer = greeted().send(headers(1))
    peer.connection.pause_writing()
    peer.send(data(1, prefixed(b"x"), wire.END_STREAM))
    assert received(peer, 1) == 0
    peer.connection.resume_writing()
    assert peer.answer(1).messages == [b"x"]
    assert peer.answer(1).ended


async def test_a_reset_forgets_what_waits() -> None:
    services = Kept(Large)
    peer = greeted(services, settings={Setting.INITIAL_WINDOW_SIZE: 10})
    peer.send(call(1, b"x"), wire.rst_stream(1, ErrorCode.CANCEL), wire.window_update(0, 2**20))
    before = received(peer, 1)
    peer.send(wire.window_update(1, 2**20), call(3, b"x"))
    assert received(peer, 1) == before
    assert received(peer, 3) == 10
    outbound = peer.connection.outbound
    assert outbound._unsent_bytes == 5 + len(LARGE) - 10
    assert services.handlers[0].was_lost == 0  # it had finished


@pytest.mark.parametrize(
    "limits", [Limits(unsent_stream_max_bytes=300_000), Limits(unsent_max_bytes=300_000)]
)
async def test_a_stream_whose_answers_nobody_takes_is_reset(limits: Limits) -> None:
    services = Kept(Large)
    peer = greeted(services, limits).send(headers(1), data(1, prefixed(b"x")))
    assert peer.answer(1).reset is None
    peer.send(data(1, prefixed(b"x")))
    assert peer.answer(1).reset == ErrorCode.ENHANCE_YOUR_CALM
    assert services.handlers[0].was_lost == 1
    assert peer.connection.outbound._unsent_bytes == 0


async def test_requests_are_let_in_as_they_are_read() -> None:
    """A peer that keeps to its windows can send without end."""
    limits = Limits(stream_window_bytes=1_000, connection_window_bytes=65_535)
    peer = greeted(Silent, limits)
    stream_window, connection_window = 1_000, 65_535
    sent = 0
    peer.send(headers(1))
    message = prefixed(b"x" * 395)
    while sent < 1_000_000:
        assert stream_window >= len(message)
        assert connection_window >= len(message)
        peer.send(data(1, message))
        sent += len(message)
        stream_window -= len(message)
        connection_window -= len(message)
        for one in peer.read():
            assert one.kind == wire.WINDOW_UPDATE
            if one.stream:
                stream_window += int.from_bytes(one.payload, "big")
            else:
                connection_window += int.from_bytes(one.payload, "big")
    assert stream_window <= 1_000
    assert connection_window <= 65_535


class Silent(Echo):
    """Only listens."""

    def message(self, data: bytes) -> None:
        pass


async def test_a_peer_that_overruns_the_window_of_a_stream_has_it_reset() -> None:
    limits = Limits(stream_window_bytes=100_000, message_max_bytes=2**20)
    peer = greeted(Silent, limits).send(headers(1))
    peer.connection._streams[1].receive_window = 10
    peer.send(data(1, prefixed(b"x" * 20)))
    assert peer.answer(1).reset == ErrorCode.FLOW_CONTROL_ERROR


async def test_a_peer_that_overruns_the_window_of_the_connection_is_refused() -> None:
    """As one read: the server has had no chance to give more."""
    peer = greeted(Silent, Limits(connection_window_bytes=65_535))
    peer.connection._window = 10
    peer.send(headers(1), data(1, prefixed(b"x" * 20)))
    assert peer.refused() == ErrorCode.FLOW_CONTROL_ERROR


async def test_a_small_window_holds_only_once_the_peer_knows_of_it() -> None:
    """Sent before our settings arrived: 65,535 bytes were allowed. No stream may stall then."""
    peer = Peer(Silent, Limits(stream_window_bytes=1_000))
    peer.read()
    peer.send(wire.PREFACE, wire.settings({}), headers(1), data(1, prefixed(b"x" * 9_995)))
    assert peer.answer(1).reset is None
    peer.read()
    window = 1_000 - 10_000
    peer.send(wire.frame(wire.SETTINGS, wire.ACK, 0))
    updates = [one for one in peer.read() if one.kind == wire.WINDOW_UPDATE]
    window += sum(int.from_bytes(one.payload, "big") for one in updates if one.stream == 1)
    assert window == 1_000


async def test_a_peer_with_tiny_windows_gets_every_byte_of_several_large_answers() -> None:
    class Two(Echo):
        def message(self, data: bytes) -> None:
            self.stream.send(LARGE[:5_000])
            self.stream.send(data)

    def two(stream: Stream) -> Two:
        return Two(stream)

    peer = greeted(two, settings={Setting.INITIAL_WINDOW_SIZE: 1})
    numbers = range(1, 20, 2)
    peer.send(*(call(number, b"%d" % number) for number in numbers))
    for _ in range(20):
        peer.send(wire.window_update(0, 60_000))
        peer.send(*(wire.window_update(number, 333) for number in numbers))
        peer.read()
    expected = [
        Answer([LARGE[:5_000], b"%d" % number], peer.answers[1].fields, ended=True)
        for number in numbers
    ]
    assert [peer.answers[number] for number in numbers] == expected
