"""Limits that routers hold together: real routers, a real rate limiter, a real Valkey."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from bus.resources.rest_api import RestApi
from policy_engine.catalogue import load
from policy_engine.hooks import SHADOW_NAMESPACE
from policy_engine.policy import typed
from policy_engine.rate_limits.limits import RATELIMITER_CLUSTER
from policy_engine.system import SystemParameters
from ratelimiter.service import serving, store_of
from ratelimiter.settings import RatelimiterSettings
from tests.policy_engine.attached import LOCAL_REPLY, TOO_MANY
from tests.ratelimiter.gateway import cluster, where
from tests.servers.http_backend import Answer, HttpBackend, http_backend
from tests.servers.valkey import valkey_server
from tests.xds.routing import Router, api, router

HOUR = {"limit": 3, "duration": "1h"}


@dataclass
class Limited:
    """A backend, a rate limiter, and as many routers as wanted."""

    backend: HttpBackend
    address: str
    stack: AsyncExitStack
    limiter: AsyncExitStack = field(default_factory=AsyncExitStack)  # ends it early

    def orders(self, *policies: dict[str, Any], **operation: Any) -> RestApi:
        return api(
            yaml.safe_dump(
                {
                    "name": "orders",
                    "context": "/orders",
                    "policies": list(policies),
                    "upstream": {"main": {"url": f"http://127.0.0.1:{self.backend.port}"}},
                    "operations": [
                        {"method": "GET", "path": path, **operation} for path in ("/a", "/b")
                    ],
                }
            )
        )

    async def router(
        self, orders: RestApi, access_log: dict[str, Any] | None = None, **system: Any
    ) -> Router:
        catalogue = load((), system=SystemParameters(rate_limiter=True, **system))
        limiter = cluster(RATELIMITER_CLUSTER, where(self.address), http2=True)
        return await self.stack.enter_async_context(
            router(
                orders,
                catalogue=catalogue,
                local_reply=LOCAL_REPLY,
                access_log=access_log,
                more_clusters=[limiter],
            )
        )


@asynccontextmanager
async def limited(folder: Path) -> AsyncIterator[Limited]:
    async with valkey_server() as valkey, http_backend() as backend, AsyncExitStack() as stack:
        settings = RatelimiterSettings(
            redis_addresses=(f"unix:{valkey.socket}",),
            ratelimiter_decision_timeout_s=5,
            ratelimiter_socket=folder / "rl.sock",
        )
        async with AsyncExitStack() as limiter:
            running = await limiter.enter_async_context(serving(settings, None, store_of(settings)))
            (address,) = running.addresses
            yield Limited(backend, address, stack, limiter)
            await stack.aclose()


def quota(*limits: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"limits": list(limits) or [HOUR], **more}


def advanced(*quotas: dict[str, Any], **more: Any) -> dict[str, Any]:
    params = {"quotas": list(quotas), "backend": "redis", **more}
    return {"name": "advanced-ratelimit", "params": params}


def basic(requests: int) -> dict[str, Any]:
    limits = [{"requests": requests, "duration": "1h"}]
    return {"name": "basic-ratelimit", "params": {"limits": limits, "backend": "redis"}}


async def statuses(where: Router, count: int, path: str = "/orders/a", **headers: str) -> list[int]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return [(await where.get(path, headers=named)).status_code for _ in range(count)]


async def test_two_routers_count_together_and_a_changed_api_goes_on_counting(
    tmp_path: Path,
) -> None:
    async with limited(tmp_path) as here:
        first = await here.router(here.orders(basic(5)))
        second = await here.router(here.orders(basic(5)))
        assert await statuses(first, 3) == [200] * 3
        assert await statuses(second, 3) == [200, 200, 429]
        edit = {"name": "remove-headers", "params": {"request": {"headers": [{"name": "x"}]}}}
        changed = await here.router(here.orders(basic(5), edit))
        assert await statuses(changed, 1) == [429]
        more = await here.router(here.orders(basic(6)))  # another limit is another count
        assert await statuses(more, 1) == [200]


async def test_a_basic_limit_of_the_api_is_for_all_operations_that_of_an_operation_its_own(
    tmp_path: Path,
) -> None:
    async with limited(tmp_path) as here:
        whole = await here.router(here.orders(basic(3)))
        assert await statuses(whole, 2) + await statuses(whole, 2, "/orders/b") == [
            *(200, 200, 200, 429)
        ]
        own = await here.router(here.orders(policies=[basic(2)]))
        assert await statuses(own, 3) + await statuses(own, 3, "/orders/b") == [
            *(200, 200, 429, 200, 200, 429)
        ]


RESPOND = {"name": "respond", "params": {"statusCode": 201, "body": "here"}}
REDIRECT = {
    "name": "redirect",
    "params": {"statusCode": 302, "path": {"mode": "full", "value": "/elsewhere"}},
}


@pytest.mark.parametrize("level", ["api", "operation"])
@pytest.mark.parametrize(("answering", "status"), [(RESPOND, 201), (REDIRECT, 302)])
async def test_what_the_gateway_answers_itself_is_limited_too(
    tmp_path: Path, level: str, answering: dict[str, Any], status: int
) -> None:
    async with limited(tmp_path) as here:
        orders = (
            here.orders(basic(2), answering)
            if level == "api"
            else here.orders(basic(2), policies=[answering])
        )
        one = await here.router(orders)
        assert await statuses(one, 3) == [status, status, 429]
        assert not here.backend.requests


async def test_callers_are_told_in_every_header_and_refused_in_json(tmp_path: Path) -> None:
    async with limited(tmp_path) as here:
        key = [{"type": "header", "key": "X-User"}]
        per_user = advanced(quota(HOUR, name="user", keyExtraction=key))
        one = await here.router(here.orders(per_user))
        sent = {"x-user": "ann"}
        answers = [await one.get("/orders/a", headers=sent) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200] * 3 + [429]
        assert answers[0].headers["x-ratelimit-limit"] == "3"
        assert answers[0].headers["x-ratelimit-remaining"] == "2"
        assert answers[0].headers["ratelimit-policy"] == '"user";q=3;w=3600'
        refused = answers[3]
        assert refused.json() == TOO_MANY
        assert refused.headers["x-ratelimit-quota"] == "user"
        assert refused.headers["retry-after"] == refused.headers["x-ratelimit-reset"]
        assert await statuses(one, 1, x_user="bob") == [200]
        assert await statuses(one, 4) == [200, 200, 200, 429]  # all without the header


async def test_a_cost_that_the_answer_tells_is_charged_to_the_next_request(tmp_path: Path) -> None:
    cost = {
        "enabled": True,
        "sources": [
            {"type": "response_body", "jsonPath": "$.usage.total_tokens"},
            {"type": "response_header", "key": "x-extra", "multiplier": 2},
        ],
    }
    async with limited(tmp_path) as here:
        here.backend.answer = lambda _: Answer(
            headers=(("content-type", "application/json"), ("x-extra", "1")),
            body=b'{"usage":{"total_tokens":28}}',
        )
        tokens = advanced(quota({"limit": 60, "duration": "1h"}, costExtraction=cost))
        one = await here.router(here.orders(tokens))
        seen: list[httpx.Response] = []
        async with asyncio.timeout(30):
            while not seen or seen[-1].status_code == 200:
                seen.append(await one.get("/orders/a"))
                await asyncio.sleep(0.1)  # it is charged once the answer is through
        assert [answer.headers["x-ratelimit-remaining"] for answer in seen] == ["60", "30", "0"]


async def test_a_refusal_can_be_worded(tmp_path: Path) -> None:
    async with limited(tmp_path) as here:
        worded = advanced(
            quota({"limit": 1, "duration": "1h"}),
            onRateLimitExceeded={"statusCode": 420, "body": '{"calm":"down"}'},
        )
        one = await here.router(here.orders(worded))
        assert await statuses(one, 2) == [200, 420]
        refused = await one.get("/orders/a")
        assert refused.json() == {"calm": "down"}
        assert "x-signalbox-limited" not in refused.headers
        assert int(refused.headers["retry-after"]) > 0


@pytest.mark.parametrize("worded", [True, False])
async def test_without_the_rate_limiter_the_routers_own_bucket_holds(
    tmp_path: Path, worded: bool
) -> None:
    more = {"onRateLimitExceeded": {"body": '{"calm":"down"}'}} if worded else {}
    async with limited(tmp_path) as here:
        one = await here.router(here.orders(advanced(quota(HOUR), **more)))
        assert await statuses(one, 1) == [200]
        await here.limiter.aclose()
        found = await statuses(one, 8)
        assert set(found) == {200, 429}
        assert found.count(200) == 5  # of two windows' worth in the router's bucket, one is gone
        refused = await one.get("/orders/a")
        assert refused.json() == ({"calm": "down"} if worded else TOO_MANY)


@pytest.mark.parametrize(("mode", "expected"), [("open", 200), ("closed", 503)])
async def test_without_the_rate_limiter_all_pass_or_none_where_that_is_wanted(
    tmp_path: Path, mode: str, expected: int
) -> None:
    async with limited(tmp_path) as here:
        one = await here.router(here.orders(basic(2)), ratelimit_when_away=mode)
        assert await statuses(one, 3) == [200, 200, 429]
        await here.limiter.aclose()
        assert await statuses(one, 5) == [expected] * 5
        answer = await one.get("/orders/a")
        if expected != 200:
            assert answer.json()["error"] == "Service Unavailable"


async def test_calendar_windows_end_with_the_calendar(tmp_path: Path) -> None:
    monthly = {"limit": 2, "calendar": "month", "timeZone": "Pacific/Auckland"}
    async with limited(tmp_path) as here:
        one = await here.router(here.orders(advanced(quota(monthly))))
        answers = [await one.get("/orders/a") for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert 0 < int(answers[2].headers["retry-after"]) <= 31 * 86_400


async def test_in_shadow_mode_all_pass_and_what_would_be_refused_is_told(tmp_path: Path) -> None:
    limit = {"limit": 2, "duration": "1h"}
    log = tmp_path / "access.log"
    told = f"%DYNAMIC_METADATA({SHADOW_NAMESPACE}:advanced-ratelimit)%\n"
    access_log = {
        "name": "file",
        "typed_config": typed(
            "envoy.extensions.access_loggers.file.v3.FileAccessLog",
            {"path": str(log), "log_format": {"text_format_source": {"inline_string": told}}},
        ),
    }
    async with limited(tmp_path) as here:
        looking = advanced(quota(limit)) | {"mode": "shadow"}
        one = await here.router(here.orders(looking), access_log=access_log)
        answers = [await one.get("/orders/a") for _ in range(4)]
        assert [answer.status_code for answer in answers] == [200] * 4
        assert not [name for name in answers[-1].headers if "ratelimit" in name]
        assert not [name for name, _ in here.backend.last.headers if "shadow" in name]
        async with asyncio.timeout(30):
            while len(log.read_text().splitlines()) < len(answers):
                await asyncio.sleep(0.05)
    assert log.read_text().splitlines() == ["-", "-", *["rate limit exceeded"] * 2]
