"""Message boundaries on an HTTP/2 connection."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from analytics.framing import Framing

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS = 0, 1, 3, 4


def frame(kind, stream, payload=b"", flags=0):
    return len(payload).to_bytes(3) + bytes((kind, flags)) + stream.to_bytes(4) + payload


def message(size):
    return b"\0" + size.to_bytes(4) + b"x" * size


def fed(*chunks):
    framing = Framing()
    for chunk in (PREFACE, *chunks):
        framing.feed(chunk)
    return framing


def test_before_the_preface_is_complete_something_is_under_way():
    framing = Framing()
    framing.feed(PREFACE[:10])
    assert not framing.between_messages
    framing.feed(PREFACE[10:])
    assert framing.between_messages


def test_frames_without_data_are_no_messages():
    assert fed(frame(SETTINGS, 0, b"x" * 12), frame(HEADERS, 1, b"h" * 50)).between_messages


def test_a_message_over_several_frames_is_under_way_until_its_last_byte():
    whole = message(100)
    framing = fed(frame(DATA, 1, whole[:50]))
    assert not framing.between_messages
    framing.feed(frame(SETTINGS, 0))
    assert not framing.between_messages
    framing.feed(frame(DATA, 1, whole[50:]))
    assert framing.between_messages


def test_a_frame_may_end_within_the_length_of_a_message():
    whole = message(3)
    framing = fed(frame(DATA, 1, message(7) + whole[:2]))
    assert not framing.between_messages
    framing.feed(frame(DATA, 1, whole[2:]))
    assert framing.between_messages


def test_streams_are_told_apart():
    whole = message(9)
    framing = fed(frame(DATA, 1, whole[:6]), frame(DATA, 3, whole))
    assert not framing.between_messages
    framing.feed(frame(DATA, 1, whole[6:]))
    assert framing.between_messages


def test_a_stream_that_is_reset_has_nothing_under_way():
    assert fed(frame(DATA, 1, message(9)[:6]), frame(RST_STREAM, 1, b"\0" * 4)).between_messages


def test_a_peer_that_pads_is_not_followed():
    framing = fed(frame(DATA, 1, b"\x02" + message(9)[:6] + b"\0\0", flags=8))
    framing.feed(b"anything")
    assert framing.between_messages


@given(
    sizes=st.lists(st.integers(0, 300), max_size=10),
    frame_bytes=st.integers(1, 100),
    cuts=st.lists(st.integers(0, 4000), max_size=20),
)
def test_however_it_is_cut_the_end_of_the_last_message_is_found(sizes, frame_bytes, cuts):
    content = b"".join(map(message, sizes))
    frames = [
        frame(DATA, 5, content[start : start + frame_bytes])
        for start in range(0, len(content), frame_bytes)
    ]
    wire = PREFACE + b"".join(frames)
    framing = Framing()
    places = sorted({0, *(cut for cut in cuts if cut < len(wire)), len(wire)})
    for start, end in pairwise(places):
        framing.feed(wire[start:end])
    assert framing.between_messages
    if frames:
        short = Framing()
        short.feed(wire[:-1])
        assert not short.between_messages
