"""Conditions that decide where requests go, in a real Envoy with compiled APIs."""

import asyncio

import pytest

from policy_engine.catalogue import load
from policy_engine.chain import WAYS_MAX
from tests.servers.http_backend import Answer, HttpBackend, Received, http_backend
from tests.xds.routing import api, router
from xds.compile.api import compile_api
from xds.errors import NotCompiled
from xds.settings import XdsSettings

BETA = """executionCondition: '"x-beta" in request.Headers'"""
GOLD = """executionCondition: 'request.Headers["x-plan"][0] == "gold"'"""


def definition(name: str, backend: HttpBackend, base_path: str = "") -> str:
    base = f", basePath: {base_path}" if base_path else ""
    return f"{{name: {name}, upstreams: [{{url: '{backend.url}'}}]{base}}}"


async def arrived(backend: HttpBackend, count: int) -> None:
    async with asyncio.timeout(20):
        while len(backend.requests) < count:
            await asyncio.sleep(0.01)


def to(name: str, condition: str = BETA) -> str:
    return f"{{name: dynamic-endpoint, params: {{targetUpstream: {name}}}, {condition}}}"


async def test_a_condition_sends_requests_elsewhere_whatever_the_shape_of_their_path() -> None:
    async with http_backend() as first, http_backend() as second:
        shop = api(f"""
        context: /shop
        upstreamDefinitions: [{definition("two", second, "/v2")}]
        upstream: {{main: {{url: "{first.url}/base"}}}}
        policies: [{to("two")}]
        operations:
          - {{method: GET, path: /exact}}
          - {{method: GET, path: "/items/{{id}}"}}
          - {{method: GET, path: /rest/*}}
          - {{method: POST, path: /exact}}
        """)
        async with router(shop, catalogue=load(())) as running:
            for path in ("/exact?x=1", "/exact/", "/items/7", "/rest/a/b", "/rest"):
                assert await running.upstream_path(f"/shop{path}") == f"/base{path}"
                beta = {"X-Beta": ""}
                assert await running.upstream_path(f"/shop{path}", headers=beta) == f"/v2{path}"
                assert second.last.header("host") == f"127.0.0.1:{second.port}"
            beta = {"X-Beta": ""}
            assert await running.upstream_path("/shop/exact", method="POST", headers=beta)
            assert (second.last.method, second.last.path) == ("POST", "/v2/exact")
            assert await running.upstream_path("/shop/none", headers=beta) == 404


@pytest.mark.parametrize("threshold", [2, 100])
async def test_the_operation_that_was_matched_first_stays_though_the_path_is_rewritten(
    threshold: int,
) -> None:
    rewrite = (
        "{name: request-rewrite, params: {pathRewrite: "
        "{type: ReplaceFullPath, replaceFullPath: /b}, methodRewrite: POST}}"
    )
    async with http_backend() as first, http_backend() as second:
        shop = api(f"""
        context: /shop
        upstreamDefinitions: [{definition("two", second, "/v2")}]
        upstream: {{main: {{url: "{first.url}"}}}}
        operations:
          - {{method: GET, path: /a, policies: [{rewrite}, {to("two")}]}}
          - {{method: POST, path: /b, policies: [{{name: respond, params: {{statusCode: 418}}}}]}}
          - {{method: GET, path: /c}}
        """)
        settings = {"matcher_tree_threshold": threshold}
        async with router(shop, catalogue=load(()), settings=settings) as running:
            assert await running.upstream_path("/shop/a") == "/b"
            assert await running.upstream_path("/shop/a", headers={"X-Beta": ""}) == "/v2/b"
            assert second.last.method == "POST"
            assert await running.upstream_path("/shop/c", headers={"X-Beta": ""}) == "/c"


async def test_a_rewrite_may_have_a_condition() -> None:
    rewrite = (
        "{name: request-rewrite, params: {pathRewrite: {type: ReplacePrefixMatch, "
        f"replacePrefixMatch: /new}}}}, {BETA}}}"
    )
    async with http_backend() as backend:
        shop = api(f"""
        context: /shop
        upstream: {{main: {{url: "{backend.url}/base"}}}}
        operations: [{{method: GET, path: /old/*, policies: [{rewrite}]}}]
        """)
        async with router(shop, catalogue=load(())) as running:
            assert await running.upstream_path("/shop/old/x?y=1") == "/base/old/x?y=1"
            moved = await running.upstream_path("/shop/old/x?y=1", headers={"X-Beta": ""})
            assert moved == "/base/new/x?y=1"


async def test_of_several_conditions_that_hold_the_later_policy_decides() -> None:
    async with http_backend() as one, http_backend() as two, http_backend() as three:
        shop = api(f"""
        context: /shop
        upstreamDefinitions: [{definition("two", two)}, {definition("three", three)}]
        upstream: {{main: {{url: "{one.url}"}}}}
        policies: [{to("two", GOLD)}]
        operations:
          - {{method: GET, path: /a, policies: [{to("three")}]}}
          - {{method: GET, path: /b}}
        """)
        asked = [
            ("/a", {}, one),
            ("/a", {"X-Plan": "gold"}, two),
            ("/a", {"X-Beta": ""}, three),
            ("/a", {"X-Plan": "gold", "X-Beta": ""}, three),
            ("/b", {"X-Plan": "gold", "X-Beta": ""}, two),
        ]
        async with router(shop, catalogue=load(())) as running:
            for path, headers, expected in asked:
                before = len(expected.requests)
                assert await running.upstream_path(f"/shop{path}", headers=headers) == path
                assert len(expected.requests) == before + 1


