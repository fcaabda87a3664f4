import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy_engine.bodies.event_stream import LONGEST_EVENT_BYTES, Event, EventStream, EventTooLong

STREAM = (
    b'event: a\r\ndata: {"x":1}\r\n\r\n'
    b": keep-alive\n\n"
    b"data:one\ndata: two\nid: 7\n\n"
    b"data\n\n"
    b"data: \xe2\x82\xac\r\r"
    b"data: [DONE]\n\n"
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=10))
def test_events_are_the_same_wherever_the_stream_is_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(STREAM)]
    stream = EventStream()
    events: list[Event] = []
    for start, end in pairwise(edges):
        events += stream.add(STREAM[start:end])
    events += stream.add(b"", last=True)
    assert b"".join(event.raw for event in events) == STREAM
    assert [event.data for event in events if event.data] == [
        b'{"x":1}',
        b"one\ntwo",
        "€".encode(),
        b"[DONE]",
    ]


def test_an_event_without_an_end_is_one_at_the_end_of_the_stream() -> None:
    stream = EventStream()
    assert stream.add(b"data: 1\n") == []
    assert [event.data for event in stream.add(b"data: 2", last=True)] == [b"1\n2"]


def test_a_byte_order_mark_hides_nothing() -> None:
    (event,) = EventStream().add(b"\xef\xbb\xbfdata: x\n\n")
    assert event.data == b"x"


def test_an_event_keeps_all_but_its_data() -> None:
    event = Event(b"event: a\r\ndata: 1\r\ndata: 2\r\nid: 7\r\n\r\n")
    assert event.with_data(b"3").raw == b"event: a\r\ndata: 3\r\nid: 7\r\n\r\n"


def test_an_event_that_does_not_end_is_refused() -> None:
    stream = EventStream()
    stream.add(b"data: " + bytes(LONGEST_EVENT_BYTES - 10))
    with pytest.raises(EventTooLong):
        stream.add(bytes(100))


def test_a_long_event_in_many_parts_is_not_copied_for_each() -> None:
    def seconds(parts: int) -> float:
        stream = EventStream()
        began = time.process_time()
        for _ in range(parts):
            stream.add(b"x" * 64)
        return time.process_time() - began

    assert seconds(40_000) < 20 * max(seconds(4_000), 0.004)
