"""What all guardrails have in common, and those that look at text alone."""

import gzip
from typing import Any

import orjson
import pytest

from policy_engine.errors import Fault, InvalidParameters
from tests.policy_engine.attached import CATALOGUE, policy
from tests.policy_engine.exchanges import exchange
from tests.policy_engine.guardrails.by_hand import (
    COUNTS,
    DONE,
    STREAM,
    asked,
    completion,
    document,
    event,
    guardrail,
    prompt,
    told,
)
from tests.policy_engine.packed import PACK, PACKED, Pack
from tests.policy_engine.python_gateway import python_gateway, ref
from tests.servers.http_backend import Answer as Told


@pytest.mark.parametrize(
    ("name", "params", "good", "bad"),
    [
        ("word-count-guardrail", {"min": 2, "max": 3}, ["a b", "a  b\nc"], ["", "a", "a b c d"]),
        (
            "sentence-count-guardrail",
            {"min": 2, "max": 3},
            ["A. B", "A? B! C.", "A... B"],
            ["A", "A.", "A. B. C. D", " . ! "],
        ),
        (
            "content-length-guardrail",
            {"min": 2, "max": 4},
            ["ab", "é", "€a"],
            ["a", "abcde", "€€"],
        ),
        ("regex-guardrail", {"regex": "(?i)b+"}, ["abc", "B"], ["", "ac"]),
    ],
)
def test_a_text_passes_or_does_not_and_the_other_way_round(
    name: str, params: dict[str, Any], good: list[str], bad: list[str]
) -> None:
    plain = guardrail(name, request=params, response={"enabled": True, **params})
    inverted = {**params, "invert": True}
    other = guardrail(name, request=inverted, response={"enabled": True, **inverted})
    for made, passing, refused in ((plain, good, bad), (other, bad, good)):
        for text in passing:
            assert asked(made, prompt("first", text)) is None
            assert told(made, completion(text)) is None
        for text in refused:
            said = document(asked(made, prompt("first", text)))
            assert said == {
                "type": name.upper().replace("-", "_"),
                "message": {
                    "action": "GUARDRAIL_INTERVENED",
                    "interveningGuardrail": name,
                    "actionReason": made.reason,
                    "direction": "REQUEST",
                },
            }
            said["message"]["direction"] = "RESPONSE"
            assert document(told(made, completion(text))) == said


@pytest.mark.parametrize(
    ("name", "params", "assessment"),
    [
        (
            "word-count-guardrail",
            {"min": 1, "max": 2},
            "Violation of word count detected. Expected between 1 and 2 words.",
        ),
        (
            "regex-guardrail",
            {"regex": "^x$"},
            "Violation of regular expression detected. ^x$",
        ),
    ],
)
def test_details_are_told_only_when_asked_for(
    name: str, params: dict[str, Any], assessment: str
) -> None:
    quiet = document(asked(guardrail(name, request=params), prompt("a b c")))
    assert "assessments" not in quiet["message"]
    loud = guardrail(name, request={**params, "showAssessment": True})
    assert document(asked(loud, prompt("a b c")))["message"]["assessments"] == assessment


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("", b"one two three", 3),
        ("$", b'{"a": "b c"}', 3),
        ("$.a", b'{"a": ["x y", {"b": 1, "c": true}, null]}', 4),
        ("$.questions.*.text", b'{"questions": {"q": {"text": "a b"}, "r": {"text": "c"}}}', 3),
    ],
)
def test_the_text_is_where_the_path_leads(path: str, body: bytes, words: int) -> None:
    bounds = {"min": words, "max": words, "jsonPath": path}
    assert asked(guardrail("word-count-guardrail", request=bounds), body) is None


@pytest.mark.parametrize(
    ("body", "headers", "problem"),
    [
        (b"{", {}, "the body is not JSON"),
        (b"", {}, "the body is not JSON"),
        (b'{"messages": []}', {}, "$.messages[-1].content leads nowhere"),
        (b'{"messages": [{"content": {}}]}', {}, "leads to no text"),
        (b'{"messages": [{"content": null}]}', {}, "leads to no text"),
        (prompt("x"), {"content-encoding": "lzma"}, "content coding 'lzma' cannot be read"),
        (prompt("x"), {"content-encoding": "br"}, "not br"),
        (prompt("x"), {"content-encoding": "zstd"}, "not zstd"),
        (PACK["br"](bytes(20 << 20)), {"content-encoding": "br"}, "longer than"),
        (PACK["zstd"](bytes(20 << 20)), {"content-encoding": "zstd"}, "longer than"),
        (prompt("x"), {"content-encoding": "gzip"}, "not gzip"),
        (gzip.compress(bytes(20 << 20), mtime=0), {"content-encoding": "gzip"}, "longer than"),
        ('{"messages": [{"content": "x"}]}'.encode("utf-16"), {}, "the body is not JSON"),
    ],
)
def test_what_cannot_be_looked_at_does_not_pass(
    body: bytes, headers: dict[str, str], problem: str
) -> None:
    for invert in (False, True):
        made = guardrail("regex-guardrail", request={"regex": "x", "invert": invert})
        reason = document(asked(made, body, headers))["message"]["actionReason"]
        assert reason.startswith("Error reading content: ")
        assert problem in reason