async def test_filters_behind_still_run_and_guards_before_still_guard() -> None:
    async with http_backend() as one, http_backend() as two:
        shop = api(f"""
        context: /shop
        upstreamDefinitions: [{definition("two", two)}]
        upstream: {{main: {{url: "{one.url}"}}}}
        policies:
          - {{name: ip-filter, params: {{deny: [127.0.0.1]}},
             executionCondition: '"x-bad" in request.Headers'}}
          - {to("two")}
          - {{name: set-headers, params: {{request: {{headers: [{{name: X-A, value: "1"}}]}}}},
             {GOLD}}}
        operations:
          - {{method: GET, path: /a, policies: [{{name: set-headers,
             params: {{response: {{headers: [{{name: X-B, value: "2"}}]}}}}}}]}}
        """)
        async with router(shop, catalogue=load(())) as running:
            both = {"X-Beta": "", "X-Plan": "gold"}
            answer = await running.get("/shop/a", headers=both)
            assert (answer.status_code, answer.headers["x-b"]) == (200, "2")
            assert two.last.header("x-a") == "1"
            refused = await running.get("/shop/a", headers=both | {"X-Bad": ""})
            assert (refused.status_code, len(two.requests)) == (403, 1)


async def test_hosts_splits_mirrors_and_retries_may_have_a_condition() -> None:
    failing = 0

    def shaky(request: Received) -> Answer:
        nonlocal failing
        failing += 1
        return Answer(503 if failing % 2 else 200, body=b"{}")

    async with http_backend(shaky) as one, http_backend() as two, http_backend() as three:
        shop = api(f"""
        context: /shop
        upstreamDefinitions: [{definition("two", two)}, {definition("three", three)}]
        upstream: {{main: {{url: "{one.url}", hostRewrite: manual}}}}
        operations:
          - {{method: GET, path: /host, policies: [
              {{name: host-rewrite, params: {{host: own.example}}, {BETA}}}]}}
          - {{method: GET, path: /split, policies: [{{name: traffic-split, params: {{targets: [
              {{upstream: two, weight: 1}}, {{upstream: three, weight: 1}}]}}, {BETA}}}]}}
          - {{method: GET, path: /mirror, policies: [
              {{name: mirror, params: {{targetUpstream: two}}, {BETA}}}]}}
          - {{method: GET, path: /retry, policies: [
              {{name: retry, params: {{attempts: 1, retryOn: [5xx]}}, {BETA}}}]}}
        """)
        beta = {"X-Beta": ""}
        async with router(shop, catalogue=load(())) as running:
            await running.get("/shop/host")
            assert one.last.header("host") == "any.example"
            await running.get("/shop/host", headers=beta)
            assert one.last.header("host") == "own.example"
            for _ in range(40):
                await running.get("/shop/split", headers=beta)
            assert len(two.requests) + len(three.requests) == 40
            assert two.requests
            assert three.requests
            failing = 0
            assert (await running.get("/shop/retry")).status_code == 503
            failing = 0
            assert (await running.get("/shop/retry", headers=beta)).status_code == 200
            before = len(two.requests)
            await running.get("/shop/mirror")
            await running.get("/shop/mirror", headers=beta)
            await arrived(two, before + 1)
            assert len(two.requests) == before + 1


async def test_a_caller_cannot_choose_the_route_by_a_header() -> None:
    async with http_backend() as one, http_backend() as two:
        shop = api(f"""
        context: /shop
        upstreamDefinitions: [{definition("two", two)}]
        upstream: {{main: {{url: "{one.url}"}}}}
        operations: [{{method: GET, path: /a, policies: [{to("two")}]}}]
        """)
        async with router(shop, catalogue=load(())) as running:
            forged = {"signalbox.route": "sample 0", "signalbox.way.operation.0": "1"}
            assert await running.upstream_path("/shop/a", headers=forged) == "/a"
            assert not two.requests


def test_too_many_conditions_on_routes_are_refused_with_the_limit() -> None:
    policies = ", ".join(
        f"{{name: host-rewrite, params: {{host: h{number}}},"
        f""" executionCondition: '"x-{number}" in request.Headers'}}"""
        for number in range(WAYS_MAX + 1)
    )
    shop = api(f"""
    context: /shop
    upstream: {{main: {{url: "http://a.example"}}}}
    operations: [{{method: GET, path: /a, policies: [{policies}]}}]
    """)
    with pytest.raises(NotCompiled, match=f"at most {WAYS_MAX} executionConditions"):
        compile_api(shop, 1, (), load(()), XdsSettings())


async def test_neighbours_with_one_condition_are_one_decision() -> None:
    same = ", ".join(
        f"{{name: host-rewrite, params: {{host: h{number}}}, {BETA}}}"
        for number in range(WAYS_MAX + 1)
    )
    async with http_backend() as backend:
        shop = api(f"""
        context: /shop
        upstream: {{main: {{url: "{backend.url}", hostRewrite: manual}}}}
        operations: [{{method: GET, path: /a, policies: [{same}]}}]
        """)
        async with router(shop, catalogue=load(())) as running:
            await running.get("/shop/a", headers={"X-Beta": ""})
            assert backend.last.header("host") == f"h{WAYS_MAX}"
