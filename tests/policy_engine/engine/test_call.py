"""One hop through a real Envoy: the engine in the process of the test."""

import asyncio
import gzip
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest

from bus.resources.rest_api import PolicyRef
from tests.policy_engine.engine.trial_policies import REFUSED, TRIALS
from tests.policy_engine.python_gateway import PythonGateway, python_gateway, ref
from tests.servers.http_backend import Answer, Received

TEXT = (("content-type", "text/plain"),)
EVENTS = (("content-type", "text/event-stream; charset=utf-8"),)
UNAVAILABLE = {
    "error": "Service Unavailable",
    "message": "A policy of the API cannot be evaluated. Please try again later.",
}
LIMIT = 100_000


def gateway(
    *policies: PolicyRef,
    operations: Mapping[str, Sequence[PolicyRef]] | None = None,
    upstream: Any = None,
    **settings: Any,
) -> AbstractAsyncContextManager[PythonGateway]:
    answered = {} if upstream is None else {"upstream": upstream}
    return python_gateway(policies, operations, classes=TRIALS, settings=settings, **answered)


def text(body: bytes, **more: Any) -> Any:
    return lambda _request: Answer(headers=TEXT, body=body, **more)


# -- headers -----------------------------------------------------------------------------------


async def test_policies_run_in_order_towards_the_upstream_and_backwards_on_the_way_back() -> None:
    policies = [ref("stamp", word=word) for word in ("first", "second")]
    operations = {"GET /*": [ref("later"), ref("stamp", word="third")]}
    async with gateway(*policies, operations=operations) as gw:
        answer = await gw.client.get("/any")
        assert answer.status_code == 200
        assert gw.backend.last.all("x-stamp") == ["first", "second", "third"]
        assert gw.backend.last.header("x-later") == "request"
        assert answer.headers.get_list("x-stamped") == ["third", "second", "first"]
        assert answer.headers["x-later"] == "response"


async def test_headers_are_set_appended_and_removed_on_both_sides() -> None:
    def answer(_request: Received) -> Answer:
        return Answer(headers=(*TEXT, ("set-cookie", "a=1"), ("x-secret", "s")), body=b"x")

    async with gateway(ref("edit"), upstream=answer) as gw:
        headers = [("x-set", "old"), ("x-more", "first"), ("x-gone", "1"), ("x-kept", "k")]
        answer_ = await gw.client.get("/any", headers=headers)
        seen = gw.backend.last
        assert seen.path == "/elsewhere?x=1"
        assert seen.all("x-set") == ["new"]
        assert seen.all("x-more") == ["first", "second"]
        assert seen.header("x-gone") is None
        assert seen.header("x-kept") == "k"
        assert seen.header("x-latin") == "caf\u00c3\u00a9"  # UTF-8, as the backend reads it
        assert answer_.status_code == 202
        assert answer_.headers.get_list("set-cookie") == ["a=1", "b=2", "c=3"]
        assert "x-secret" not in answer_.headers


async def test_private_and_other_headers_of_the_caller_survive_a_hop_untouched() -> None:
    async with gateway(ref("stamp", word="a")) as gw:
        raw = b"\xff\xfe caf\xe9"
        await gw.client.get("/any", headers=[(b"x-raw", raw), (b"x-two", b"1"), (b"x-two", b"2")])
        assert gw.backend.last.header("x-raw") == raw.decode("latin-1")
        assert gw.backend.last.all("x-two") == ["1", "2"]


