import pytest

from policy_engine.catalogue import load
from tests.servers.http_backend import HttpBackend, http_backend
from tests.xds.routing import api, router
from xds.compile.api import compile_api
from xds.errors import NotCompiled
from xds.settings import XdsSettings


def definition(name: str, backend: HttpBackend, base_path: str = "") -> str:
    base = f", basePath: {base_path}" if base_path else ""
    return f"{{name: {name}, upstreams: [{{url: '{backend.url}'}}]{base}}}"


def to(name: str) -> str:
    return f"policies: [{{name: dynamic-endpoint, params: {{targetUpstream: {name}}}}}]"


async def test_requests_go_to_the_definition_below_its_base_path() -> None:
    async with http_backend() as first, http_backend() as second, http_backend() as third:
        shop = api(f"""
        context: /shop
        upstreamDefinitions: [{definition("two", second, "/v2")}, {definition("three", third)}]
        upstream: {{main: {{url: "{first.url}/base"}}}}
        operations:
          - {{method: GET, path: /plain}}
          - {{method: GET, path: /exact, {to("two")}}}
          - {{method: GET, path: "/items/{{id}}", {to("two")}}}
          - {{method: GET, path: /rest/*, {to("three")}}}
        """)
        async with router(shop, catalogue=load(())) as running:
            assert await running.upstream_path("/shop/plain?x=1") == "/base/plain?x=1"
            assert await running.upstream_path("/shop/exact?x=1") == "/v2/exact?x=1"
            assert await running.upstream_path("/shop/exact/") == "/v2/exact/"
            assert await running.upstream_path("/shop/items/7") == "/v2/items/7"
            assert await running.upstream_path("/shop/rest/a/b") == "/rest/a/b"
            assert [len(one.requests) for one in (first, second, third)] == [1, 3, 1]
            assert second.last.header("host") == f"127.0.0.1:{second.port}"


async def test_the_operations_upstream_goes_before_the_apis() -> None:
    async with http_backend() as first, http_backend() as second, http_backend() as third:
        shop = api(f"""
        context: /shop
        upstreamDefinitions: [{definition("two", second)}, {definition("three", third, "/3")}]
        upstream: {{main: {{url: "{first.url}"}}}}
        {to("two")}
        operations:
          - {{method: GET, path: /a}}
          - {{method: GET, path: /b, {to("three")}}}
        """)
        async with router(shop, catalogue=load(())) as running:
            assert await running.upstream_path("/shop/a") == "/a"
            assert await running.upstream_path("/shop/b") == "/3/b"
            assert [len(one.requests) for one in (first, second, third)] == [0, 1, 1]


@pytest.mark.parametrize("rewrite", ["auto", "manual"])
async def test_it_holds_on_sandbox_hosts_with_their_host_rewrite(rewrite: str) -> None:
    async with http_backend() as first, http_backend() as second:
        shop = api(f"""
        context: /shop
        vhosts: {{main: main.example, sandbox: sandbox.example}}
        upstreamDefinitions: [{definition("two", second, "/v2")}]
        upstream:
          main: {{url: "{first.url}"}}
          sandbox: {{url: "{first.url}/s", hostRewrite: {rewrite}}}
        {to("two")}
        operations: [{{method: GET, path: /a}}]
        """)
        async with router(shop, catalogue=load(())) as running:
            assert await running.upstream_path("/shop/a", host="sandbox.example") == "/v2/a"
            expected = f"127.0.0.1:{second.port}" if rewrite == "auto" else "sandbox.example"
            assert second.last.header("host") == expected
            assert await running.upstream_path("/shop/a", host="main.example") == "/v2/a"
            assert not first.requests


async def test_policies_before_it_guard_it_and_those_behind_still_run() -> None:
    async with http_backend() as first, http_backend() as second:
        shop = api(f"""
        context: /shop
        upstreamDefinitions: [{definition("two", second)}]
        upstream: {{main: {{url: "{first.url}"}}}}
        policies:
          - {{name: dynamic-endpoint, params: {{targetUpstream: two}}}}
          - {{name: basic-ratelimit, params: {{limits: [{{requests: 1, duration: 1h}}]}}}}
        operations: [{{method: GET, path: /a}}]
        """)
        async with router(shop, catalogue=load(())) as running:
            assert await running.upstream_path("/shop/a") == "/a"
            assert await running.upstream_path("/shop/a") == 429
            assert len(second.requests) == 1


def test_a_definition_that_is_not_there_is_refused_by_name() -> None:
    shop = api(f"""
    context: /shop
    upstream: {{main: {{url: "http://127.0.0.1:9"}}}}
    {to("nowhere")}
    operations: [{{method: GET, path: /a}}]
    """)
    with pytest.raises(NotCompiled, match="Referenced upstream definition 'nowhere' not found"):
        compile_api(shop, 1, (), load(()), XdsSettings())
