"""Guardrails that look at text alone, on answers that come in pieces."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy_engine.hooks import Answer
from tests.policy_engine.exchanges import answered, exchange
from tests.policy_engine.guardrails.by_hand import (
    COUNTS,
    DONE,
    STREAM,
    completion,
    document,
    event,
    guardrail,
    streamed,
    told,
)
from tests.policy_engine.packed import PACKED, Pack


def test_a_stream_ends_where_a_forbidden_text_begins_to_match() -> None:
    made = guardrail(
        "regex-guardrail", response={"enabled": True, "regex": "(?i)top secret", "invert": True}
    )
    parts = [event("It is to"), event("p sec"), event("ret!"), event(" more"), DONE]
    got, intervention = streamed(made, parts)
    assert got == parts[:2]
    assert intervention is not None
    assert intervention.startswith(b'data: {"type":"REGEX_GUARDRAIL"')
    assert intervention.endswith(b'"direction":"RESPONSE"}}\n\n')
    parts = [event("It is "), event("fine"), DONE]
    assert streamed(made, parts) == (parts, None)


def test_a_text_that_must_be_there_is_missed_at_the_end() -> None:
    made = guardrail("regex-guardrail", response={"enabled": True, "regex": "disclaimer"})
    parts = [event("no "), event("disc"), DONE]
    got, intervention = streamed(made, parts)
    assert (got, bool(intervention)) == (parts[:2], True)
    parts = [event("a disc"), event("laimer"), event("."), DONE, b""]
    assert streamed(made, parts) == (parts, None)


def test_a_long_stream_is_looked_at_to_its_end() -> None:
    made = guardrail(
        "regex-guardrail", response={"enabled": True, "regex": "(?s)^begin.*end$", "invert": True}
    )
    filler = [event("x" * 5000) for _ in range(20)]
    got, intervention = streamed(made, [event("begin"), *filler, event("end"), DONE])
    assert (len(got), bool(intervention)) == (22, True)
    assert streamed(made, [event("b"), event("egin"), *filler, DONE])[1] is None
    endless = [event("x" * 300_000) for _ in range(5)]
    assert b"longer than" in (streamed(made, endless)[1] or b"")


def test_a_stream_is_held_until_it_has_enough_and_ends_where_it_has_too_much() -> None:
    made = guardrail("word-count-guardrail", response={"enabled": True, "min": 3, "max": 5})
    parts = [event("a"), event("b c"), event(" d"), event(" e"), event(" f g"), DONE]
    got, intervention = streamed(made, parts)  # `ab`, then `c`: two words
    assert got == [b"", b"", parts[0] + parts[1] + parts[2], parts[3]]
    assert intervention is not None
    got, intervention = streamed(made, [event("a b"), DONE])
    assert (got, bool(intervention)) == ([b""], True)
    parts = [event("a b c"), DONE]
    assert streamed(made, parts) == (parts, None)


def test_an_inverted_count_is_known_when_it_is_exceeded_or_at_the_end() -> None:
    params = {"enabled": True, "min": 2, "max": 3, "invert": True}
    made = guardrail("word-count-guardrail", response=params)
    parts = [event("a b "), event("c d "), event("e")]
    assert streamed(made, parts) == ([b"", parts[0] + parts[1], parts[2]], None)
    assert streamed(made, [event("a b"), DONE])[1] is not None
    assert streamed(made, [event("a"), DONE]) == ([b"", event("a") + DONE], None)


def test_events_without_text_pass_with_the_others() -> None:
    made = guardrail("word-count-guardrail", response={"enabled": True, "min": 1, "max": 2})
    role = b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\n'
    comment = b": keep-alive\n\n"
    usage = b'data: {"usage":{"total_tokens":3}}\n\n'
    parts = [role, comment, event("a "), comment, event("b"), usage, DONE]
    assert streamed(made, parts) == (parts, None)


def test_data_that_is_no_json_is_text_itself() -> None:
    made = guardrail(
        "regex-guardrail", response={"enabled": True, "regex": "secret", "invert": True}
    )
    assert streamed(made, [b"data: a se\n\n", b"data: cret\n\n"])[1] is not None
    whole = guardrail(
        "regex-guardrail",
        response={"enabled": True, "regex": "secret", "invert": True, "streamingJsonPath": ""},
    )
    assert streamed(whole, [b'data: {"any": "secret"}\n\n'])[1] is not None


def test_text_behind_the_end_is_looked_at_too() -> None:
    made = guardrail(
        "regex-guardrail", response={"enabled": True, "regex": "secret", "invert": True}
    )
    assert streamed(made, [DONE, event("secret")])[1] is not None


@pytest.mark.parametrize(("coding", "pack"), PACKED)
def test_a_compressed_stream_passes_decompressed(coding: str, pack: Pack) -> None:
    made = guardrail(
        "regex-guardrail", response={"enabled": True, "regex": "secret", "invert": True}
    )
    stream = event("a") + event("b") + DONE
    packed = pack(stream)
    one = answered(exchange(), content_type=STREAM, content_encoding=coding, content_length="9")
    got, intervention = streamed(made, [packed[:20], packed[20:]], one)
    assert (b"".join(got), intervention) == (stream, None)
    assert one.response is not None
    assert set(one.response.headers) == {":status", "content-type"}
    unknown = answered(exchange(), content_type=STREAM, content_encoding="lzma")
    verdict = made.on_response_headers(unknown)
    assert "'lzma' cannot be read" in document(verdict)["message"]["actionReason"]  # type: ignore[arg-type]


def test_chunks_of_what_is_no_stream_are_held_until_it_is_whole() -> None:
    made = guardrail("word-count-guardrail", response={"enabled": True, "min": 1, "max": 2})
    json = answered(exchange(), content_type="application/json")
    body = completion("a b")
    assert made.on_response_chunk(json, body[:10], last=False) == b""
    assert made.on_response_chunk(json, body[10:], last=True) == body
    json = answered(exchange(), content_type="application/json")
    assert made.on_response_chunk(json, completion("a b c")[:10], last=False) == b""
    verdict = made.on_response_chunk(json, completion("a b c")[10:], last=True)
    assert document(verdict)  # type: ignore[arg-type]
    endless = answered(exchange(), content_type="application/json")
    assert made.on_response_chunk(endless, bytes(4 << 20), last=False) == b""
    assert isinstance(made.on_response_chunk(endless, b"x", last=False), Answer)


TEXT = st.text(alphabet="ab .!?\n", max_size=60)


@given(TEXT, st.lists(st.integers(0, 60), max_size=6), st.integers(0, 5), st.integers(1, 8))
@pytest.mark.parametrize("name", COUNTS)
def test_a_stream_counts_as_its_whole_text_does(
    name: str, text: str, cuts: list[int], least: int, most: int
) -> None:
    params = {"enabled": True, "min": min(least, most), "max": most}
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in pairwise(edges)]
    for invert in (False, True):
        made = guardrail(name, response={**params, "invert": invert})
        got, intervention = streamed(made, [*(event(piece) for piece in pieces), DONE])
        whole = told(made, completion(text)) if text else streamed(made, [DONE])[1]
        assert (intervention is None) is (whole is None)
        if intervention is None:
            assert b"".join(got) == b"".join(event(piece) for piece in pieces) + DONE


@pytest.mark.parametrize("content_type", [STREAM, "application/json"])
def test_of_a_stream_that_was_judged_nothing_more_is_kept(content_type: str) -> None:
    made = guardrail(
        "regex-guardrail", response={"enabled": True, "regex": "secret", "invert": True}
    )
    one = answered(exchange(), content_type=content_type)  # as in shadow mode: it goes on
    made.on_response_headers(one)
    part = event("secret " + "x" * (1 << 20))
    verdicts = [made.on_response_chunk(one, part, last=False) for _ in range(12)]
    (judged,) = [verdict for verdict in verdicts if isinstance(verdict, Answer)]
    after = verdicts[verdicts.index(judged) + 1 :]
    assert after
    assert set(after) == {None}
