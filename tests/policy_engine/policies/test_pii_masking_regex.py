import gzip
from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy_engine.errors import Fault, InvalidParameters
from policy_engine.hooks import Answer
from policy_engine.policies.pii_masking_regex import PiiMaskingRegex
from tests.policy_engine.attached import CATALOGUE, policy
from tests.policy_engine.exchanges import answered, exchange
from tests.policy_engine.guardrails.by_hand import DONE, event, prompt
from tests.policy_engine.packed import PACKED, Pack
from tests.policy_engine.python_gateway import python_gateway, ref
from tests.servers.http_backend import Answer as Told
from tests.servers.http_backend import Received

NAME = "pii-masking-regex"
STREAM = "text/event-stream"


def made(**params: Any) -> PiiMaskingRegex:
    one = policy(NAME, **params)
    assert isinstance(one, PiiMaskingRegex)
    return one


def masked(text: str, **params: Any) -> str:
    body = made(**params).on_request_body(exchange(), prompt(text))
    if body is None:
        return text
    assert isinstance(body, bytes)
    return str(orjson.loads(body)["messages"][-1]["content"])


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("email", "to a.b+c@mail.example.co.uk, please", "to [EMAIL_0000], please"),
        ("email", "a@b.de a@b.de c@d.de", "[EMAIL_0000] [EMAIL_0000] [EMAIL_0001]"),
        ("email", "nobody@nowhere @x.de a@", None),
        ("phone", "call +1234567890 or +49 (30) 1234-567", "call [PHONE_0000] or [PHONE_0001]"),
        ("phone", "555-123-4567, (555) 123-4567", "[PHONE_0000], [PHONE_0001]"),
        ("phone", "order 20240101 at 12.50 on 2024-01-01", None),
        ("ssn", "it is 123-45-6789.", "it is [SSN_0000]."),
        ("ssn", "1123-45-67890", None),
    ],
)
def test_personal_data_is_taken_out(kind: str, text: str, expected: str | None) -> None:
    assert masked(text, **{kind: True}) == (expected or text)
    redacted = masked(text, redactPII=True, **{kind: True})
    assert (redacted == text) is (expected is None)
    if expected is not None:
        assert "*****" in redacted


def test_own_kinds_of_data_are_taken_out() -> None:
    card = {"piiEntity": "CREDIT_CARD", "piiRegex": r"\b\d{4}-\d{4}\b"}
    mail = {"piiEntity": "EMAIL", "piiRegex": r"@\w+"}
    text = "1234-5678 a@b.de @someone"
    assert masked(text, email=True, customPIIEntities=[card, mail]) == (
        "[CREDIT_CARD_0000] [EMAIL_0000] [EMAIL_0001]"
    )


def test_the_rest_of_the_body_stays_as_it_is() -> None:
    body = '{"big":12345678901234567890123,"é":[1.50,null],"messages":[{"content":"a@b.de"}]}'
    got = made(email=True).on_request_body(exchange(), body.encode())
    assert got == body.replace("a@b.de", "[EMAIL_0000]").replace("1.50", "1.5").encode()
    parts = {"messages": [{"content": [{"type": "text", "text": "a@b.de"}, {"n": 1}]}]}
    assert masked_document(parts)["messages"][0]["content"] == [
        {"type": "text", "text": "[EMAIL_0000]"},
        {"n": 1},
    ]


def masked_document(document: Any, **params: Any) -> Any:
    body = made(email=True, **params).on_request_body(exchange(), orjson.dumps(document))
    assert isinstance(body, bytes)
    return orjson.loads(body)


@pytest.mark.parametrize("path", ["", "$"])
def test_the_whole_body_may_be_any_text(path: str) -> None:
    one = made(email=True, jsonPath=path)
    assert one.on_request_body(exchange(), b"mail a@b.de") == b"mail [EMAIL_0000]"


@pytest.mark.parametrize(
    ("body", "headers", "problem"),
    [
        (b'{"messages": []}', {}, "leads nowhere"),
        (b'{"messages": [{"content": 1}]}', {}, "leads to no text"),
        (b"{", {}, "unexpected end of data"),
        (b"\xff", {}, "utf-8"),
        (prompt("a@b.de"), {"content-encoding": "lzma"}, "cannot be read"),
        (prompt("a@b.de"), {"content-encoding": "br"}, "not br"),
    ],
)
def test_nothing_leaves_that_could_not_be_masked(
    body: bytes, headers: dict[str, str], problem: str
) -> None:
    said = made(email=True).on_request_body(exchange(headers), body)
    assert isinstance(said, Answer)
    assert said.status == 500
    document = orjson.loads(said.body)
    assert document["type"] == "PII_MASKING_REGEX"
    assert problem in document["message"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b'{"messages": [{"content": "a@b.de"}], "messages": [{"content": "x"}]}', None),
        ('{"text": "a@b.de"}'.encode("utf-16-le"), ""),
    ],
)
def test_what_may_be_read_in_another_way_does_not_leave(body: bytes, path: str | None) -> None:
    params = {} if path is None else {"jsonPath": path}
    said = made(email=True, **params).on_request_body(exchange(), body)
    assert isinstance(said, Answer)
    assert said.status == 500