# -- bodies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 1_000, 60_000, 90_000])
async def test_whole_bodies_are_replaced_both_ways(size: int) -> None:
    body = (b"0123456789" * (size // 10 + 1))[:size]
    async with gateway(ref("reverse"), upstream=text(body), engine_max_body_bytes=LIMIT) as gw:
        answer = await gw.client.post("/any", content=body)
        assert answer.status_code == 200
        assert gw.backend.last.body == body[::-1]
        assert answer.content == body[::-1]
        assert gw.backend.last.header("content-length") == str(size)
        assert answer.headers["content-length"] == str(size)
        assert answer.headers["x-length"] == answer.headers["x-request-length"] == str(size)


async def test_a_request_without_a_body_does_not_wait_for_one() -> None:
    async with gateway(ref("look")) as gw:
        answer = await gw.client.get("/any")
        assert answer.status_code == 200
        assert gw.backend.last.header("x-seen") == "0"
        assert answer.headers["x-seen"] == str(len(answer.content))


async def test_chunked_bodies_are_whole_for_a_policy() -> None:
    async def parts() -> Any:
        for _ in range(5):
            yield b"x" * 10_000
            await asyncio.sleep(0.01)

    def chunked(_request: Received) -> Answer:
        return Answer(headers=TEXT, chunks=(b"y" * 20_000,) * 3, pause_s=0.01)

    async with gateway(ref("look"), upstream=chunked) as gw:
        answer = await gw.client.post("/any", content=parts())
        assert gw.backend.last.header("x-seen") == "50000"
        assert gw.backend.last.body == b"x" * 50_000
        assert answer.headers["x-seen"] == "60000"
        assert answer.content == b"y" * 60_000


async def test_compressed_bodies_are_untouched() -> None:
    packed = gzip.compress(b"text " * 1000)

    def answer(_request: Received) -> Answer:
        return Answer(headers=(*TEXT, ("content-encoding", "gzip")), body=packed)

    async with gateway(ref("look"), upstream=answer) as gw:
        headers = {"content-encoding": "gzip"}
        got = await gw.client.post("/any", content=packed, headers=headers)
        assert gw.backend.last.body == packed
        assert got.headers["x-seen"] == str(len(packed))
        assert got.content == b"text " * 1000


async def test_bodies_are_added_where_there_was_none() -> None:
    async with gateway(ref("fill"), upstream=text(b"", status=200)) as gw:
        answer = await gw.client.get("/any")
        assert gw.backend.last.body == b"asked for"
        assert answer.content == b"given"
        assert (await gw.client.head("/any")).status_code == 200


@pytest.mark.parametrize("told", [True, False], ids=["content-length", "chunked"])
async def test_a_request_that_is_too_long_for_a_policy_is_refused(told: bool) -> None:
    async def parts() -> Any:
        for _ in range(40):
            yield b"x" * 10_000

    async with gateway(ref("look", failureMode="open"), engine_max_body_bytes=LIMIT) as gw:
        content = b"x" * (LIMIT + 1) if told else parts()
        answer = await gw.client.post("/any", content=content)
        assert answer.status_code == 413
        assert answer.json() == {
            "error": "Content Too Large",
            "message": "The request body is too large",
        }
        assert not gw.backend.requests
        assert (await gw.client.post("/any", content=b"x" * LIMIT)).status_code == 200


@pytest.mark.parametrize("told", [True, False], ids=["content-length", "chunked"])
@pytest.mark.parametrize("mode", ["open", "closed"])
async def test_an_answer_that_is_too_long_for_a_policy_passes_or_not(told: bool, mode: str) -> None:
    body = b"y" * 30_000 * 20

    def upstream(_request: Received) -> Answer:
        if told:
            return Answer(headers=TEXT, body=body)
        return Answer(headers=TEXT, chunks=(b"y" * 30_000,) * 20, pause_s=0.001)

    policy = ref("look", failureMode=mode)
    async with gateway(policy, upstream=upstream, engine_max_answer_bytes=LIMIT) as gw:
        answer = await gw.client.get("/any")
        if mode == "open":
            assert (answer.status_code, answer.content) == (200, body)
        else:
            assert answer.status_code == 502
            assert answer.json() == {
                "error": "Bad Gateway",
                "message": "The answer of the upstream is too long for a policy of the API",
            }


async def test_routes_beside_are_not_limited() -> None:
    operations = {"POST /limited": [ref("look")], "POST /free": [ref("stamp", word="a")]}
    async with gateway(operations=operations, engine_max_body_bytes=LIMIT) as gw:
        answer = await gw.client.post("/free", content=b"x" * 3_000_000)
        assert (answer.status_code, len(gw.backend.last.body)) == (200, 3_000_000)
        assert (await gw.client.post("/limited", content=b"x" * 300_000)).status_code == 413


# -- streams -----------------------------------------------------------------------------------


async def test_chunks_pass_as_they_come() -> None:
    came: list[bytes] = []

    def upstream(_request: Received) -> Answer:
        return Answer(headers=EVENTS, chunks=(b"data: a\n\n", b"data: b\n\n"), pause_s=0.5)

    async with gateway(ref("upper"), upstream=upstream) as gw:
        async with gw.client.stream("POST", "/any", content=b"abc" * 30_000) as answer:
            assert "content-length" not in answer.headers
            began = asyncio.get_running_loop().time()
            async for chunk in answer.aiter_bytes():
                came.append(chunk)
                if len(came) == 1:
                    assert asyncio.get_running_loop().time() - began < 0.4
        assert b"".join(came) == b"DATA: A\n\nDATA: B\n\n"
        assert gw.backend.last.body == b"ABC" * 30_000


async def test_chunks_may_be_held_back() -> None:
    def upstream(_request: Received) -> Answer:
        return Answer(headers=TEXT, chunks=(b"a", b"b", b"c"), pause_s=0.01)

    async with gateway(ref("hold"), ref("upper"), upstream=upstream) as gw:
        assert (await gw.client.get("/any")).content == b"<ABC>"
        gw.backend.answer = text(b"")
        assert (await gw.client.get("/any")).content == b"<>"


async def test_an_answer_amid_a_stream_takes_the_place_of_the_rest() -> None:
    def upstream(_request: Received) -> Answer:
        chunks = (b"data: a\n\n", b"data: STOP\n\n", b"data: never seen\n\n")
        return Answer(headers=EVENTS, chunks=chunks, pause_s=0.05)

    async with gateway(ref("upper"), upstream=upstream) as gw:
        answer = await gw.client.get("/any")
        assert answer.status_code == 200
        assert answer.content == b"DATA: A\n\ndata: stopped\n\n"


async def test_a_policy_with_both_hooks_gets_chunks_of_event_streams_and_long_messages() -> None:
    limits = {"engine_max_body_bytes": LIMIT, "engine_max_answer_bytes": LIMIT}
    async with gateway(ref("both"), upstream=text(b"short"), **limits) as gw:
        answer = await gw.client.post("/any", content=b"asked")
        assert gw.backend.last.body == b"whole:asked"
        assert answer.content == b"whole:short"

        gw.backend.answer = lambda _: Answer(headers=EVENTS, chunks=(b"a", b"b"), pause_s=0.05)
        answer = await gw.client.get("/any")
        assert gw.backend.last.body == b"whole:"
        assert answer.content == b"chunk:achunk:b"

        gw.backend.answer = text(b"z" * 300_000)
        answer = await gw.client.post("/any", content=b"x" * 300_000)
        assert set(gw.backend.last.body.split(b"chunk")) == {b""}
        assert answer.content.replace(b"chunk:", b"") == b"z" * 300_000


async def test_a_policy_of_chunks_gets_the_whole_beside_one_that_needs_it() -> None:
    async with gateway(ref("look"), ref("upper"), upstream=text(b"short")) as gw:
        answer = await gw.client.post("/any", content=b"asked")
        assert gw.backend.last.body == b"ASKED"
        assert answer.content == b"SHORT"
        assert answer.headers["content-length"] == "5"


# -- answers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "phase",
    [
        "request_headers",
        "request_body",
        "request_chunk",
        "response_headers",
        "response_body",
    ],
)
async def test_a_policy_answers_in_any_phase(phase: str) -> None:
    policies = ref("stamp", word="before"), ref("refuse", phase=phase), ref("stamp", word="after")
    async with gateway(*policies) as gw:
        answer = await gw.client.post("/any", content=b"abc")
        assert answer.status_code == 422
        assert answer.json() == REFUSED
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]
        assert len(gw.backend.requests) == (1 if phase.startswith("response") else 0)
        # the policy before it, and only that, sees the answer on its way back
        assert answer.headers.get_list("x-stamped") == (
            ["after", "before"] if phase == "response_body" else ["before"]
        )
        (entry,) = await gw.logged()
        assert (entry["status"], entry["details"]) == (422, "policy:refuse")


