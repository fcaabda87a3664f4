import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

import httpx
import pytest

from policy_engine.policy import (
    Document,
    HttpFilter,
    Policy,
    Refusal,
    Scope,
    Version,
    typed,
)
from policy_engine.refusals import WORDED_PREFIX, local_reply_config
from tests.policy_engine.gateway import Api, bootstrap, gateway, virtual_host
from tests.servers.envoy import envoy
from tests.servers.http_backend import Answer


def told(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, content type and the JSON body's `error`."""
    assert set(answer.json()) == {"error", "message"}
    return answer.status_code, answer.headers["content-type"], answer.json()["error"]


async def test_no_route_is_a_404_in_json() -> None:
    async with gateway(Api((), {"/known": ()})) as running:
        answer = await running.client.get("/unknown")
        assert told(answer) == (404, "application/json", "Not Found")


async def test_an_upstream_that_is_away_is_a_503_in_json() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    async with served(Api(), port) as client:
        answer = await client.get("/")
        assert told(answer) == (503, "application/json", "Service Unavailable")


async def test_an_upstream_that_hangs_up_is_a_503_in_json() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server, served(Api(), server.sockets[0].getsockname()[1]) as client:
        answer = await client.get("/")
        assert told(answer) == (503, "application/json", "Service Unavailable")


async def test_an_upstream_that_talks_nonsense_is_a_502_in_json() -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"nonsense\r\n\r\n")
            await writer.drain()

    server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    async with server, served(Api(), server.sockets[0].getsockname()[1]) as client:
        answer = await client.get("/")
        assert told(answer) == (502, "application/json", "Bad Gateway")


async def test_an_upstream_that_is_too_slow_is_a_504_in_json() -> None:
    async with gateway(Api(timeout="0.1s")) as running:
        running.backend.answer = lambda _: Answer(delay_s=20)
        answer = await running.client.get("/")
        assert told(answer) == (504, "application/json", "Gateway Timeout")


async def test_headers_that_are_too_large_are_a_431_in_json() -> None:
    async with gateway(Api()) as running:
        answer = await running.client.get("/", headers={"X-Large": "x" * 70_000})
        assert told(answer) == (431, "application/json", "Request Header Fields Too Large")


async def test_a_request_that_is_no_http_is_a_400() -> None:
    async with gateway(Api()) as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")  # without a host
        answer = await reader.read(4096)
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        assert json.loads(body)["error"] == "Bad Request"


@pytest.mark.parametrize("status", [200, 400, 401, 404, 429, 500, 502, 503, 504])
async def test_what_an_upstream_answers_stays_as_it_is(status: int) -> None:
    async with gateway(Api()) as running:
        running.backend.answer = lambda _: Answer(status, (("content-type", "a/b"),), b"mine")
        answer = await running.client.get("/")
        assert (answer.status_code, answer.text) == (status, "mine")
        assert answer.headers["content-type"] == "a/b"


async def test_a_status_without_words_of_its_own_is_json_too() -> None:
    async with gateway(Api((Fault(status=418),))) as running:
        answer = await running.client.get("/")
        assert told(answer) == (418, "application/json", "Error")
        assert answer.json()["message"] == "fault filter abort"


async def test_a_refusal_may_match_by_prefix_and_add_headers() -> None:
    body = {"error": "No", "message": '100% "no" %REQ(:path)%'}
    refusal = Refusal("fault_", 403, body, True, (("x-why", "50%"),))
    async with gateway(Api((Fault(status=401),), local_reply=reply(refusal))) as running:
        answer = await running.client.get("/")
        assert (answer.status_code, answer.json()) == (403, body)
        assert answer.headers["x-why"] == "50%"


async def test_details_are_matched_as_a_whole_and_a_quote_in_them_is_no_expression() -> None:
    body = {"error": "No", "message": ""}
    others = tuple(
        Refusal(details, 403, body) for details in ("fault_filter", '" || true || "', "\\")
    )
    async with gateway(Api((Fault(status=503),), local_reply=reply(*others))) as running:
        assert told(await running.client.get("/"))[0] == 503


async def test_what_a_policy_has_worded_stays_as_it_is() -> None:
    worded = Worded(status=404, body="mine", details=f"{WORDED_PREFIX}guardrail")
    async with gateway(Api((worded,))) as running:
        answer = await running.client.get("/")
        assert (answer.status_code, answer.text) == (404, "mine")
    unworded = Worded(status=404, body="mine", details="something else")
    async with gateway(Api((unworded,))) as running:
        assert told(await running.client.get("/")) == (404, "application/json", "Not Found")


def reply(*refusals: Refusal) -> Document:
    return local_reply_config(refusals)


class Fault(Policy):
    """Envoy refuses, with details `fault_filter_abort`."""

    name: ClassVar[str] = "fault"
    version: ClassVar[Version] = Version(1, 0, 0)
    example: ClassVar[Document] = {}

    status: int

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        abort = {"http_status": self.status, "percentage": {"numerator": 100}}
        config = typed("envoy.extensions.filters.http.fault.v3.HTTPFault", {"abort": abort})
        return (HttpFilter(scope.unique(self.name), config),)


class Worded(Policy):
    """Envoy answers by itself with any details."""

    name: ClassVar[str] = "worded"
    version: ClassVar[Version] = Version(1, 0, 0)
    example: ClassVar[Document] = {}

    status: int
    body: str
    details: str

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        answer = typed(
            "envoy.extensions.http.custom_response.local_response_policy.v3.LocalResponsePolicy",
            {
                "status_code": self.status,
                "body": {"inline_string": self.body},
                "response_code_details": self.details,
            },
        )
        config = typed(
            "envoy.extensions.filters.http.custom_response.v3.CustomResponse",
            {
                "custom_response_matcher": {
                    "on_no_match": {"action": {"name": "answer", "typed_config": answer}}
                }
            },
        )
        return (HttpFilter(scope.unique(self.name), config),)


@asynccontextmanager
async def served(api: Api, port: int) -> AsyncIterator[httpx.AsyncClient]:
    """`api` in front of whatever listens on `port`."""
    config = bootstrap([virtual_host(api)], port, local_reply=api.local_reply)
    async with envoy(config) as router:
        url = f"http://127.0.0.1:{await router.port('http')}"
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            yield client