def test_escapes_hide_nothing_in_a_whole_body() -> None:
    one = made(email=True, phone=True, jsonPath="")
    body = rb'{"p": "\u002B49 170 1234567", "m": "a\u0040b.de", "n": "\u00e9 \"\n"}'
    masked_body = one.on_request_body(exchange(), body)
    assert isinstance(masked_body, bytes)
    assert orjson.loads(masked_body) == {"p": "[PHONE_0000]", "m": "[EMAIL_0000]", "n": 'é "\n'}
    assert one.on_request_body(exchange(), rb'{"p": "\u00e9"}') is None


@pytest.mark.parametrize(("coding", "pack"), PACKED)
def test_a_compressed_body_leaves_as_it_is_read(coding: str, pack: Pack) -> None:
    one = exchange({"content-encoding": coding})
    body = made(email=True).on_request_body(one, pack(prompt("a@b.de")))
    assert body == prompt("[EMAIL_0000]")
    assert "content-encoding" not in one.request.headers
    untouched = exchange({"content-encoding": coding})
    assert made(email=True).on_request_body(untouched, pack(prompt("x"))) is None
    assert "content-encoding" in untouched.request.headers


def test_answers_are_asked_for_only_where_something_comes_back() -> None:
    assert made(email=True, redactPII=True).phases() == {"request_body"}
    assert "response_chunk" in made(email=True).phases()
    untouched = exchange()
    one = made(email=True)
    assert one.on_request_body(untouched, prompt("nothing")) is None
    answered(untouched, content_type="application/json")
    assert one.on_response_headers(untouched) is None
    assert one.on_response_chunk(untouched, b'"[EMAIL_0000]"', last=True) is None


def test_what_was_taken_out_comes_back() -> None:
    quoted = {"piiEntity": "QUOTED", "piiRegex": '"[^"]*"'}
    one = made(email=True, customPIIEntities=[quoted])
    asked = exchange()
    one.on_request_body(asked, prompt('a@b.de says "hi"'))
    body = orjson.dumps({"text": "[QUOTED_0000] said [EMAIL_0000] to [EMAIL_0001]"})
    packed = gzip.compress(body)
    answered(asked, content_type="application/json", content_encoding="gzip", content_length="9")
    assert one.on_response_headers(asked) is None
    got = one.on_response_chunk(asked, packed, last=True)
    assert isinstance(got, bytes)
    assert orjson.loads(got) == {"text": '"hi" said a@b.de to [EMAIL_0001]'}
    assert asked.response is not None
    assert set(asked.response.headers) == {":status", "content-type"}
    plain = exchange()
    one.on_request_body(plain, prompt('a@b.de says "hi"'))
    one.on_response_headers(answered(plain, content_type="text/plain"))
    assert one.on_response_chunk(plain, b"[QUOTED_0000]", last=True) == b'"hi"'


def said(stream: bytes) -> str:
    """The text of a stream of events."""
    events = [one[6:] for one in stream.split(b"\n") if one.startswith(b"data: {")]
    return "".join(orjson.loads(one)["choices"][0]["delta"].get("content", "") for one in events)


def restored(one: PiiMaskingRegex, text: str, parts: list[bytes]) -> bytes:
    asked = exchange()
    one.on_request_body(asked, prompt(text))
    one.on_response_headers(answered(asked, content_type=STREAM))
    got = b""
    for position, part in enumerate(parts):
        verdict = one.on_response_chunk(asked, part, last=position == len(parts) - 1)
        assert isinstance(verdict, bytes)
        got += verdict
    return got


ANSWER = "Mail [EMAIL_0000] or [EMAIL_0001]; [EMAIL_ is [not] one, nor [EMAIL_0002] [EM"


@given(st.lists(st.integers(0, len(ANSWER)), max_size=12), st.integers(1, 200))
def test_what_was_taken_out_comes_back_wherever_a_stream_is_cut(cuts: list[int], size: int) -> None:
    edges = [0, *sorted(cuts), len(ANSWER)]
    pieces = [ANSWER[start:end] for start, end in pairwise(edges)]
    stop = b'event: end\ndata: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
    stream = b"".join(map(event, pieces)) + stop + b": bye\n\n" + DONE
    parts = [stream[at : at + size] for at in range(0, len(stream), size)]
    got = restored(made(email=True), "a@b.de c@d.de", parts)
    expected = ANSWER.replace("[EMAIL_0000]", "a@b.de").replace("[EMAIL_0001]", "c@d.de")
    assert said(got) == expected
    assert got.endswith(stop + b": bye\n\n" + DONE)