@pytest.mark.parametrize("name", ["reverse", "look"])
async def test_an_upgrade_is_refused_where_a_policy_waits_for_a_whole_body(name: str) -> None:
    asked = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version": "13",
    }
    async with gateway(ref(name)) as gw, asyncio.timeout(30):
        answer = await gw.client.get("/any", headers=asked)
        assert answer.status_code == 403
        assert answer.json()["error"] == "Forbidden"
        assert not gw.backend.requests


async def test_an_answer_to_a_chunk_of_the_response_takes_its_place() -> None:
    async with gateway(ref("refuse", phase="response_chunk")) as gw:
        answer = await gw.client.get("/any")
        assert (answer.status_code, answer.json()) == (200, REFUSED)


async def test_policies_of_earlier_hops_see_the_answer_of_later_ones() -> None:
    operations = {"GET /*": [ref("refuse", phase="request_headers")]}
    async with gateway(ref("stamp", word="api"), operations=operations) as gw:
        answer = await gw.client.get("/any")
        assert (answer.status_code, answer.headers["x-stamped"]) == (422, "api")


async def test_what_is_refused_before_a_hop_never_reaches_its_policies() -> None:
    operations = {"GET /*": [ref("stamp", word="a"), ref("look")]}
    key = ref("api-key-auth", key="API-Key", **{"in": "header"})
    async with gateway(key, operations=operations) as gw:
        answer = await gw.client.get("/any")
        assert answer.status_code == 401
        assert answer.json()["error"] == "Unauthorized"
        assert "x-stamped" not in answer.headers
        assert gw.runtime.figures.requests == 0


