"""A field of request headers is read right, whatever the peer's encoder does with its table."""

import grpc
import pytest
from hpack import Encoder
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.xds.wire.h2.test_grpcio import channel
from xds.wire.h2 import Status, Stream, serve_stream
from xds.wire.h2.errors import ConnectionFailed
from xds.wire.h2.request_fields import RequestField

NAME = "x-about"
VALUES = st.text(alphabet="abc123-", max_size=40)
CALLS = st.lists(st.tuples(VALUES | st.none(), VALUES, st.booleans()), max_size=30)


def headers(value: str | None, other: str) -> list[tuple[str, str]]:
    about = [] if value is None else [(NAME, value)]
    return [(":method", "POST"), ("x-other", other), *about, ("te", "trailers")]


@settings(max_examples=300, deadline=None)
@given(before=CALLS, after=CALLS)
def test_values_are_those_that_the_peer_sent(before: list[tuple], after: list[tuple]) -> None:
    encoder, field = Encoder(), RequestField(NAME)
    for value, other, huffman in before:
        assert field.of(encoder.encode(headers(value, other), huffman)) == (value or "")
    encoder.header_table_size = 0
    for value, other, huffman in after:
        assert field.of(encoder.encode(headers(value, other), huffman)) == (value or "")


def test_a_table_that_is_emptied_and_used_again_is_followed() -> None:
    encoder, field = Encoder(), RequestField(NAME)
    encoder.header_table_size = 0
    encoder.header_table_size = 4096
    for _ in range(3):
        assert field.of(encoder.encode(headers("one", "x"))) == "one"
        assert field.of(encoder.encode(headers("two", "x"))) == "two"


@pytest.mark.parametrize(
    ("before", "block"),
    [
        (b"\x83", b"\xbe"),  # an entry that was never made
        (b"\x20\x83", b"\xbe"),
        (b"\x20\x83", b"\x3f\xe1\x1f\x83"),  # a table, after there is none
        (b"\x83", b"\x00"),  # cut short
        (b"\x83", b"\x40\x85\xff\xff\xff\xff\xff\x00"),  # no Huffman code
    ],
)
def test_what_is_no_header_block_ends_the_connection(before: bytes, block: bytes) -> None:
    field = RequestField(NAME)
    field.of(before)
    with pytest.raises(ConnectionFailed) as failed:
        field.of(block)
    assert failed.value.code.name == "COMPRESSION_ERROR"


def test_what_is_known_is_bounded() -> None:
    encoder, field = Encoder(), RequestField(NAME)
    encoder.header_table_size = 0
    for number in range(10_000):
        assert field.of(encoder.encode(headers(str(number), "x"))) == str(number)
    assert field.of(encoder.encode(headers("y" * 5_000, "x"))) == "y" * 5_000
    assert len(field._known) <= 4_096


class Tell:
    """Answers each call with its field."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def message(self, data: bytes) -> None:
        self._stream.send(self._stream.field.encode() + b"|" + data)

    def half_closed(self) -> None:
        self._stream.finish(Status.OK)

    def lost(self) -> None:
        pass


async def test_handlers_find_the_value_on_their_stream(tmp_path) -> None:
    path = tmp_path / "tell.sock"
    async with (
        serve_stream(Tell, path=path, field=NAME) as server,
        channel(server.address) as client,
    ):
        call = client.stream_stream("/any/Method")
        for number in range(20):
            value = f"value-{number % 3}" + "v" * (20_000 if number == 5 else 0)
            talk = call(iter([b"a"]), metadata=[(NAME, value), ("x-n", str(number))])
            assert [one async for one in talk] == [value.encode() + b"|a"]
            assert await talk.code() is grpc.StatusCode.OK
        talk = call(iter([b"a"]))
        assert [one async for one in talk] == [b"|a"]