def test_events_without_placeholders_pass_at_once_as_they_are() -> None:
    one, asked = made(email=True), exchange()
    one.on_request_body(asked, prompt("a@b.de"))
    one.on_response_headers(answered(asked, content_type=STREAM))
    for part in (event("Hi [there]"), event("[x] "), b": keep-alive\n\n", b"data: none\n\n"):
        assert one.on_response_chunk(asked, part, last=False) == part
    held = one.on_response_chunk(asked, event("and [EM"), last=False)
    assert held == event("and ")


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (
            b'event: content_block_delta\ndata: {"delta":{"text":"[EMAIL_"}}\n\n',
            b'event: content_block_delta\ndata: {"delta":{"text":"0000]"}}\n\n',
            b'"text":"a@b.de"',
        ),
        (
            b'data: {"candidates":[{"content":{"parts":[{"text":"[EMAIL_"}]}}]}\n\n',
            b'data: {"candidates":[{"content":{"parts":[{"text":"0000]"}]}}]}\n\n',
            b'"text":"a@b.de"',
        ),
        (
            b'event: response.output_text.delta\ndata: {"delta":"[EMAIL_"}\n\n',
            b'event: response.output_text.delta\ndata: {"delta":"0000]"}\n\n',
            b'"delta":"a@b.de"',
        ),
        (b'data: {"any":"thing"}\n\n', b'data: {"any":"[EMAIL_0000]"}\n\n', b'"any":"a@b.de"'),
    ],
)
def test_streams_of_several_providers_are_understood(
    first: bytes, second: bytes, expected: bytes
) -> None:
    got = restored(made(email=True), "a@b.de", [first, second, b""])
    assert expected in got
    assert b"0000" not in got


def test_answers_with_several_choices_are_not_mixed_up() -> None:
    def choice(index: int, text: str) -> bytes:
        one = {"index": index, "delta": {"content": text}}
        return b"data: " + orjson.dumps({"choices": [one]}) + b"\n\n"

    parts = [choice(0, "[EMAIL_"), choice(1, "x"), choice(0, "0000]"), DONE]
    assert said(restored(made(email=True), "a@b.de", parts)) == "xa@b.de"


@pytest.mark.parametrize(
    ("params", "fault"),
    [
        (
            {},
            Fault("", "at least one of email, phone, ssn and customPIIEntities is required"),
        ),
        (
            {"customPIIEntities": [{"piiEntity": "A", "piiRegex": "x*"}]},
            Fault("customPIIEntities[0].piiRegex", "must not match empty text"),
        ),
    ],
)
def test_wrong_parameters_are_named(params: dict[str, Any], fault: Fault) -> None:
    with pytest.raises(InvalidParameters) as caught:
        policy(NAME, **params)
    assert caught.value.faults == (fault,)


@pytest.mark.parametrize("name", ["card", "CARD1", "", "A B"])
def test_entities_are_named_in_capitals(name: str) -> None:
    with pytest.raises(InvalidParameters) as caught:
        policy(NAME, customPIIEntities=[{"piiEntity": name, "piiRegex": "x"}])
    assert caught.value.faults[0].path == "customPIIEntities[0].piiEntity"


def answering(request: Received) -> Told:
    """What was asked, whole or word by word."""
    text = orjson.loads(request.body)["messages"][-1]["content"]
    if request.path == "/stream":
        cut = [text[at : at + 3] for at in range(0, len(text), 3)]
        chunks = (*map(event, cut), DONE)
        return Told(headers=(("content-type", STREAM),), chunks=chunks, pause_s=0.002)
    whole = orjson.dumps({"choices": [{"message": {"content": text}}]})
    if request.path == "/long":  # of a length that nobody has said
        return Told(chunks=(whole, *(b" " * 65_536 for _ in range(40))))
    return Told(body=whole)


async def test_the_example_masks_on_the_way_and_unmasks_on_the_way_back() -> None:
    example = CATALOGUE.resolve(NAME).example
    text = "I am a@b.de, +1234567890, card 4111 1111 1111 1111"
    async with python_gateway([ref(NAME, **example)], upstream=answering) as running:
        answer = await running.client.post("/whole", content=prompt(text))
        assert answer.json()["choices"][0]["message"]["content"] == text
        seen = orjson.loads(running.backend.last.body)["messages"][0]["content"]
        assert seen == "I am [EMAIL_0000], [PHONE_0000], card [CREDIT_CARD_0000]"
        answer = await running.client.post("/stream", content=prompt(text))
        assert said(answer.content) == text
        seen = orjson.loads(running.backend.last.body)["messages"][0]["content"]
        assert seen == "I am [EMAIL_0000], [PHONE_0000], card [CREDIT_CARD_0000]"
        answer = await running.client.post("/long", content=prompt(text))
        assert answer.json()["choices"][0]["message"]["content"] == text
        assert len(answer.content) > 2 << 20
        assert (await running.client.post("/whole", content=b'{"a":1}')).status_code == 500
        assert len(running.backend.requests) == 3
