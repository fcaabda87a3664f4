import pytest

from policy_engine.catalogue import load
from tests.servers.http_backend import http_backend
from tests.xds.routing import Router, api, router

ABOVE = "policies: [{name: host-rewrite, params: {host: api.internal}}]"
BELOW = "policies: [{name: host-rewrite, params: {host: 'op.internal:8443'}}]"


async def host_seen(running: Router, path: str, host: str = "shop.example") -> str:
    answer = await running.get(path, host=host)
    assert answer.status_code == 200
    return next(value for name, value in answer.json()["headers"] if name == "host")


def spec(url: str, rewrite: str) -> str:
    return f"""
    context: /shop
    upstream: {{main: {{url: "{url}", hostRewrite: {rewrite}}}}}
    {ABOVE}
    operations:
      - {{method: GET, path: /plain}}
      - {{method: GET, path: /own, {BELOW}}}
    """


async def test_the_operations_host_goes_before_the_apis() -> None:
    async with http_backend() as backend:
        manual = api(spec(backend.url, "manual"))
        async with router(manual, catalogue=load(())) as running:
            assert await host_seen(running, "/shop/plain") == "api.internal"
            assert await host_seen(running, "/shop/own") == "op.internal:8443"


async def test_an_upstream_with_auto_sees_its_own_host() -> None:
    async with http_backend() as backend:
        auto = api(spec(backend.url, "auto"))
        async with router(auto, catalogue=load(())) as running:
            for path in ("/shop/plain", "/shop/own"):
                assert await host_seen(running, path) == f"127.0.0.1:{backend.port}"


@pytest.mark.parametrize("order", ["ab", "ba"])
async def test_of_one_level_the_last_decides_and_the_callers_host_is_forwarded(order: str) -> None:
    refs = ", ".join(f"{{name: host-rewrite, params: {{host: {one}.internal}}}}" for one in order)
    async with http_backend() as backend:
        two = api(f"""
        context: /shop
        upstream: {{main: {{url: "{backend.url}", hostRewrite: manual}}}}
        policies: [{refs}]
        operations: [{{method: GET, path: /x}}]
        """)
        async with router(two, catalogue=load(())) as running:
            assert await host_seen(running, "/shop/x") == f"{order[1]}.internal"
            assert backend.last.header("x-forwarded-host") == "shop.example"


async def test_each_upstream_of_an_api_is_asked_in_its_own_way() -> None:
    async with http_backend() as backend:
        both = api(f"""
        context: /shop
        vhosts: {{main: main.example, sandbox: sandbox.example}}
        upstream:
          main: {{url: "{backend.url}"}}
          sandbox: {{url: "{backend.url}", hostRewrite: manual}}
        {ABOVE}
        operations: [{{method: GET, path: /x}}]
        """)
        async with router(both, catalogue=load(())) as running:
            assert await host_seen(running, "/shop/x", "main.example") == (
                f"127.0.0.1:{backend.port}"
            )
            assert await host_seen(running, "/shop/x", "sandbox.example") == "api.internal"