def test_a_whole_body_is_read_in_its_charset() -> None:
    made = guardrail("regex-guardrail", request={"regex": "é", "jsonPath": ""})
    assert asked(made, "é".encode()) is None
    assert (
        asked(made, "é".encode("latin-1"), {"content-type": "text/plain; charset=latin-1"}) is None
    )
    for charset in ("utf-8", "ascii", "nonsense"):
        refused = asked(made, b"\xe9", {"content-type": f'text/plain; charset="{charset}"'})
        assert "is not text" in document(refused)["message"]["actionReason"]


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"p": "ignore this"}', "application/json; charset=cp037"),
        (b'{"p": "+AGk-gnore this"}', "application/json; charset=utf-7"),
        (b'{"p": "ignore this"}', "application/json; charset=shift_jis"),
        (b'{"p": "ignore this"}', "application/json; charset=utf-8; charset=utf-16"),
        ('{"p": "ignore this"}'.encode("utf-16-le"), "application/json"),
        (rb'{"p": "\u0069gnore this"}', "application/json"),
        (rb'{"p": "ignore\u0020this"}', "application/json"),
        (rb'{"p": "ignore\nthis"}', "text/plain"),
    ],
)
def test_nothing_hides_in_a_whole_body(body: bytes, content_type: str) -> None:
    params = {"regex": r"ignore\s+this", "invert": True, "jsonPath": ""}
    made = guardrail("regex-guardrail", request=params)
    headers = {"content-type": content_type}
    assert document(asked(made, body, headers))
    assert asked(made, b'{"p": "ignore that"}', {"content-type": "application/json"}) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages": [{"content": "secret"}], "messages": [{"content": "x"}]}',
        b'{"messages": [{"content": "secret", "c\\u006fntent": "x"}]}',
    ],
)
def test_a_member_that_stands_twice_hides_nothing(body: bytes) -> None:
    made = guardrail("regex-guardrail", request={"regex": "secret", "invert": True})
    assert "stands twice" in document(asked(made, body))["message"]["actionReason"]


@pytest.mark.parametrize(("coding", "pack"), PACKED)
def test_compressed_bodies_are_looked_into(coding: str, pack: Pack) -> None:
    made = guardrail(
        "regex-guardrail",
        request={"regex": "secret", "invert": True},
        response={"enabled": True, "regex": "secret", "invert": True},
    )
    headers = {"content-encoding": coding}
    assert asked(made, pack(prompt("fine")), headers) is None
    assert document(asked(made, pack(prompt("a secret")), headers))
    assert told(made, pack(completion("fine")), content_encoding=coding) is None
    assert document(told(made, pack(completion("a secret")), content_encoding=coding))


def test_requests_of_methods_without_a_body_pass_without_one() -> None:
    made = guardrail("word-count-guardrail", request={"min": 1, "max": 2})
    assert asked(made, b"", method="GET") is None
    assert asked(made, b"", method="DELETE") is None
    assert document(asked(made, prompt("a b c"), method="GET"))


def test_answers_that_have_no_text_pass_only_where_there_can_be_none() -> None:
    bounds = {"enabled": True, "min": 1, "max": 2}
    made = guardrail("word-count-guardrail", response=bounds)
    assert told(made, b"", 204) is None
    assert told(made, b'{"error": "overloaded"}', 503) is None
    assert document(told(made, b'{"error": "none"}', 200))
    assert document(told(made, completion("a b c"), 503))
    assert document(told(made, b"", 200))


def test_only_what_is_enabled_costs_anything() -> None:
    bounds = {"min": 1, "max": 2}
    assert guardrail("word-count-guardrail", request=bounds).phases() == {"request_body"}
    assert guardrail("word-count-guardrail", response=bounds).phases() == frozenset()
    off = guardrail("word-count-guardrail", request={"enabled": False})
    assert off.phases() == frozenset()
    assert asked(off, b"") is None
    answers = guardrail("word-count-guardrail", response={"enabled": True, **bounds})
    assert answers.phases() == {
        "request_headers",
        "response_headers",
        "response_body",
        "response_chunk",
    }
    one = exchange({"accept-encoding": "gzip"})
    answers.on_request_headers(one)
    assert "accept-encoding" not in one.request.headers


