from typing import Any

import pytest
from structlog.testing import capture_logs

from policy_engine.errors import InvalidParameters
from policy_engine.hooks import Exchange
from policy_engine.parameters.headers import APPLICATION_HEADER
from policy_engine.policies.log_message import LogMessage
from policy_engine.system import SystemParameters
from tests.policy_engine.attached import policy
from tests.policy_engine.exchanges import answered, exchange
from tests.policy_engine.python_gateway import python_gateway, ref
from tests.servers.http_backend import Answer

TRACE = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}


def made(**params: Any) -> LogMessage:
    found = policy("log-message", **params)
    assert isinstance(found, LogMessage)
    return found


def lines(logged: list[Any]) -> list[dict[str, Any]]:
    return [dict(one) for one in logged if one["event"] == "message"]


def written(by: LogMessage, request: Exchange, *chunks: bytes) -> list[dict[str, Any]]:
    """What the policy writes about a request with that body, and about its answer."""
    with capture_logs() as logged:
        by.on_request_headers(request)
        for number, chunk in enumerate(chunks, start=1):
            by.on_request_chunk(request, chunk, last=number == len(chunks))
        if request.response is not None:
            by.on_response_headers(request)
            for number, chunk in enumerate(chunks, start=1):
                by.on_response_chunk(request, chunk, last=number == len(chunks))
    return lines(logged)


def test_a_line_says_which_message_it_is_about() -> None:
    request = exchange(
        {**TRACE, APPLICATION_HEADER: "Shop", "X-A": "b"}, path="/orders/items/1?q=2"
    )
    both = {"request": {"headers": True}, "response": {"headers": True}}
    first, second = written(made(**both), answered(request, 201, x_b="c"))
    about = {
        "event": "message",
        "log_level": "info",
        "api": "orders",
        "api_version": "v1",
        "operation": "POST /items/{id}",
        "request_id": "request-1",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "application": "Shop",
        "method": "POST",
        "path": "/orders/items/1?q=2",
    }
    assert first == {**about, "flow": "REQUEST", "headers": {**TRACE, "x-a": "b"}}
    assert second == {**about, "flow": "RESPONSE", "status": 201, "headers": {"x-b": "c"}}


def test_secrets_are_masked_and_what_is_excluded_is_left_out() -> None:
    headers = dict.fromkeys(
        (
            "Authorization",
            "X-Forwarded-Authorization",
            "Cookie",
            "API-Key",
            "X-API-Key",
            "apikey",
            "Subscription-Key",
            "X-JWT-Assertion",
            "X-Amz-Security-Token",
            "X-Mine",
            "User-Agent",
            "Accept",
        ),
        "value",
    )
    system = SystemParameters(log_message_masked_headers=("X-MINE",))
    request = exchange(headers, system=system, path="/a?api_key=value&q=1&token=value&flag")
    both = {"headers": True, "excludeHeaders": ["USER-AGENT"]}
    first, second = written(
        made(request=both, response=both), answered(request, set_cookie="value", server="x")
    )
    shown = first["headers"]
    assert shown.pop("accept") == "value"
    assert "user-agent" not in shown
    assert len(shown) == len(headers) - 2
    assert set(shown.values()) == {"***"}
    assert second["headers"] == {"set-cookie": "***", "server": "x"}
    assert first["path"] == "/a?api_key=***&q=1&token=***&flag"


def test_secrets_in_urls_are_masked_however_they_are_written() -> None:
    headers = {"Referer": "https://a.example/?page=2&token=value#id_token=value"}
    request = exchange(headers, path="//[a?x=1&api%5Fkey=value&pass%77ord=value;session=value")
    both = {"headers": True}
    location = '<https://a.example/?q=1&access_token=value>; rel="next"'
    first, second = written(made(request=both, response=both), answered(request, link=location))
    assert first["headers"] == {"referer": "https://a.example/?page=2&token=***#id_token=***"}
    assert first["path"] == "//[a?x=1&api%5Fkey=***&pass%77ord=***;session=***"
    assert second["headers"] == {"link": '<https://a.example/?q=1&access_token=***>; rel="next"'}


def test_a_payload_is_one_line_however_it_comes() -> None:
    request = exchange({"Content-Type": "application/json"})
    (line,) = written(made(request={"payload": True}), request, b'{"a":', b"1}", b"")
    assert line["payload"] == '{"a":1}'
    assert (line["payload_bytes"], line["payload_cut_off"]) == (7, False)


