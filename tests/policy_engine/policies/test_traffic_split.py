import json
from typing import Any

import pytest

from policy_engine.catalogue import load
from tests.servers.http_backend import HttpBackend, http_backend
from tests.xds.routing import api, router
from xds.compile.api import compile_api
from xds.errors import NotCompiled
from xds.settings import XdsSettings


def shop(one: str, two: str, params: dict[str, Any], base: str = "") -> Any:
    policies = json.dumps([{"name": "traffic-split", "params": params}])
    path = f", basePath: {base}" if base else ""
    return api(f"""
    context: /shop
    upstreamDefinitions:
      - {{name: one, upstreams: [{{url: "{one}"}}], basePath: /base}}
      - {{name: two, upstreams: [{{url: "{two}"}}]{path}}}
    upstream: {{main: {{url: "http://127.0.0.1:9"}}}}
    policies: {policies}
    operations: [{{method: GET, path: /items/*}}]
    """)


def weights(one: int, two: int) -> list[dict[str, Any]]:
    return [{"upstream": "one", "weight": one}, {"upstream": "two", "weight": two}]


async def counts(
    params: dict[str, Any], requests: int, headers: list[dict[str, str]]
) -> tuple[HttpBackend, HttpBackend]:
    async with http_backend() as one, http_backend() as two:
        split = shop(one.url, two.url, params, "/base")
        async with router(split, catalogue=load(())) as running:
            for number in range(requests):
                path = await running.upstream_path(
                    "/shop/items/7", headers=headers[number % len(headers)]
                )
                assert path == "/base/items/7"
        return one, two


async def test_requests_are_split_by_weight_and_each_upstream_sees_its_own_host() -> None:
    one, two = await counts({"targets": weights(75, 25)}, 400, [{}])
    assert len(one.requests) + len(two.requests) == 400
    assert 50 <= len(two.requests) <= 150  # five standard deviations
    for backend in (one, two):
        assert backend.last.header("host") == f"127.0.0.1:{backend.port}"


async def test_a_weight_of_nothing_gets_nothing() -> None:
    one, two = await counts({"targets": weights(0, 5)}, 10, [{}])
    assert (len(one.requests), len(two.requests)) == (0, 10)


async def test_a_caller_stays_where_its_header_sends_it() -> None:
    callers = [{"x-user": f"user-{number}"} for number in range(30)]
    params = {"targets": weights(50, 50), "sticky": {"header": "X-User"}}
    one, two = await counts(params, 90, callers)
    seen = [{request.header("x-user") for request in each.requests} for each in (one, two)]
    assert not seen[0] & seen[1]
    assert all(seen)


async def test_a_caller_stays_where_its_cookie_sends_it() -> None:
    callers = [{"cookie": f"a=b; session=user-{number}"} for number in range(30)]
    params = {"targets": weights(50, 50), "sticky": {"cookie": "session"}}
    one, two = await counts(params, 90, callers)
    seen = [{request.header("cookie") for request in each.requests} for each in (one, two)]
    assert not seen[0] & seen[1]
    assert all(seen)


async def test_requests_without_what_names_the_caller_are_split_by_chance() -> None:
    for sticky in ({"cookie": "session"}, {"header": "X-User"}):
        one, two = await counts({"targets": weights(50, 50), "sticky": sticky}, 60, [{}])
        assert one.requests
        assert two.requests


def test_different_base_paths_are_refused_by_name() -> None:
    split = shop("http://127.0.0.1:1", "http://127.0.0.1:2", {"targets": weights(1, 1)})
    with pytest.raises(NotCompiled, match="need one basePath: 'one' has '/base', 'two' has '/'"):
        compile_api(split, 1, (), load(()), XdsSettings())
