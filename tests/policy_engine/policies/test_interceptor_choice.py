"""Interceptor services that choose the upstream."""

from typing import Any

import pytest

from policy_engine.engine.hops import hops_of
from tests.policy_engine.interceptors import FAILED, Reply, intercepted, replying
from tests.policy_engine.python_gateway import python_gateway, ref
from tests.servers.http_backend import HttpBackend, http_backend


def definition(name: str, backend: HttpBackend, base_path: str = "") -> dict[str, Any]:
    more = {"basePath": base_path} if base_path else {}
    return {"name": name, "upstreams": [{"url": backend.url}], **more}


def sends_to(name: str, **more: Any) -> Reply:
    return {"dynamicEndpoint": {"endpointName": name}, **more}


@pytest.mark.parametrize("with_body", [False, True])
async def test_the_service_sends_requests_to_other_upstreams_of_the_api(with_body: bool) -> None:
    async with http_backend() as beta, http_backend() as gamma, http_backend() as service:
        wanted = intercepted(service, request={"includeRequestBody": with_body}, response={})
        definitions = [definition("beta", beta, "/v2"), definition("gamma", gamma)]
        async with python_gateway(
            [wanted],
            {
                f"{method} {path}": ()
                for method in ("GET", "POST")
                for path in ("/a", "/items/{id}")
            },
            context="/shop",
            upstreamDefinitions=definitions,
        ) as running:
            for path, reply, backend, expected in (
                ("/shop/a?q=1", sends_to("beta"), beta, "/v2/a?q=1"),
                ("/shop/items/7", sends_to("gamma"), gamma, "/items/7"),
                ("/shop/a", sends_to("beta", pathToRewrite="/b?c=d"), beta, "/v2/b?c=d"),
                ("/shop/a", sends_to(""), running.backend, "/a"),
                ("/shop/a", {}, running.backend, "/a"),
            ):
                service.answer = replying(reply)
                answer = await running.client.post(path, content="mine")
                assert answer.status_code == 200
                got = backend.last
                assert (got.path, got.body) == (expected, b"mine")
                assert got.header("host") == f"127.0.0.1:{backend.port}"
                assert not [name for name, _ in got.headers if name.startswith("x-signalbox")]
            assert [len(one.requests) for one in (running.backend, beta, gamma)] == [2, 2, 1]
            service.answer = replying(sends_to("gamma"))
            assert (await running.client.get("/shop/a")).status_code == 200
            assert gamma.last.method == "GET"


@pytest.mark.parametrize("failure_mode", ["open", "closed"])
async def test_an_upstream_that_the_api_does_not_have_is_answered_and_told(
    failure_mode: str,
) -> None:
    async with http_backend(replying(sends_to("nowhere"))) as service, http_backend() as beta:
        params = {"endpoint": f"{service.url}/v1", "request": {"passthroughOnError": True}}
        wanted = ref("interceptor-service", failureMode=failure_mode, **params)
        for definitions, known in (
            ([definition("beta", beta)], "it has beta"),
            ([], "it has none to choose from"),
        ):
            async with python_gateway([wanted], upstreamDefinitions=definitions) as running:
                answer = await running.client.post("/items", content="mine")
                assert answer.status_code == 502
                assert answer.headers["content-type"] == "application/json"
                assert answer.json() == {
                    "error": "Bad Gateway",
                    "message": "The request was meant for an upstream that the API does not have",
                }
                assert not running.backend.requests
                assert not beta.requests
                (failure,) = running.runtime.failures.taken()
                assert (failure.policy, failure.kind) == ("interceptor-service", "unknown-upstream")
                assert failure.mode == "closed"
                assert f"no upstream definition 'nowhere'; {known}" in failure.reason


async def test_where_router_and_engine_differ_nothing_passes() -> None:
    async with http_backend() as beta, http_backend(replying(sends_to("ghost"))) as service:
        wanted = intercepted(service, request={})
        async with python_gateway(
            [wanted], upstreamDefinitions=[definition("beta", beta)]
        ) as running:
            (hop,) = hops_of(running.api, running.runtime.catalogue)
            document = hop.document()
            document["place"]["upstreams"] = ["beta", "ghost"]
            running.runtime.forget([hop.name])
            running.runtime.learn({hop.name: document})
            answer = await running.client.get("/items")
            assert answer.status_code == 502
            assert "an upstream that the API does not have" in answer.json()["message"]
            assert not running.backend.requests
            assert not beta.requests


async def test_an_answer_cannot_be_sent_elsewhere() -> None:
    async with http_backend() as beta, http_backend(replying(None, sends_to("beta"))) as service:
        definitions = [definition("beta", beta)]
        async with python_gateway(
            [intercepted(service, response={})], upstreamDefinitions=definitions
        ) as running:
            assert (await running.client.get("/items")).json() == FAILED
            assert not beta.requests


async def test_who_runs_last_decides_where_requests_go() -> None:
    to = ref("dynamic-endpoint", targetUpstream="gamma")
    on_beta = ref(
        "dynamic-endpoint",
        targetUpstream="beta",
        executionCondition='"x-beta" in request.Headers',
    )
    async with (
        http_backend() as beta,
        http_backend() as gamma,
        http_backend(replying(sends_to("beta"))) as service,
    ):
        asked_for = intercepted(service, request={"includeRequestBody": False})
        async with python_gateway(
            [to, asked_for],
            {"GET /chosen": (), "GET /overruled": (to,), "GET /sometimes": (to, on_beta)},
            upstreamDefinitions=[definition("beta", beta, "/b"), definition("gamma", gamma, "/g")],
        ) as running:
            for path, headers, backend, expected in (
                ("/chosen", {}, beta, "/b/chosen"),
                ("/overruled", {}, gamma, "/g/overruled"),
                ("/sometimes", {}, gamma, "/g/sometimes"),
                ("/sometimes", {"x-beta": "1"}, beta, "/b/sometimes"),
            ):
                assert (await running.client.get(path, headers=headers)).status_code == 200
                assert backend.last.path == expected
            service.answer = replying()
            await running.client.get("/chosen")
            assert gamma.last.path == "/g/chosen"


async def test_in_shadow_mode_requests_go_their_own_way() -> None:
    async with http_backend() as beta, http_backend(replying(sends_to("beta"))) as service:
        wanted = ref("interceptor-service", mode="shadow", endpoint=f"{service.url}/v1", request={})
        async with python_gateway(
            [wanted], upstreamDefinitions=[definition("beta", beta)]
        ) as running:
            for _ in range(2):
                assert (await running.client.post("/items", content="x")).status_code == 200
                service.answer = replying(sends_to("nowhere"))
            assert len(running.backend.requests) == 2
            (failure,) = running.runtime.failures.taken()
            assert failure.mode == "shadow"


async def test_a_condition_of_the_service_holds_for_its_choice_too() -> None:
    async with http_backend() as beta, http_backend(replying(sends_to("beta"))) as service:
        wanted = ref(
            "interceptor-service",
            executionCondition='"x-ask" in request.Headers',
            endpoint=f"{service.url}/v1",
            request={},
        )
        async with python_gateway(
            [wanted], upstreamDefinitions=[definition("beta", beta)]
        ) as running:
            await running.client.get("/items")
            assert (len(running.backend.requests), len(beta.requests)) == (1, 0)
            await running.client.get("/items", headers={"x-ask": "1"})
            assert (len(running.backend.requests), len(beta.requests)) == (1, 1)