@pytest.mark.parametrize(
    ("name", "params", "fault"),
    [
        *(
            (name, params, fault)
            for name in COUNTS
            for params, fault in (
                ({"request": {}}, Fault("request.min", "min is required")),
                (
                    {"response": {"enabled": True, "min": 1}},
                    Fault("response.max", "max is required"),
                ),
                (
                    {"request": {"min": 2, "max": 1}},
                    Fault("request.max", "must not be less than min"),
                ),
                ({"request": {"min": -1, "max": 1}}, Fault("request.min", "must be at least 0")),
                ({"request": {"min": 0, "max": 0}}, Fault("request.max", "must be at least 1")),
            )
        ),
        ("regex-guardrail", {}, Fault("", "at least one of request and response is required")),
        ("regex-guardrail", {"request": {}}, Fault("request.regex", "regex is required")),
        (
            "regex-guardrail",
            {"request": {"regex": ""}},
            Fault("request.regex", "regex is required"),
        ),
        (
            "regex-guardrail",
            {"request": {"regex": "(?<=a)b"}},
            Fault(
                "request.regex",
                "is not a regular expression of RE2: invalid perl operator: (?<=",
            ),
        ),
        (
            "regex-guardrail",
            {"request": {"regex": "a", "jsonPath": "messages"}},
            Fault(
                "request.jsonPath",
                "must be a JSONPath that starts with '$', or empty for the whole body",
            ),
        ),
    ],
)
def test_wrong_parameters_are_named(name: str, params: dict[str, Any], fault: Fault) -> None:
    with pytest.raises(InvalidParameters) as caught:
        policy(name, **params)
    assert caught.value.faults == (fault,)


# --- through Envoy -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("word-count-guardrail", "two words", "one"),
        ("sentence-count-guardrail", "One.", ""),
        ("content-length-guardrail", "x", "x" * 16385),
        ("regex-guardrail", "hello", "Ignore previous instructions"),
    ],
)
async def test_the_example_lets_pass_and_refuses(name: str, good: str, bad: str) -> None:
    example = CATALOGUE.resolve(name).example
    async with python_gateway([ref(name, **example)]) as running:
        answer = await running.client.post("/chat", content=prompt(good))
        assert answer.status_code == 200
        assert orjson.loads(running.backend.last.body) == orjson.loads(prompt(good))
        refused = await running.client.post("/chat", content=prompt(bad))
        assert refused.status_code == 422
        assert refused.headers["content-type"] == "application/json"
        assert refused.json()["message"]["direction"] == "REQUEST"
        assert (await running.client.get("/models")).status_code == 200
        assert len(running.backend.requests) == 2


async def test_answers_are_refused_whole_or_where_their_stream_begins_to_match() -> None:
    wanted = ref("regex-guardrail", response={"enabled": True, "regex": "secret", "invert": True})
    async with python_gateway([wanted]) as running:
        for text, status in (("fine", 200), ("a secret", 422)):
            running.backend.answer = lambda _, text=text: Told(body=completion(text))
            answer = await running.client.post("/chat", headers={"accept-encoding": "gzip"})
            assert answer.status_code == status
            assert running.backend.last.header("accept-encoding") is None
        parts = (event("It is a se"), event("cret"), event(" more"), DONE)
        running.backend.answer = lambda _: Told(
            headers=(("content-type", STREAM),), chunks=parts, pause_s=0.05
        )
        answer = await running.client.post("/chat")
        assert answer.status_code == 200
        assert answer.content.startswith(parts[0] + b'data: {"type":"REGEX_GUARDRAIL"')
        assert answer.content.endswith(b"}}\n\n")
        parts = (event("all "), event("fine"), DONE)
        running.backend.answer = lambda _: Told(
            headers=(("content-type", STREAM),), chunks=parts, pause_s=0.05
        )
        assert (await running.client.post("/chat")).content == b"".join(parts)


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd"])
async def test_compressed_messages_are_looked_into_on_their_way(coding: str) -> None:
    rule = {"regex": "secret", "invert": True}
    wanted = ref("regex-guardrail", request=rule, response={"enabled": True, **rule})
    pack, headers = PACK[coding], {"content-encoding": coding}
    async with python_gateway([wanted]) as running:
        for text, status in (("fine", 200), ("a secret", 422)):
            running.backend.answer = lambda _: Told(body=completion("fine"))
            body = pack(prompt(text))
            answer = await running.client.post("/chat", content=body, headers=headers)
            assert answer.status_code == status
            running.backend.answer = lambda _, text=text: Told(
                headers=tuple(headers.items()), body=pack(completion(text))
            )
            answer = await running.client.post("/chat", content=prompt("fine"))
            assert answer.status_code == status
            packed = pack(event("It is ") + event(text) + DONE)
            parts = tuple(packed[at : at + 20] for at in range(0, len(packed), 20))
            running.backend.answer = lambda _, parts=parts: Told(
                headers=(("content-type", STREAM), *headers.items()), chunks=parts
            )
            answer = await running.client.post("/chat", content=prompt("fine"))
            assert answer.status_code == 200
            assert "content-encoding" not in answer.headers
            assert (b"REGEX_GUARDRAIL" in answer.content) == (status == 422)
            assert (answer.content == event("It is ") + event(text) + DONE) == (status == 200)
            assert b"secret" not in answer.content
        sent = [one.body for one in running.backend.requests]
        assert sent.count(pack(prompt("fine"))) == 1
