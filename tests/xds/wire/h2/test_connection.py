"""Frames and what becomes of them: the rules of RFC 9113, one connection in memory."""

import asyncio
from pathlib import Path

import pytest
import uvloop

from tests.xds.wire.h2.peer import (
    GREETING,
    REQUEST_BLOCK,
    Echo,
    Kept,
    Peer,
    call,
    data,
    greeted,
    headers,
    prefixed,
    split,
)
from xds.wire.h2 import Limits, serve_unary
from xds.wire.h2 import frames as wire
from xds.wire.h2.frames import ErrorCode, Setting, frame

LARGE = bytes(range(100, 200)) * 100


async def test_the_server_greets_with_its_settings_and_acknowledges_those_of_the_peer() -> None:
    peer = Peer(Echo, Limits(streams_max=7, stream_window_bytes=100_000))
    first, second = peer.read()
    assert first.kind == wire.SETTINGS
    told = dict(wire.settings_of(first.payload))
    assert told[Setting.MAX_CONCURRENT_STREAMS] == 7
    assert told[Setting.INITIAL_WINDOW_SIZE] == 100_000
    assert second.kind == wire.WINDOW_UPDATE
    peer.send(GREETING)
    assert [(one.kind, one.flags) for one in peer.read()] == [(wire.SETTINGS, wire.ACK)]


async def test_a_call_is_answered_with_headers_message_and_trailers_in_one_write() -> None:
    peer = greeted()
    peer.writes = 0
    peer.send(call(1, b"a"), call(3, b"b"))
    answer = peer.answer(1)
    assert answer.messages == [b"a"]
    assert answer.fields == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-status": "0",
    }
    assert answer.ended
    assert peer.answers[3].messages == [b"b"]
    assert peer.writes == 1
    assert peer.counters.streams == 2
    assert peer.counters.streams_open == 0


async def test_header_blocks_may_be_padded_prioritised_and_continued() -> None:
    peer = greeted()
    block = b"\x03" + b"\x00\x00\x00\x01\x10" + REQUEST_BLOCK[:10] + b"\x00\x00\x00"
    flags = wire.PADDED | wire.PRIORITY_FIELDS
    peer.send(
        headers(1, flags, block),
        frame(wire.CONTINUATION, 0, 1, REQUEST_BLOCK[10:20]),
        frame(wire.CONTINUATION, wire.END_HEADERS, 1, REQUEST_BLOCK[20:]),
        data(1, b"\x02" + prefixed(b"padded") + b"\x00\x00", wire.PADDED | wire.END_STREAM),
    )
    assert peer.answer(1).messages == [b"padded"]


async def test_request_trailers_end_the_request() -> None:
    peer = greeted()
    peer.send(headers(1), data(1, prefixed(b"x")))
    assert not peer.answer(1).ended
    peer.send(headers(1, wire.END_HEADERS | wire.END_STREAM))
    assert peer.answer(1).ended


async def test_pings_are_answered_with_their_payload() -> None:
    peer = greeted().send(frame(wire.PING, 0, 0, b"12345678"))
    assert [(one.kind, one.flags, one.payload) for one in peer.read()] == [
        (wire.PING, wire.ACK, b"12345678")
    ]


async def test_unknown_frames_settings_and_priorities_change_nothing() -> None:
    peer = greeted()
    peer.send(
        frame(0x99, 0xFF, 5, b"whatever"),
        frame(wire.PRIORITY, 0, 9, b"\x00\x00\x00\x03\x10"),
        frame(wire.SETTINGS, 0, 0, b"\x00\x99\x00\x00\x00\x01"),
        frame(wire.SETTINGS, 0, 0, b"\x00\x01\x00\x00\x00\x00"),  # HEADER_TABLE_SIZE 0
        call(1, b"x"),
    )
    assert peer.answer(1).messages == [b"x"]


async def test_a_peer_without_a_header_table_is_told_that_ours_is_empty() -> None:
    """Its decoder must see the table shrink: https://www.rfc-editor.org/rfc/rfc7541#section-4.2."""
    peer = greeted(settings={Setting.HEADER_TABLE_SIZE: 0})
    peer._decoder.max_allowed_table_size = 0
    peer.send(call(1, b"x"), call(3, b"y"))
    assert peer.answer(1).messages == [b"x"]
    assert peer.answer(3).messages == [b"y"]


