from base64 import b64decode
from typing import Any

import pytest

from policy_engine.errors import InvalidParameters
from policy_engine.parameters.headers import APPLICATION_HEADER
from policy_engine.policies.interceptor_service import InterceptorService
from policy_engine.system import SystemParameters
from tests.policy_engine.attached import policy
from tests.policy_engine.interceptors import FAILED, asked, encoded, intercepted, received, replying
from tests.policy_engine.python_gateway import python_gateway, ref
from tests.servers.http_backend import Answer, http_backend


async def test_a_request_is_told_whole_and_changed_as_the_service_says() -> None:
    reply = {
        "headersToAdd": {"X-Interceptor": "true", "X-Both": "added", "content-length": "40"},
        "headersToReplace": {"X-Both": "replaced"},
        "headersToRemove": ["X-Secret"],
        "pathToRewrite": "/anything/intercepted?expand=tags",
        "body": encoded("mutated by the service"),
    }
    async with (
        http_backend(replying(reply)) as service,
        python_gateway([intercepted(service, request={})], context="/shop/v1") as running,
    ):
        headers = {"X-Secret": "s", "X-Both": "mine", APPLICATION_HEADER: "admin"}
        answer = await running.client.post("/shop/v1/items/1?q=2", content="mine", headers=headers)
        assert answer.status_code == 200
        got = received(running)
        assert got.path == "/anything/intercepted?expand=tags"
        assert got.body == b"mutated by the service"
        assert got.header("content-length") == "22"
        assert got.all("x-interceptor") == ["true"]
        assert got.all("x-both") == ["replaced"]
        assert got.header("x-secret") is None
        (told,) = asked(service)
        assert b64decode(told["requestBody"]) == b"mine"
        assert told["requestHeaders"]["x-secret"] == "s"
        assert not [name for name in told["requestHeaders"] if name.startswith((":", "x-signal"))]
        about = told["invocationContext"]
        assert about.pop("requestId") == told["requestHeaders"]["x-request-id"]
        assert about.pop("vhost") == "127.0.0.1"
        assert about == {
            "scheme": "http",
            "method": "POST",
            "path": "/shop/v1/items/1?q=2",
            "basePath": "/shop/v1",
            "apiName": "Tried",
            "apiVersion": "v1",
        }


async def test_a_query_stays_unless_the_service_gives_another() -> None:
    async with (
        http_backend(replying({"pathToRewrite": "/other"})) as service,
        python_gateway([intercepted(service, request={})]) as running,
    ):
        await running.client.get("/items?q=2")
        assert received(running).path == "/other?q=2"


async def test_the_service_can_answer_itself() -> None:
    reply = {
        "directRespond": True,
        "responseCode": 403,
        "headersToAdd": {"content-type": "text/plain", "X-Interceptor-Decision": "blocked"},
        "body": encoded("blocked by interceptor"),
    }
    async with (
        http_backend(replying(reply)) as service,
        python_gateway([intercepted(service, request={"includeRequestBody": False})]) as running,
    ):
        answer = await running.client.get("/block")
        assert (answer.status_code, answer.text) == (403, "blocked by interceptor")
        assert answer.headers["content-type"] == "text/plain"
        assert answer.headers["x-interceptor-decision"] == "blocked"
        assert not running.backend.requests
        assert "requestBody" not in asked(service)[0]


async def test_an_answer_is_told_and_changed_and_the_context_comes_back() -> None:
    response = {
        "responseCode": 202,
        "headersToAdd": {"X-Interceptor-Response": "true"},
        "headersToRemove": ["X-Internal"],
        "body": encoded("response-overridden"),
    }
    context = {"trace": "request-phase"}
    params = {
        "request": {"includeRequestBody": False},
        "response": {"includeRequestHeaders": True, "includeRequestBody": True},
    }
    headers = (("content-type", "text/plain"), ("x-internal", "1"))
    async with (
        http_backend(replying({"interceptorContext": context}, response)) as service,
        python_gateway(
            [intercepted(service, **params)], upstream=lambda _: Answer(201, headers, b"theirs")
        ) as running,
    ):
        answer = await running.client.post("/items", content="mine")
        assert (answer.status_code, answer.text) == (202, "response-overridden")
        assert answer.headers["x-interceptor-response"] == "true"
        assert answer.headers["content-length"] == "19"
        assert "x-internal" not in answer.headers
        _, told = asked(service)
        assert told["responseCode"] == 201
        assert told["responseHeaders"]["x-internal"] == "1"
        assert b64decode(told["responseBody"]) == b"theirs"
        assert b64decode(told["requestBody"]) == b"mine"
        assert told["requestHeaders"]["content-length"] == "4"
        assert told["interceptorContext"] == context
        assert told["invocationContext"]["apiName"] == "Tried"


async def test_only_what_is_wanted_is_told() -> None:
    params = {
        "request": {"includeRequestHeaders": False, "includeRequestBody": False},
        "response": {"includeResponseHeaders": False, "includeResponseBody": False},
    }
    async with (
        http_backend(replying(None, {"headersToAdd": {"X-Seen": "yes"}})) as service,
        python_gateway([intercepted(service, **params)]) as running,
    ):
        answer = await running.client.post("/items", content="mine")
        assert answer.headers["x-seen"] == "yes"
        assert [set(one) for one in asked(service)] == [
            {"invocationContext"},
            {"responseCode", "invocationContext", "interceptorContext"},
        ]


