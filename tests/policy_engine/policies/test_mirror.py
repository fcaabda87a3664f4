import asyncio
from typing import Any

import pytest

from policy_engine.catalogue import load
from tests.servers.http_backend import Answer, HttpBackend, http_backend
from tests.xds.routing import api, router
from xds.compile.api import compile_api
from xds.errors import NotCompiled
from xds.settings import XdsSettings


def shop(main: str, shadow: str, base: str = "/base", more: str = "") -> Any:
    return api(f"""
    context: /shop
    upstreamDefinitions: [{{name: shadow, upstreams: [{{url: "{shadow}"}}], basePath: {base}}}]
    upstream: {{main: {{url: "{main}/base"}}}}
    policies: [{more}{{name: mirror, params: {{targetUpstream: shadow}}}}]
    operations: [{{method: POST, path: /items/*}}]
    """)


async def arrived(backend: HttpBackend, count: int) -> None:
    async with asyncio.timeout(30):
        while len(backend.requests) < count:
            await asyncio.sleep(0.01)


async def test_a_copy_goes_to_the_other_upstream_and_the_answer_comes_from_the_first() -> None:
    async with http_backend() as main, http_backend() as shadow:
        shadow.answer = lambda _: Answer(status=500)
        async with router(shop(main.url, shadow.url), catalogue=load(())) as running:
            answer = await running.get("/shop/items/1?x=1", method="POST", content=b"body")
            assert answer.status_code == 200
            await arrived(shadow, 1)
            copy = shadow.last
            assert (copy.method, copy.path, copy.body) == ("POST", "/base/items/1?x=1", b"body")
            assert copy.header("host") == f"127.0.0.1:{shadow.port}"
            assert main.last.body == b"body"


async def test_what_a_policy_before_it_refuses_is_not_copied() -> None:
    limited = "{name: basic-ratelimit, params: {limits: [{requests: 1, duration: 1h}]}}, "
    async with http_backend() as main, http_backend() as shadow:
        both = shop(main.url, shadow.url, more=limited)
        async with router(both, catalogue=load(())) as running:
            statuses = [
                (await running.get("/shop/items/1", method="POST")).status_code for _ in range(3)
            ]
            assert statuses == [200, 429, 429]
            await arrived(shadow, 1)
            assert len(shadow.requests) == 1


def test_a_mirror_with_another_base_path_is_refused_by_name() -> None:
    apart = shop("http://127.0.0.1:1", "http://127.0.0.1:2", "/other")
    with pytest.raises(NotCompiled, match="'shadow' needs the basePath '/base', not '/other'"):
        compile_api(apart, 1, (), load(()), XdsSettings())
