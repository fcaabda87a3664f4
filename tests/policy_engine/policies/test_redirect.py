from typing import Any

import pytest

from policy_engine.catalogue import load
from tests.policy_engine.attached import UNAUTHORIZED, credential, key_policy, limit, policy
from tests.policy_engine.gateway import Api, gateway
from tests.servers.http_backend import http_backend
from tests.xds.routing import api, router


def redirect(**params: Any) -> dict[str, Any]:
    return {"name": "redirect", "params": params}


async def locations(
    policies: list[dict[str, Any]], *asked: str, host: str = "old.example", at: str = "/*"
) -> list[str]:
    """Where an API at `/shop` with these policies on operation `at` sends its callers."""
    operation = {"method": "GET", "path": at, "policies": policies}
    spec = f"""
    context: /shop
    upstream: {{main: {{url: "http://127.0.0.1:9"}}}}
    operations: [{operation}]
    """
    found = []
    async with router(api(spec), catalogue=load(())) as running:
        for path in asked:
            answer = await running.get(path, host=host)
            assert answer.status_code == 302, path
            found.append(answer.headers["location"])
    return found


async def test_what_is_not_set_is_kept_from_the_request() -> None:
    assert await locations(
        [redirect(hostname="new.example")], "/shop/a?b=1&b=2", "/shop/a%20b"
    ) == [
        "http://new.example/shop/a?b=1&b=2",
        "http://new.example/shop/a%20b",
    ]
    assert await locations([redirect(port=8080)], "/shop/a?x") == [
        "http://old.example:8080/shop/a?x"
    ]


async def test_a_caller_that_stays_keeps_scheme_host_and_port() -> None:
    moved = redirect(path={"mode": "full", "value": "/moved"})
    asked = ("/shop/a/b?x=1", "/shop/a")
    assert await locations([moved], *asked, host="old.example:81") == ["/moved?x=1", "/moved"]


@pytest.mark.parametrize("host", ["old.example:80", "old.example", "old.example:8080"])
async def test_a_change_of_scheme_comes_with_the_new_default_port(host: str) -> None:
    expected = ["https://old.example/shop/a"]
    assert await locations([redirect(scheme="https")], "/shop/a", host=host) == expected


async def test_the_schemes_own_callers_keep_their_port() -> None:
    moved = redirect(scheme="http", path={"mode": "full", "value": "/moved"})
    conditional = {**moved, "executionCondition": 'request.Path != "/x"'}
    for policy_ in (moved, conditional):
        assert await locations([policy_], "/shop/a?x=1", host="old.example:81") == ["/moved?x=1"]


async def test_a_new_host_comes_without_the_old_port() -> None:
    assert await locations([redirect(hostname="n.example")], "/shop/a", host="old.example:81") == [
        "http://n.example/shop/a"
    ]


async def test_a_prefix_is_what_the_policy_stands_for() -> None:
    to = redirect(path={"mode": "prefix", "value": "/v2"})
    assert await locations([to], "/shop/it/a/b?x=1", "/shop/it", "/shop/it/", at="/it/*") == [
        "/v2/a/b?x=1",
        "/v2",
        "/v2/",
    ]
    assert await locations([to], "/shop/7/parts/x", at="/{id}/parts/*") == ["/v2/x"]
    assert await locations([to], "/shop/exact", at="/exact") == ["/v2"]
    root = redirect(path={"mode": "prefix", "value": "/"})
    assert await locations([root], "/shop/it", "/shop/it/", "/shop/it/a", at="/it/*") == [
        "/",
        "/",
        "/a",
    ]


async def test_the_prefix_of_an_api_is_its_context() -> None:
    to = redirect(hostname="n.example", path={"mode": "prefix", "value": "/a-b"})
    spec = f"""
    context: /shop
    upstream: {{main: {{url: "http://127.0.0.1:9"}}}}
    policies: [{to}]
    operations: [{{method: GET, path: /items/*}}, {{method: GET, path: "/{{id}}"}}]
    """
    async with router(api(spec), catalogue=load(())) as running:
        for path, expected in (("/shop/items/1", "/a-b/items/1"), ("/shop/7", "/a-b/7")):
            answer = await running.get(path)
            assert answer.headers["location"] == f"http://n.example{expected}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_the_status_is_as_written_and_no_upstream_is_asked(status: int) -> None:
    to = policy("redirect", statusCode=status, scheme="https")
    async with gateway(Api((), {"/": (to,)})) as running:
        answer = await running.client.get("/x")
        assert (answer.status_code, answer.content) == (status, b"")
        assert not running.backend.requests


async def test_what_stands_before_guards_the_redirect_and_what_stands_behind_does_not_run() -> None:
    to = policy("redirect", scheme="https")
    marked = policy("set-headers", response={"headers": [{"name": "X-A", "value": "1"}]})
    api_ = Api((key_policy(), marked), {"/": (to, limit(1))}, (credential("k"),))
    async with gateway(api_) as running:
        refused = await running.client.get("/")
        assert (refused.status_code, refused.json()) == (401, UNAUTHORIZED)
        for _ in range(3):
            answer = await running.client.get("/", headers={"API-Key": "k"})
            assert (answer.status_code, answer.headers["x-a"]) == (302, "1")


async def test_a_redirect_of_the_api_stands_for_all_its_operations() -> None:
    to = policy("redirect", hostname="n.example")
    async with gateway(Api((to,), {"/": (key_policy(),), "/x": (limit(1),)})) as running:
        for path in ("/", "/x", "/x"):
            assert (await running.client.get(path)).status_code == 302


async def test_operations_beside_a_redirect_are_served() -> None:
    to_new = redirect(path={"mode": "full", "value": "/shop/new"})
    async with http_backend() as backend:
        spec = f"""
        context: /shop
        upstream: {{main: {{url: "{backend.url}/base"}}}}
        operations:
          - {{method: GET, path: /old, policies: [{to_new}]}}
          - {{method: GET, path: /new}}
        """
        async with router(api(spec), catalogue=load(())) as running:
            answer = await running.get("/shop/old?x=1", follow_redirects=False)
            assert answer.headers["location"].endswith("/shop/new?x=1")
            assert await running.upstream_path("/shop/new?x=1") == "/base/new?x=1"
