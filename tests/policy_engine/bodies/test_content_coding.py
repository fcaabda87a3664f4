import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy_engine.bodies.content_coding import LONGEST_BYTES, Decoder, Unreadable, decoded
from policy_engine.hooks import Headers
from tests.policy_engine.packed import PACK, PACKED, Pack, streamed_zstd


def headers(coding: str) -> Headers:
    return Headers([("content-encoding", coding)])


@given(st.binary(max_size=5000))
def test_a_body_is_read_as_it_was(content: bytes) -> None:
    assert decoded(Headers([]), content) == content
    assert decoded(headers("identity"), content) == content
    for coding, pack in PACKED:
        assert decoded(headers(coding.upper()), pack(content)) == content


@given(st.sampled_from(PACKED), st.binary(min_size=1, max_size=3000), st.integers(1, 200))
def test_a_body_in_parts_is_the_same(
    packed_with: tuple[str, Pack], content: bytes, size: int
) -> None:
    coding, pack = packed_with
    packed = pack(content)
    decoder = Decoder(coding)
    parts = [packed[at : at + size] for at in range(0, len(packed), size)]
    assert b"".join(decoder.add(part) for part in parts) == content
    decoder.end()


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_what_was_compressed_in_pieces_is_one_body(coding: str) -> None:
    pack = PACK[coding]
    packed = pack(b"some") + pack(b"") + pack(b" more")
    assert decoded(headers(coding), packed) == b"some more"
    decoder = Decoder(coding)
    assert b"".join(decoder.add(bytes([one])) for one in packed) == b"some more"
    with pytest.raises(Unreadable, match="pieces"):
        decoded(headers(coding), pack(b"") * 1000)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("compress", b"x"),
        ("gzip, gzip", b"x"),
        ("gzip", b"no gzip"),
        ("deflate", b"\xff\xff"),
        ("br", b"no brotli"),
        ("zstd", b"no zstd"),
        *((coding, pack(b"x" * 1000)[:-3]) for coding, pack in PACKED),
        *((coding, pack(b"x" * 1000) + b"\xff\x02 behind") for coding, pack in PACKED),
    ],
)
def test_what_cannot_be_read_is_told(coding: str, body: bytes) -> None:
    with pytest.raises(Unreadable):
        decoded(headers(coding), body)
    with pytest.raises(Unreadable):  # noqa: PT012 - wherever it is noticed
        decoder = Decoder(coding)
        for one in body:
            decoder.add(bytes([one]))
        decoder.end()


@pytest.mark.parametrize(("coding", "pack"), PACKED)
def test_a_bomb_does_not_go_off(coding: str, pack: Pack) -> None:
    packed = pack(bytes(LONGEST_BYTES + 1))
    assert len(packed) < 80_000
    with pytest.raises(Unreadable, match="longer than"):
        decoded(headers(coding), packed)
    decoder = Decoder(coding)
    with pytest.raises(Unreadable, match="longer than"):  # noqa: PT012 - wherever it is noticed
        for at in range(0, len(packed), 10):
            decoder.add(packed[at : at + 10])


def test_a_frame_that_needs_more_memory_than_senders_may_ask_for_is_not_read() -> None:
    packed = streamed_zstd(bytes(9 << 20), window_log=27)
    with pytest.raises(Unreadable, match="too much memory"):
        decoded(headers("zstd"), packed)
