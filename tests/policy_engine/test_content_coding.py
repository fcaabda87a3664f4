import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy_engine.content_coding import LONGEST_BYTES, Decoder, Unreadable, decoded
from policy_engine.hooks import Headers


def raw_deflate(content: bytes) -> bytes:
    made = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return made.compress(content) + made.flush()


def headers(coding: str) -> Headers:
    return Headers([("content-encoding", coding)])


@given(st.binary(max_size=5000))
def test_a_body_is_read_as_it_was(content: bytes) -> None:
    assert decoded(Headers([]), content) == content
    assert decoded(headers("identity"), content) == content
    assert decoded(headers("GZIP"), gzip.compress(content)) == content
    assert decoded(headers("gzip"), gzip.compress(content) + gzip.compress(b"x")) == content + b"x"
    assert decoded(headers("deflate"), zlib.compress(content)) == content
    assert decoded(headers("deflate"), raw_deflate(content)) == content


@given(st.binary(min_size=1, max_size=3000), st.integers(1, 200))
def test_a_body_in_parts_is_the_same(content: bytes, size: int) -> None:
    packed = gzip.compress(content)
    decoder = Decoder("gzip")
    parts = [packed[at : at + size] for at in range(0, len(packed), size)]
    assert b"".join(decoder.add(part) for part in parts) == content
    decoder.end()


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("br", b"x"),
        ("gzip, gzip", b"x"),
        ("gzip", b"no gzip"),
        ("deflate", b"\xff\xff"),
        ("gzip", gzip.compress(b"x" * 1000, mtime=0)[:-9]),
    ],
)
def test_what_cannot_be_read_is_told(coding: str, body: bytes) -> None:
    with pytest.raises(Unreadable):
        decoded(headers(coding), body)


def test_a_bomb_does_not_go_off() -> None:
    packed = gzip.compress(bytes(LONGEST_BYTES + 1), 9)
    assert len(packed) < 20_000
    with pytest.raises(Unreadable, match="longer than"):
        decoded(headers("gzip"), packed)
    with pytest.raises(Unreadable, match="pieces"):
        decoded(headers("gzip"), gzip.compress(b"") * 1000)
