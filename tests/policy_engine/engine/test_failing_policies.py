"""What becomes of requests whose policy fails, and of all others: through a real Envoy."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest

from bus.resources.rest_api import PolicyRef
from tests.policy_engine.engine.trial_policies import TRIALS
from tests.policy_engine.python_gateway import PythonGateway, python_gateway, ref
from tests.servers.http_backend import Answer, Received

UNAVAILABLE = {
    "error": "Service Unavailable",
    "message": "A policy of the API cannot be evaluated. Please try again later.",
}
WAYS = {
    "raise": "raised",
    "exit": "raised",
    "cancel": "raised",
    "number": "nonsense",
    "text": "nonsense",
    "status": "nonsense",
    "body": "nonsense",
    "header": "nonsense",
    "split": "nonsense",
    "memory": "memory",
    "recursion": "raised",
    "slow": "too-slow",
    "late": "too-slow",
    "never": "too-slow",
    "later": "raised",
    "gives up": "raised",
    "own timeout": "raised",
}
PHASES = ("request_headers", "request_body", "response_headers", "response_body")


def gateway(
    *policies: PolicyRef, operations: Mapping[str, Sequence[PolicyRef]] | None = None
) -> AbstractAsyncContextManager[PythonGateway]:
    return python_gateway(policies, operations, classes=TRIALS)


@pytest.mark.parametrize("how", WAYS)
async def test_a_failing_policy_refuses_or_passes_as_declared(how: str) -> None:
    operations = {
        f"POST /{mode}/{phase}": [
            ref("stamp", word="a"),
            ref("broken", how=how, phase=phase, failureMode=mode, timeout="50ms"),
            ref("stamp", word="b"),
        ]
        for mode in ("open", "closed")
        for phase in PHASES
    }
    async with gateway(operations=operations) as gw:
        for phase in PHASES:
            open_ = await gw.client.post(f"/open/{phase}", content=b"abc")
            assert open_.status_code == 200, phase
            assert gw.backend.last.body == b"abc"
            assert gw.backend.last.header("x-edited") is None  # its edits are dropped
            assert "x-edited" not in open_.headers
            assert gw.backend.last.all("x-stamp") == ["a", "b"]
            assert open_.headers.get_list("x-stamped") == ["b", "a"]

            closed = await gw.client.post(f"/closed/{phase}", content=b"abc")
            assert (closed.status_code, closed.json()) == (503, UNAVAILABLE), phase
        (told,) = {one.kind for one in gw.runtime.failures.taken()}
        assert told == WAYS[how]
        kinds = [one.errors for one in gw.runtime.figures.policies.values() if one.errors]
        assert kinds == [{WAYS[how]: 2}] * len(PHASES)
        entries = await gw.logged(len(PHASES) * 2)
        details = [one["details"] for one in entries if one["status"] == 503]
        assert details == ["policy:broken"] * len(PHASES)


async def test_bytes_are_nonsense_only_where_there_is_no_body() -> None:
    operations = {
        f"POST /{phase}": [ref("broken", how="bytes", phase=phase)]
        for phase in ("request_headers", "request_body")
    }
    async with gateway(operations=operations) as gw:
        assert (await gw.client.post("/request_headers")).status_code == 503
        assert (await gw.client.post("/request_body", content=b"a")).status_code == 200
        assert gw.backend.last.body == b"bytes"


async def test_an_authenticating_policy_is_always_closed() -> None:
    async with gateway(ref("guarded", how="raise", failureMode="open")) as gw:
        answer = await gw.client.get("/any")
        assert (answer.status_code, answer.json()) == (503, UNAVAILABLE)


async def test_a_failure_amid_a_streamed_answer_is_no_whole_answer() -> None:
    def upstream(_request: Received) -> Answer:
        return Answer(headers=(("content-type", "text/plain"),), chunks=(b"a", b"b"), pause_s=0.1)

    policy = ref("broken", how="raise", phase="response_chunk")
    async with python_gateway([policy], classes=TRIALS, upstream=upstream) as gw:
        with pytest.raises(httpx.RemoteProtocolError):
            await gw.client.get("/any")


async def test_others_do_not_notice() -> None:
    operations = {
        "GET /broken": [ref("broken", how="late", timeout="400ms")],
        "GET /fine": [ref("stamp", word="a")],
        "GET /native": [],
    }
    async with gateway(operations=operations) as gw:
        waiting = [asyncio.ensure_future(gw.client.get("/broken")) for _ in range(20)]
        while gw.runtime.figures.requests < 20:
            await asyncio.sleep(0.01)
        for path in ("/fine", "/native") * 20:
            assert (await gw.client.get(path)).status_code == 200
        assert {(await one).status_code for one in waiting} == {503}


# -- shadow mode -------------------------------------------------------------------------------


async def test_a_policy_in_shadow_mode_only_tells() -> None:
    policies = [
        ref("refuse", phase=phase, mode="shadow")
        for phase in ("request_headers", "request_body", "response_headers", "response_body")
    ]
    async with gateway(*policies, ref("edit", mode="shadow"), ref("reverse", mode="shadow")) as gw:
        answer = await gw.client.post("/any", content=b"abc")
        assert answer.status_code == 200
        assert (gw.backend.last.path, gw.backend.last.body) == ("/any", b"abc")
        assert gw.backend.last.header("x-set") is None
        assert "set-cookie" not in answer.headers
        assert answer.json()["body"] == "abc"
        (entry,) = await gw.logged()
        assert entry["shadow"] == {"refuse": "as told"}
        told = {key: one.would_have for key, one in gw.runtime.figures.policies.items()}
        assert sum(told.values()) == 4
        assert all(count == 1 for (name, _), count in told.items() if name == "refuse")


async def test_a_policy_that_fails_in_shadow_mode_harms_nobody() -> None:
    async with gateway(ref("broken", how="raise", mode="shadow")) as gw:
        answer = await gw.client.get("/any")
        assert answer.status_code == 200
        assert gw.backend.last.header("x-edited") is None
        (failure,) = gw.runtime.failures.taken()
        assert (failure.mode, failure.kind, failure.count) == ("shadow", "raised", 1)


# -- conditions --------------------------------------------------------------------------------


CONDITIONS: dict[str, tuple[dict[str, Any], bool, bool]] = {
    "true": ({}, True, True),
    "request.Method == 'POST'": ({}, True, True),
    "request.Path.startsWith('/other')": ({}, False, False),
    "'x-plan' in request.Headers && request.Headers['x-plan'][0] == 'gold'": (
        {"headers": {"X-Plan": "gold"}},
        True,
        True,
    ),
    "'x-plan' in request.Headers": ({}, False, False),
    "processing.phase == 'request'": ({}, True, False),
    "response.ResponseStatus == 200": ({}, False, True),
    "has(request.Body.model) && request.Body.model == 'big'": (
        {"content": b'{"model": "big"}'},
        True,
        True,
    ),
    "has(response.RequestBody.model)": ({"content": b"no json"}, False, False),
    "has(response.ResponseBody.body)": ({"content": b"abc"}, False, True),
    "processing.phase == 'response' && 'text/x' in response.ResponseHeaders['content-type']": (
        {},
        False,
        False,
    ),
}


@pytest.mark.parametrize("text", CONDITIONS)
async def test_conditions_decide_in_each_phase(text: str) -> None:
    asked, on_request, on_response = CONDITIONS[text]
    async with gateway(ref("stamp", word="a", executionCondition=text)) as gw:
        answer = await gw.client.post("/any", **asked)
        assert answer.status_code == 200
        assert gw.backend.last.all("x-stamp") == (["a"] if on_request else [])
        assert answer.headers.get_list("x-stamped") == (["a"] if on_response else [])
        assert gw.backend.last.body == asked.get("content", b"")


UNDECIDABLE = "request.Headers['x-plan'][0] == 'gold' && request.Body == {}"


async def test_where_a_condition_has_no_truth_a_policy_that_guards_runs() -> None:
    async with gateway(ref("stamp", word="a", executionCondition=UNDECIDABLE)) as gw:
        assert (await gw.client.get("/any")).status_code == 200
        assert gw.backend.last.all("x-stamp") == ["a"]
        told = [(one.kind, one.mode) for one in gw.runtime.failures.taken()]
        assert set(told) == {("condition", "runs")}


async def test_where_a_condition_has_no_truth_a_policy_that_changes_does_not_run() -> None:
    async with gateway(ref("edit", executionCondition=UNDECIDABLE)) as gw:
        assert (await gw.client.get("/any")).status_code == 200
        assert gw.backend.last.path == "/any"
        told = [(one.kind, one.mode) for one in gw.runtime.failures.taken()]
        assert set(told) == {("condition", "skipped")}


async def test_the_engine_decides_for_policies_in_envoy_what_envoy_cannot() -> None:
    edits = {"headers": [{"name": "x-big", "value": "yes"}]}
    policy = ref("set-headers", request=edits, executionCondition="request.Body.model == 'big'")
    async with gateway(policy) as gw:
        for body, seen in (
            (b'{"model": "big"}', ["yes"]),
            (b'{"model": "small"}', []),
            (b"no", []),
        ):
            assert (await gw.client.post("/any", content=body)).status_code == 200
            assert gw.backend.last.all("x-big") == seen
            assert gw.backend.last.body == body


async def test_while_no_engine_answers_policies_in_shadow_mode_stop_nobody() -> None:
    operations = {
        "GET /shadow": [
            ref("stamp", word="a", mode="shadow"),
            ref("later", mode="shadow", failureMode="open"),
        ],
        "GET /enforced": [ref("stamp", word="a", mode="shadow"), ref("stamp", word="b")],
    }
    async with python_gateway((), operations, classes=TRIALS) as gw:
        gw.runtime.hop_wait_s = 0.01
        gw.runtime.hops.clear()  # every call fails from now on
        gw.runtime.programs.clear()
        assert (await gw.client.get("/shadow")).status_code == 200
        assert (await gw.client.get("/enforced")).status_code == 503