BROKEN = {
    "no preface": (b"GET / HTTP/1.1\r\n", ErrorCode.PROTOCOL_ERROR),
    "a preface that goes wrong": (wire.PREFACE[:9] + b"x", ErrorCode.PROTOCOL_ERROR),
    "no settings first": (
        wire.PREFACE + frame(wire.PING, 0, 0, bytes(8)),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "an acknowledgement first": (
        wire.PREFACE + frame(wire.SETTINGS, wire.ACK, 0),
        ErrorCode.PROTOCOL_ERROR,
    ),
}
BROKEN |= {
    name: (GREETING + sent, code)
    for name, (sent, code) in {
        "a frame too long": (data(1, bytes(16_385)), ErrorCode.FRAME_SIZE_ERROR),
        "settings on a stream": (frame(wire.SETTINGS, 0, 1), ErrorCode.PROTOCOL_ERROR),
        "settings cut short": (frame(wire.SETTINGS, 0, 0, b"abc"), ErrorCode.FRAME_SIZE_ERROR),
        "an acknowledgement with content": (
            frame(wire.SETTINGS, wire.ACK, 0, bytes(6)),
            ErrorCode.FRAME_SIZE_ERROR,
        ),
        "a window that is too large": (
            wire.settings({Setting.INITIAL_WINDOW_SIZE: 2**31}),
            ErrorCode.FLOW_CONTROL_ERROR,
        ),
        "a frame size that is too small": (
            wire.settings({Setting.MAX_FRAME_SIZE: 16_383}),
            ErrorCode.PROTOCOL_ERROR,
        ),
        "push that is neither on nor off": (
            wire.settings({Setting.ENABLE_PUSH: 2}),
            ErrorCode.PROTOCOL_ERROR,
        ),
        "a ping on a stream": (frame(wire.PING, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
        "a short ping": (frame(wire.PING, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
        "a push promise": (frame(wire.PUSH_PROMISE, 4, 1, bytes(9)), ErrorCode.PROTOCOL_ERROR),
        "a priority on the connection": (
            frame(wire.PRIORITY, 0, 0, bytes(5)),
            ErrorCode.PROTOCOL_ERROR,
        ),
        "a short priority": (frame(wire.PRIORITY, 0, 1, bytes(4)), ErrorCode.FRAME_SIZE_ERROR),
        "a short reset": (headers(1) + frame(wire.RST_STREAM, 0, 1), ErrorCode.FRAME_SIZE_ERROR),
        "a reset of an idle stream": (
            wire.rst_stream(1, ErrorCode.CANCEL),
            ErrorCode.PROTOCOL_ERROR,
        ),
        "data on an idle stream": (data(1, b""), ErrorCode.PROTOCOL_ERROR),
        "data on the connection": (data(0, b""), ErrorCode.PROTOCOL_ERROR),
        "data on a stream of ours": (headers(3) + data(2, b""), ErrorCode.PROTOCOL_ERROR),
        "a window of an idle stream": (wire.window_update(1, 1), ErrorCode.PROTOCOL_ERROR),
        "a window update of 0": (wire.window_update(0, 0), ErrorCode.PROTOCOL_ERROR),
        "a short window update": (
            frame(wire.WINDOW_UPDATE, 0, 0, b"\x00"),
            ErrorCode.FRAME_SIZE_ERROR,
        ),
        "a window past its maximum": (
            wire.window_update(0, 2**31 - 1),
            ErrorCode.FLOW_CONTROL_ERROR,
        ),
        "a stream with an even number": (headers(2), ErrorCode.PROTOCOL_ERROR),
        "headers on the connection": (headers(0), ErrorCode.PROTOCOL_ERROR),
        "a stream number that goes back": (
            call(5, b"") + headers(3),
            ErrorCode.PROTOCOL_ERROR,
        ),
        "padding longer than its frame": (
            headers(1) + data(1, b"\x05abcd", wire.PADDED),
            ErrorCode.PROTOCOL_ERROR,
        ),
        "padding without a length": (
            headers(1) + data(1, b"", wire.PADDED),
            ErrorCode.FRAME_SIZE_ERROR,
        ),
        "headers too short for a priority": (
            headers(1, wire.END_HEADERS | wire.PRIORITY_FIELDS, b"abcd"),
            ErrorCode.FRAME_SIZE_ERROR,
        ),
        "something else within a header block": (
            headers(1, 0) + frame(wire.PING, 0, 0, bytes(8)),
            ErrorCode.PROTOCOL_ERROR,
        ),
        "a continuation of another stream": (
            headers(1, 0) + frame(wire.CONTINUATION, 4, 3, b""),
            ErrorCode.PROTOCOL_ERROR,
        ),
        "a continuation of nothing": (
            headers(1) + frame(wire.CONTINUATION, 4, 1, b""),
            ErrorCode.PROTOCOL_ERROR,
        ),
        "header blocks without end": (
            headers(1, 0) + frame(wire.CONTINUATION, 0, 1, b"") * 8_000,
            ErrorCode.ENHANCE_YOUR_CALM,
        ),
        "a goaway on a stream": (frame(wire.GOAWAY, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
        "a short goaway": (frame(wire.GOAWAY, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    }.items()
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_broken_rule_of_the_connection_ends_it_with_goaway(name: str) -> None:
    sent, code = BROKEN[name]
    peer = Peer(Echo).send(sent)
    assert peer.refused() == code
    assert len(peer.goaways) == 1
    assert peer.counters.connection_errors == 1
    assert peer.counters.streams_open == 0
    peer.send(call(9, b"too late"))
    assert peer.read() == []


async def test_goaway_tells_the_last_stream_and_calls_are_lost() -> None:
    services = Kept()
    peer = greeted(services).send(headers(1), headers(7), frame(wire.PING, 0, 3, bytes(8)))
    assert peer.refused() == ErrorCode.PROTOCOL_ERROR
    assert peer.goaways == [(7, ErrorCode.PROTOCOL_ERROR)]
    assert [one.was_lost for one in services.handlers] == [1, 1]


STREAM_BROKEN = {
    "data after the end": (call(1, b"x") + data(1, b""), ErrorCode.STREAM_CLOSED),
    "headers after the end": (call(1, b"x") + headers(1, 5), ErrorCode.STREAM_CLOSED),
    "trailers that do not end": (headers(1) + headers(1), ErrorCode.PROTOCOL_ERROR),
    "a window update of 0": (headers(1) + wire.window_update(1, 0), ErrorCode.PROTOCOL_ERROR),
    "a window past its maximum": (
        headers(1) + wire.window_update(1, 2**31 - 1),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "a compressed flag that does not exist": (
        headers(1) + data(1, prefixed(b"x", compressed=2)),
        ErrorCode.PROTOCOL_ERROR,
    ),
}


class Silent(Echo):
    """Never answers."""

    def message(self, data: bytes) -> None:
        pass

    def half_closed(self) -> None:
        pass


@pytest.mark.parametrize("name", STREAM_BROKEN)
async def test_a_broken_rule_of_a_stream_resets_it_and_others_go_on(name: str) -> None:
    sent, code = STREAM_BROKEN[name]
    services = Kept(Silent)
    peer = greeted(services).send(sent)
    assert peer.answer(1).reset == code
    assert services.handlers[0].was_lost == 1
    assert peer.counters.stream_errors == 1
    services.kind = Echo
    assert peer.send(call(3, b"on")).answer(3).messages == [b"on"]


async def test_frames_for_a_stream_that_was_reset_are_passed_over() -> None:
    peer = greeted().send(
        headers(1),
        wire.rst_stream(1, ErrorCode.CANCEL),
        data(1, prefixed(b"late"), wire.END_STREAM),
        headers(1, wire.END_HEADERS | wire.END_STREAM),
        wire.window_update(1, 10),
        wire.rst_stream(1, ErrorCode.CANCEL),
        call(3, b"x"),
    )
    assert peer.answer(3).messages == [b"x"]
    assert 1 not in peer.answers


async def test_a_reset_in_the_middle_of_a_message_loses_the_call() -> None:
    services = Kept()
    peer = greeted(services).send(headers(1), data(1, prefixed(b"x" * 100)[:50]))
    peer.send(wire.rst_stream(1, ErrorCode.CANCEL))
    assert services.handlers[0].was_lost == 1
    assert peer.read() == []
    assert peer.counters.resets_received == 1
    assert peer.connection._held_bytes == 0


async def test_streams_above_the_limit_are_refused() -> None:
    peer = greeted(limits=Limits(streams_max=2))
    peer.send(headers(1), headers(3), headers(5))
    assert peer.answer(5).reset == ErrorCode.REFUSED_STREAM
    peer.send(data(1, prefixed(b"a"), wire.END_STREAM))
    assert peer.answer(1).messages == [b"a"]
    assert peer.send(call(7, b"x")).answer(7).messages == [b"x"]
    assert peer.counters.streams_refused == 1


async def test_ten_thousand_streams_at_once() -> None:
    peer = greeted()
    numbers = range(1, 20_000, 2)
    for number in numbers:
        peer.send(headers(number), data(number, prefixed(b"%d" % number)))
    assert peer.counters.streams_open == 10_000
    for number in reversed(numbers):
        peer.send(data(number, b"", wire.END_STREAM))
    peer.send(wire.window_update(0, 2**30))
    peer.read()
    assert all(peer.answers[number].messages == [b"%d" % number] for number in numbers)
    assert all(peer.answers[number].status == 0 for number in numbers)
    assert peer.counters.streams_open == 0
    assert len(peer.connection._streams) == 0


async def test_draining_serves_what_is_in_flight_and_what_was_on_its_way() -> None:
    peer = greeted().send(headers(1))
    peer.connection.drain()
    _, ping = peer.read()
    assert peer.goaways == [(2**31 - 1, ErrorCode.NO_ERROR)]
    peer.send(call(3, b"on its way"))
    assert peer.answer(3).messages == [b"on its way"]
    peer.send(frame(wire.PING, wire.ACK, 0, ping.payload))
    peer.read()
    assert peer.goaways[1:] == [(3, ErrorCode.NO_ERROR)]
    peer.send(call(5, b"too late"), data(5, b"", wire.END_STREAM))
    assert peer.read() == []
    assert not peer.wire.closed
    peer.send(data(1, prefixed(b"last"), wire.END_STREAM))
    assert peer.answer(1).messages == [b"last"]
    assert peer.wire.closed
    assert not peer.wire.aborted
    assert peer.counters.connection_errors == 0


async def test_a_peer_that_goes_away_has_its_calls_finished() -> None:
    peer = greeted().send(headers(1), wire.goaway(0, ErrorCode.NO_ERROR))
    assert not peer.wire.closed
    peer.send(data(1, prefixed(b"x"), wire.END_STREAM))
    assert peer.answer(1).messages == [b"x"]
    assert peer.wire.closed


async def test_a_peer_that_does_not_read_is_cut_off() -> None:
    peer = greeted(limits=Limits(unsent_max_bytes=1_000))
    peer.connection.pause_writing()
    peer.send(frame(wire.PING, 0, 0, bytes(8)) * 10)
    assert not peer.wire.aborted
    peer.wire.unread_bytes = 1_001
    peer.send(frame(wire.PING, 0, 0, bytes(8)))
    assert peer.wire.aborted


@pytest.mark.parametrize("size", [1, 2, 7, 100])
async def test_frames_may_be_cut_anywhere(size: int) -> None:
    peer = Peer(Echo)
    sent = GREETING + b"".join(call(number, b"m" * number) for number in range(1, 60, 2))
    for at in range(0, len(sent), size):
        peer.send(sent[at : at + size])
    peer.read()
    assert [peer.answers[number].messages for number in range(1, 60, 2)] == [
        [b"m" * number] for number in range(1, 60, 2)
    ]


def test_it_serves_on_uvloop_too(tmp_path: Path) -> None:
    async def conversation() -> bytes:
        async with serve_unary(lambda message: message[::-1], path=tmp_path / "s") as server:
            reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
            writer.write(GREETING + call(1, b"abc") + call(3, LARGE))
            async with asyncio.timeout(30):
                received = await reader.readuntil(LARGE[::-1])
            writer.write(wire.goaway(0, ErrorCode.NO_ERROR))
            received += await asyncio.wait_for(reader.read(), 30)
            writer.close()
            assert server.counters.connections == 1
            return received

    received = uvloop.run(conversation())
    kinds = [(one.kind, one.stream) for one in split(received)]
    assert kinds.count((wire.DATA, 1)) == kinds.count((wire.DATA, 3)) == 1
    assert kinds[-1] == (wire.GOAWAY, 0)


def test_what_is_written_is_what_is_read() -> None:
    sent = wire.goaway(5, ErrorCode.CANCEL, "why") + wire.rst_stream(3, ErrorCode.CANCEL)
    first, second = split(sent)
    assert first == (wire.GOAWAY, 0, 0, b"\x00\x00\x00\x05\x00\x00\x00\x08why")
    assert second == (wire.RST_STREAM, 0, 3, b"\x00\x00\x00\x08")