# -- metadata ----------------------------------------------------------------------------------


async def test_what_policies_publish_is_read_by_later_hops_and_by_the_access_log() -> None:
    async with gateway(ref("publish"), operations={"GET /*": [ref("read")]}) as gw:
        await gw.client.get("/any")
        assert gw.backend.last.header("x-who") == "Ann ['a', 'b']"
        (entry,) = await gw.logged()
        assert entry["metadata"]["who"] == {"name": "Ann", "age": 30, "roles": ["a", "b"]}
        assert entry["metadata"]["odd"] == "<class 'policy_engine.policy.Version'>"
        assert entry["metadata"]["status"] == 200


# -- hops --------------------------------------------------------------------------------------


async def test_a_hop_that_is_not_known_yet_is_waited_for() -> None:
    async with gateway(ref("stamp", word="a")) as gw:
        gw.runtime.hops.clear()
        asked = asyncio.ensure_future(gw.client.get("/any"))
        while not gw.runtime.figures.requests:
            await asyncio.sleep(0.01)
        gw.publish(gw.api)
        assert (await asked).headers["x-stamped"] == "a"


@pytest.mark.parametrize(("mode", "status"), [("open", 200), ("closed", 503)])
async def test_an_unknown_hop_fails_as_declared(mode: str, status: int) -> None:
    async with gateway(ref("stamp", word="a", failureMode=mode)) as gw:
        gw.runtime.hops.clear()
        gw.runtime.hop_wait_s = 0.05
        answer = await gw.client.get("/any")
        assert answer.status_code == status
        if status == 503:
            assert answer.json() == UNAVAILABLE
        assert gw.runtime.figures.lookup_failures == 1


# -- many at once ------------------------------------------------------------------------------


async def test_many_requests_at_once_are_not_mixed_up() -> None:
    policies = ref("later", timeout="60s"), ref("reverse"), ref("stamp", word="a")
    async with gateway(*policies) as gw:
        limits = httpx.Limits(max_connections=50)
        async with httpx.AsyncClient(base_url=gw.url, limits=limits, timeout=60) as client:

            async def one(number: int) -> None:
                body = f"number {number}".encode() * (number % 50)
                answer = await client.post(f"/{number}", content=body)
                told = answer.content[::-1]
                assert f'"path": "/{number}"'.encode() in told
                assert answer.headers["x-request-length"] == str(len(body))

            async with asyncio.TaskGroup() as group:
                for number in range(400):
                    group.create_task(one(number))
        counters = gw.engine.counters
        assert counters.connection_errors == counters.stream_errors == 0
        assert counters.handler_errors == 0
