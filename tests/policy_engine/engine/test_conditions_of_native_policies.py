"""Conditions that Envoy cannot decide, of policies that run in Envoy: the engine looks for it."""

import json

from tests.policy_engine.attached import basic
from tests.policy_engine.python_gateway import python_gateway, ref
from tests.servers.http_backend import Answer

SEEN = {"headers": [{"name": "X-Seen", "value": "yes"}]}
BIG = 'has(request.Body.size) && request.Body.size == "big"'


async def test_a_condition_on_the_body_decides_about_a_native_policy() -> None:
    marked = ref("set-headers", request=SEEN, response=SEEN, executionCondition=BIG)
    async with python_gateway(policies=[marked]) as gw:
        big = await gw.client.post("/", json={"size": "big"})
        assert (big.status_code, big.headers["x-seen"]) == (200, "yes")
        assert gw.backend.last.header("x-seen") == "yes"
        assert json.loads(gw.backend.last.body) == {"size": "big"}
        for body in ({"json": {"size": "small"}}, {"content": b"no json"}, {}):
            other = await gw.client.post("/", **body)
            assert other.status_code == 200
            assert "x-seen" not in other.headers
            assert gw.backend.last.header("x-seen") is None


async def test_macros_are_for_the_engine() -> None:
    some = (
        "request.Headers['x-a'].exists(one, one.startsWith('b')) && request.Method + '!' == 'GET!'"
    )
    async with python_gateway(
        policies=[ref("respond", statusCode=418, executionCondition=some)]
    ) as gw:
        several = [("X-A", "a"), ("X-A", "bc")]
        assert (await gw.client.get("/", headers=several)).status_code == 418
        assert (await gw.client.get("/", headers={"X-A": "a"})).status_code == 200
        assert (await gw.client.post("/", headers=several)).status_code == 200


async def test_a_guard_runs_unless_the_engine_says_that_it_need_not() -> None:
    guard = ref(
        "basic-auth",
        username="a",
        password="p",
        executionCondition='request.Body.kind == "secret"',
    )
    async with python_gateway(policies=[guard]) as gw:
        assert (await gw.client.post("/", json={"kind": "open"})).status_code == 200
        assert (await gw.client.post("/", json={"kind": "secret"})).status_code == 401
        # no such key: undecided
        assert (await gw.client.post("/", json={"other": 1})).status_code == 401
        twice = b'{"kind": "open", "kind": "secret"}'  # who reads it says which one counts
        assert (await gw.client.post("/", content=twice)).status_code == 401
        known = {"Authorization": basic("a", "p")}
        good = await gw.client.post("/", json={"kind": "secret"}, headers=known)
        assert good.status_code == 200


async def test_a_condition_on_the_answers_body_waits_for_it() -> None:
    late = ref(
        "set-headers", request=SEEN, response=SEEN, executionCondition="response.ResponseBody.ok"
    )
    async with python_gateway(policies=[late]) as gw:
        for ok in (True, False):
            gw.backend.answer = lambda _, ok=ok: Answer(body=json.dumps({"ok": ok}).encode())
            answer = await gw.client.get("/")
            assert answer.json() == {"ok": ok}
            assert ("x-seen" in answer.headers) is ok
            assert gw.backend.last.header("x-seen") is None


async def test_neighbours_in_python_with_one_condition_are_not_called_without_it() -> None:
    condition = 'request.Headers["x-a"][0] == "b"'
    policies = [
        ref("word-count-guardrail", request={"min": 1, "max": 1}, executionCondition=condition),
        ref("content-length-guardrail", request={"min": 1, "max": 4}, executionCondition=condition),
    ]
    async with python_gateway(policies=policies) as gw:
        for headers, expected in (({"X-A": "c"}, 200), ({"X-A": "b"}, 422)):
            body = {"messages": [{"content": "three words here"}]}
            answer = await gw.client.post("/", json=body, headers=headers)
            assert answer.status_code == expected
            calls = await gw.envoy.stats("cluster.policy-engine.upstream_rq_total")
            assert sum(calls.values()) == (0 if expected == 200 else 1)