def test_a_long_payload_is_cut_off_and_its_length_told() -> None:
    system = SystemParameters(log_message_max_payload_bytes=5)
    request = exchange({"Content-Type": "text/plain"}, system=system)
    (line,) = written(made(request={"payload": True}), request, b"abc", b"def", b"ghi")
    assert (line["payload"], line["payload_bytes"], line["payload_cut_off"]) == ("abcde", 9, True)


@pytest.mark.parametrize(
    "headers",
    [{"Content-Type": "image/png"}, {"Content-Type": "text/plain", "Content-Encoding": "gzip"}],
)
def test_of_what_is_no_text_only_the_length_is_told(headers: dict[str, str]) -> None:
    (line,) = written(made(request={"payload": True}), exchange(headers), b"\x1f\x8b")
    assert "payload" not in line
    assert line["payload_bytes"] == 2


def test_the_parts_of_an_event_stream_are_lines_of_their_own() -> None:
    request = answered(exchange(), content_type="text/event-stream")
    found = written(made(response={"payload": True}), request, b"data: 1\n\n", b"data: 2\n\n", b"")
    assert [one["payload"] for one in found] == ["data: 1\n\n", "data: 2\n\n"]


def test_only_the_phases_that_are_written_about_are_asked_for() -> None:
    assert made(request={}).phases() == frozenset()
    assert made(response={"headers": True}).phases() == {"response_headers"}
    assert made(request={"payload": True}).phases() == {"request_headers", "request_chunk"}


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({}, ""),
        ({"request": {"body": True}}, "request.body"),
        ({"response": {"excludeHeaders": ["a b"]}}, "response.excludeHeaders[0]"),
    ],
)
def test_wrong_parameters_are_told_by_their_path(params: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidParameters) as caught:
        made(**params)
    assert [fault.path for fault in caught.value.faults] == [path]


async def test_messages_are_written_and_traffic_is_as_without_it() -> None:
    whole = {"payload": True, "headers": True}
    said = Answer(201, (("content-type", "text/plain"), ("x-b", "c")), b"theirs" * 1000)
    async with python_gateway(
        [ref("log-message", request=whole, response=whole)], upstream=lambda _: said
    ) as running:
        with capture_logs() as logged:
            headers = {"Content-Type": "application/json", "Authorization": "Bearer s"}
            answer = await running.client.post("/items", content=b'{"a":1}', headers=headers)
            assert (answer.status_code, answer.content) == (201, said.body)
            assert answer.headers["x-b"] == "c"
            assert answer.headers["content-length"] == "6000"
            got = running.backend.last
            assert got.header("content-length") == "7"
            assert (got.body, got.header("authorization")) == (b'{"a":1}', "Bearer s")
            assert (await running.client.get("/items")).status_code == 201
    found = lines(logged)
    assert [(one["flow"], one["method"], "payload" in one) for one in found] == [
        ("REQUEST", "POST", False),
        ("REQUEST", "POST", True),
        ("RESPONSE", "POST", False),
        ("RESPONSE", "POST", True),
        ("REQUEST", "GET", False),
        ("RESPONSE", "GET", False),
        ("RESPONSE", "GET", True),
    ]
    assert found[0]["headers"]["authorization"] == "***"
    assert found[1]["payload"] == '{"a":1}'
    assert found[0]["request_id"] == found[3]["request_id"] == got.header("x-request-id")
    assert found[3]["payload_bytes"] == 6000


async def test_beside_a_policy_that_wants_whole_bodies_it_works_too() -> None:
    logging = ref("log-message", request={"payload": True}, response={"payload": True})
    guard = ref("word-count-guardrail", request={"min": 1, "max": 9, "jsonPath": "$.a"})
    async with python_gateway([logging, guard]) as running:
        with capture_logs() as logged:
            answer = await running.client.post("/items", json={"a": "two words"})
            assert answer.status_code == 200
    assert [one["flow"] for one in lines(logged)] == ["REQUEST", "RESPONSE"]


async def test_the_example_does_what_it_says() -> None:
    async with python_gateway([ref("log-message", **LogMessage.example)]) as running:
        with capture_logs() as logged:
            assert (await running.client.post("/items", json={"a": 1})).status_code == 200
    first, payload, last = lines(logged)
    assert "user-agent" not in first["headers"]
    assert payload["payload"] == '{"a":1}'
    assert last["headers"]["content-type"] == "application/json"