BAD_REPLIES = [
    Answer(500),
    Answer(302, (("location", "/"),)),
    Answer(body=b"nonsense"),
    Answer(body=b"[]"),
    Answer(body=b'{"body":"not base64!"}'),
    Answer(body=b'{"body":5}'),
    Answer(body=b'{"responseCode":9000}'),
    Answer(body=b'{"headersToAdd":{"x":"a\\r\\nb: c"}}'),
    Answer(body=b'{"headersToAdd":{":path":"/"}}'),
    Answer(body=b'{"headersToAdd":{"x-signalbox-application":"admin"}}'),
    Answer(body=b'{"headersToRemove":["host"]}'),
    Answer(body=b'{"pathToRewrite":"//../ x"}'),
    Answer(body=b'{"pathToRewrite":"x"}'),
    Answer(body=b'{"dynamicEndpoint":"v2"}'),
    Answer(body=b'{"dynamicEndpoint":{"name":"v2"}}'),
    Answer(body=b'{"interceptorContext":{"a":{}}}'),
    Answer(body=b'{"x":"' + b"x" * 2000 + b'"}'),
    Answer(body=b"{}", delay_s=5),
]


@pytest.mark.parametrize("phase", ["request", "response"])
@pytest.mark.parametrize("goes_on", [False, True])
async def test_a_service_that_fails_ends_the_request_unless_it_may_go_on(
    phase: str, goes_on: bool
) -> None:
    params = {phase: {"passthroughOnError": goes_on}, "timeoutMillis": 300}
    system = SystemParameters(interceptor_max_response_bytes=1024)
    async with (
        http_backend() as service,
        python_gateway([intercepted(service, **params)], system=system) as running,
    ):
        for reply in BAD_REPLIES:
            service.answer = lambda _, reply=reply: reply
            running.backend.requests.clear()
            answer = await running.client.post("/items", content="mine")
            told = reply.body[:60]
            assert answer.status_code == (200 if goes_on else 500), told
            if goes_on:
                assert received(running).body == b"mine", told
            else:
                assert answer.json() == FAILED, told
                assert len(running.backend.requests) == (0 if phase == "request" else 1), told


async def test_a_service_that_is_away_has_failed() -> None:
    async with http_backend() as service:
        away = service.url
    for goes_on, expected in ((False, 500), (True, 200)):
        one = ref("interceptor-service", endpoint=away, request={"passthroughOnError": goes_on})
        async with python_gateway([one]) as running:
            assert (await running.client.post("/items", content="x")).status_code == expected


async def test_a_body_that_was_not_sent_cannot_be_replaced() -> None:
    replies = replying({"body": encoded("x")}, {"body": encoded("x")})
    for params in (
        {"request": {"includeRequestBody": False}},
        {"response": {"includeResponseBody": False}},
    ):
        async with (
            http_backend(replies) as service,
            python_gateway([intercepted(service, **params)]) as running,
        ):
            assert (await running.client.get("/items")).status_code == 500


async def test_nulls_and_trailers_in_a_reply_mean_nothing() -> None:
    reply = {"body": None, "headersToAdd": None, "trailersToAdd": {"a": "b"}, "responseCode": 0}
    async with (
        http_backend(replying(reply)) as service,
        python_gateway([intercepted(service, request={})]) as running,
    ):
        assert (await running.client.post("/items", content="mine")).status_code == 200
        assert received(running).body == b"mine"


def test_no_body_is_held_up_that_the_service_does_not_get() -> None:
    def phases(**params: Any) -> set[str]:
        found = policy("interceptor-service", endpoint="http://a", **params)
        assert isinstance(found, InterceptorService)
        return set(found.phases())

    assert phases(request={}) == {"request_body"}
    assert phases(request={"includeRequestBody": False}) == {"request_headers"}
    assert phases(response={}) == {"response_body"}
    assert phases(response={"includeResponseBody": False}) == {"response_headers"}
    assert phases(response={"includeRequestBody": True}) == {"request_body", "response_body"}


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"endpoint": "http://a"}, ""),
        ({"request": {}}, "endpoint"),
        ({"endpoint": "ftp://a", "request": {}}, "endpoint"),
        ({"endpoint": "http://u:p@a", "request": {}}, "endpoint"),
        ({"endpoint": "http://a?b", "request": {}}, "endpoint"),
        ({"endpoint": "http://a?", "request": {}}, "endpoint"),
        ({"endpoint": "http://a:99999", "request": {}}, "endpoint"),
        ({"endpoint": "http://a", "request": {"x": 1}}, "request.x"),
        ({"endpoint": "http://a", "request": {}, "timeoutMillis": 99}, "timeoutMillis"),
    ],
)
def test_wrong_parameters_are_told_by_their_path(params: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidParameters) as caught:
        policy("interceptor-service", **params)
    assert [fault.path for fault in caught.value.faults] == [path]


async def test_the_example_does_what_it_says() -> None:
    response = {"headersToAdd": {"X-Seen": "yes"}}
    async with http_backend(replying(None, response)) as service:
        example = InterceptorService.example | {"endpoint": f"{service.url}/v1"}
        async with python_gateway([ref("interceptor-service", **example)]) as running:
            answer = await running.client.post("/items", content="mine")
            assert answer.headers["x-seen"] == "yes"
            assert ["requestBody" in one for one in asked(service)] == [False, False]
            assert "responseBody" in asked(service)[1]
            service.answer = lambda _: Answer(500)
            assert (await running.client.post("/items", content="mine")).json() == FAILED
