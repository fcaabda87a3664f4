"""Envoy asks, the limiter decides, callers are told."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from policy_engine.rate_limits.limits import Algorithm, Answer, Hits, Limit, Quota, Told
from ratelimiter.service import Running, serving, store_of
from ratelimiter.settings import RatelimiterSettings
from tests.ratelimiter.gateway import actions, limiting, router
from tests.servers.http_backend import Answer as Reply
from tests.servers.http_backend import HttpBackend, http_backend
from tests.servers.valkey import ValkeyServer, valkey_server


class Gateway:
    valkey: ValkeyServer
    limiter: Running
    backend: HttpBackend
    client: httpx.AsyncClient

    async def statuses(self, count: int, **headers: str) -> list[int]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return [(await self.client.get("/", headers=named)).status_code for _ in range(count)]


@asynccontextmanager
async def gateway(folder: Path, *filters: dict, tcp: bool = False) -> AsyncIterator[Gateway]:
    running = Gateway()
    async with valkey_server() as running.valkey, http_backend() as running.backend:
        where = {"ratelimiter_port": 0} if tcp else {"ratelimiter_socket": folder / "rl.sock"}
        settings = RatelimiterSettings(
            redis_addresses=(f"unix:{running.valkey.socket}",),
            ratelimiter_decision_timeout_s=5,
            **where,
        )
        async with serving(settings, None, store_of(settings)) as running.limiter:
            (address,) = running.limiter.addresses
            async with (
                router(address, running.backend.port, *filters) as url,
                httpx.AsyncClient(base_url=url, timeout=60) as running.client,
            ):
                yield running


def per_client(*quotas: Quota) -> dict:
    return limiting([{"actions": actions(quota)} for quota in quotas])


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
async def test_each_client_gets_its_limit_and_not_more(
    tmp_path: Path, algorithm: Algorithm, tcp: bool
) -> None:
    quota = Quota("orders", (Limit(5, 86_400.0),), algorithm=algorithm)
    async with gateway(tmp_path, per_client(quota), tcp=tcp) as running:
        assert await running.statuses(8, x_client="one") == [200] * 5 + [429] * 3
        assert await running.statuses(6, x_client="two") == [200] * 5 + [429]
        assert len(running.backend.requests) == 10


async def test_callers_are_told_on_answers_and_on_refusals(tmp_path: Path) -> None:
    quota = Quota("orders", (Limit(2, 3_600.0), Limit(10, 86_400.0)), name="gold")
    async with gateway(tmp_path, per_client(quota)) as running:
        first, _, refused = [
            await running.client.get("/", headers={"x-client": "one"}) for _ in range(3)
        ]
    assert first.status_code == 200
    assert first.headers["x-ratelimit-limit"] == "2"
    assert first.headers["x-ratelimit-remaining"] == "1"
    assert 0 < int(first.headers["x-ratelimit-reset"]) <= 3_600
    assert (
        first.headers["ratelimit-policy"] == '"gold-3600s";q=2;w=3600, "gold-86400s";q=10;w=86400'
    )
    assert first.headers["ratelimit"].startswith('"gold-3600s";r=1;t=')
    assert "x-ratelimit-quota" not in first.headers
    assert "retry-after" not in first.headers
    assert refused.status_code == 429
    assert refused.headers["x-ratelimit-remaining"] == "0"
    assert refused.headers["x-ratelimit-quota"] == "gold"
    assert refused.headers["retry-after"] == refused.headers["x-ratelimit-reset"]
    assert refused.headers["ratelimit"].startswith('"gold-3600s";r=0;t=')


@pytest.mark.parametrize(
    ("told", "names"),
    [
        (Told(ietf=False, retry_after=False), {"x-ratelimit-limit", "x-ratelimit-quota"}),
        (Told(x_ratelimit=False, retry_after=False), {"ratelimit", "ratelimit-policy"}),
        (Told(x_ratelimit=False, ietf=False), {"retry-after"}),
        (Told(x_ratelimit=False, ietf=False, retry_after=False), set()),
    ],
)
async def test_each_group_of_headers_can_be_switched_off(
    tmp_path: Path, told: Told, names: set[str]
) -> None:
    quota = Quota("orders", (Limit(1, 3_600.0),), told=told)
    async with gateway(tmp_path, per_client(quota)) as running:
        await running.statuses(1, x_client="one")
        refused = await running.client.get("/", headers={"x-client": "one"})
    assert refused.status_code == 429
    groups = {"x-ratelimit-limit", "x-ratelimit-quota", "ratelimit", "ratelimit-policy"}
    assert set(refused.headers) & (groups | {"retry-after"}) == names


async def test_a_quota_may_bring_its_own_answer(tmp_path: Path) -> None:
    body = '{"error": "slow down, 100 % sure"}'
    quota = Quota("orders", (Limit(1, 3_600.0),), answer=Answer(body, "application/problem+json"))
    async with gateway(tmp_path, per_client(quota)) as running:
        await running.statuses(1, x_client="one")
        refused = await running.client.get("/", headers={"x-client": "one"})
    assert refused.text == body
    assert refused.headers.get_list("content-type") == ["application/problem+json"]


async def test_all_quotas_must_hold_and_a_refused_call_takes_nothing(tmp_path: Path) -> None:
    everybody = Quota("all", (Limit(6, 86_400.0),), name="all")
    each = Quota("each", (Limit(2, 86_400.0),), name="each")
    rate_limits = [{"actions": actions(everybody, None)}, {"actions": actions(each)}]
    async with gateway(tmp_path, limiting(rate_limits)) as running:
        assert await running.statuses(20, x_client="greedy") == [200] * 2 + [429] * 18
        answer = await running.client.get("/", headers={"x-client": "one"})
        assert answer.status_code == 200
        assert answer.headers["ratelimit-policy"] == '"all";q=6;w=86400, "each";q=2;w=86400'
        states = answer.headers["ratelimit"]
        assert states.startswith('"all";r=3;t=')
        assert '"each";r=1;t=' in states
        assert answer.headers["x-ratelimit-limit"] == "2"  # the strictest
        assert await running.statuses(2, x_client="one") == [200, 429]
        assert await running.statuses(2, x_client="two") == [200, 200]
        refused = await running.client.get("/", headers={"x-client": "three"})
        assert refused.status_code == 429
        assert refused.headers["x-ratelimit-quota"] == "all"


async def test_a_shadow_quota_counts_and_refuses_nobody(tmp_path: Path) -> None:
    quota = Quota("orders", (Limit(1, 86_400.0),), shadow=True)
    async with gateway(tmp_path, per_client(quota)) as running:
        answers = [await running.client.get("/", headers={"x-client": "one"}) for _ in range(3)]
    assert {answer.status_code for answer in answers} == {200}
    assert not any("ratelimit" in name for name in answers[-1].headers)


async def test_a_cost_known_afterwards_is_charged_to_the_next_request(tmp_path: Path) -> None:
    limits = (Limit(10, 86_400.0),)
    before = Quota("tokens", limits, hits=Hits.CHECK)
    after = Quota("tokens", limits, hits=Hits.CHARGE)
    rate_limits = [
        {"actions": actions(before)},
        {
            "actions": actions(after),
            "apply_on_stream_done": True,
            "hits_addend": {"format": "%RESP(x-cost)%"},
        },
    ]
    async with gateway(tmp_path, limiting(rate_limits)) as running:
        running.backend.answer = lambda _: Reply(headers=(("x-cost", "7"),))
        seen = []
        async with asyncio.timeout(30):
            while not seen or seen[-1].status_code == 200:
                seen.append(await running.client.get("/", headers={"x-client": "one"}))
    assert seen[0].headers["x-ratelimit-remaining"] == "10"
    assert seen[-1].status_code == 429
    assert seen[-1].headers["x-ratelimit-remaining"] == "0"
    assert 3 <= len(seen) <= 6  # charged when the stream is done, which may be after the next


async def test_a_descriptor_that_is_no_limit_is_refused_as_the_filter_says(tmp_path: Path) -> None:
    unknown = [{"actions": [{"generic_key": {"descriptor_key": "limit", "descriptor_value": "x"}}]}]
    async with gateway(tmp_path, limiting(unknown)) as running:
        assert await running.statuses(1) == [503]
    async with gateway(tmp_path, limiting(unknown, failure_mode_deny=False)) as running:
        assert await running.statuses(1) == [200]


async def test_requests_at_once_get_no_more_than_the_limit(tmp_path: Path) -> None:
    quota = Quota("orders", (Limit(100, 86_400.0),))
    async with gateway(tmp_path, per_client(quota)) as running:

        async def some(count: int) -> Sequence[int]:
            return await running.statuses(count, x_client="one")

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(some(25)) for _ in range(16)]
        statuses = [status for task in tasks for status in task.result()]
    assert statuses.count(200) == 100
    assert statuses.count(429) == 300
