"""Subscriptions in a whole gateway: what admins change is in force on the router at once."""

import asyncio
import time
from datetime import UTC, datetime, timedelta
from datetime import time as clock
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from tests.servers.gateway import Gateway, gateway, rest_api
from tests.servers.http_backend import http_backend

PATIENCE_S = 30.0
WITHIN_S = 5.0  # the promise is one second; a busy test machine gets more
TOKEN = {"Subscription-Key": "token-of-a-customer"}


async def until(
    client: httpx.AsyncClient, wanted: int, path: str = "/shop/a", **more: Any
) -> float:
    """Ask until the answer has this status; how long it took, seconds."""
    began = time.monotonic()
    async with asyncio.timeout(PATIENCE_S):
        while (await client.get(path, **more)).status_code != wanted:
            await asyncio.sleep(0.01)
    return time.monotonic() - began


async def made(api: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    answer = await api.post(path, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def changed(api: httpx.AsyncClient, path: str, **body: Any) -> None:
    answer = await api.put(path, json=body)
    assert answer.status_code == 200, answer.text


async def shop(api: httpx.AsyncClient, upstream: str, *before: dict[str, Any]) -> None:
    policies = [*before, {"name": "subscription-validation", "version": "v1"}]
    document = rest_api("shop", upstream, policies=policies)
    assert (await api.post("/rest-apis", json=document)).status_code == 201
    await api.get("/rest-apis/shop/status", params={"waitSeconds": 20}, timeout=40)


@pytest.mark.parametrize("tier", ["basic", "standard"])
async def test_the_life_of_a_subscription(tier: str) -> None:
    async with (
        http_backend() as backend,
        gateway(tier=tier) as running,
        running.api() as api,
        httpx.AsyncClient(base_url=running.url) as client,
    ):
        await shop(api, backend.url)
        await until(client, 403, headers=TOKEN)
        plan = await made(api, "/subscription-plans", planName="Gold")
        plan_path = f"/subscription-plans/{plan['id']}"
        one = await made(
            api,
            "/subscriptions",
            apiId="shop",
            subscriptionToken=TOKEN["Subscription-Key"],
            subscriptionPlanId=plan["id"],
        )
        path = f"/subscriptions/{one['id']}"
        took = {"created": await until(client, 200, headers=TOKEN)}
        assert (await client.get("/shop/a")).status_code == 403
        forged = {"x-signalbox-subscription": one["id"], "x-signalbox-application": "x"}
        assert (await client.get("/shop/a", headers=forged)).status_code == 403

        await changed(api, path, status="INACTIVE")
        took["suspended"] = await until(client, 403, headers=TOKEN)
        await changed(api, path, status="ACTIVE")
        took["resumed"] = await until(client, 200, headers=TOKEN)
        await changed(api, plan_path, throttleLimitCount=3, throttleLimitUnit="Month")
        took["limited"] = await until(client, 429, headers=TOKEN)
        private = [name for name, _ in backend.last.headers if name.startswith("x-signalbox-")]
        assert private == ["x-signalbox-subscription"]
        refused = await client.get("/shop/a", headers=TOKEN)
        assert refused.json()["error"] == "Too Many Requests"
        assert int(refused.headers["retry-after"]) > 3600
        assert refused.headers["x-ratelimit-limit"] == "3"
        assert refused.headers["x-ratelimit-remaining"] == "0"
        if tier == "standard":  # the count outlives a change of the API's subscriptions
            other = {"Subscription-Key": "somebody-else"}
            given = {"apiId": "shop", "subscriptionToken": "somebody-else"}
            await made(api, "/subscriptions", **given)
            await until(client, 200, headers=other)
            assert (await client.get("/shop/a", headers=TOKEN)).status_code == 429
        await changed(api, plan_path, stopOnQuotaReach=False)
        took["counted only"] = await until(client, 200, headers=TOKEN)
        assert (await client.get("/shop/a", headers=TOKEN)).status_code == 200
        await changed(api, path, subscriptionToken="another-token")
        took["old token"] = await until(client, 403, headers=TOKEN)
        replaced = {"Subscription-Key": "another-token"}
        assert (await client.get("/shop/a", headers=replaced)).status_code == 200
        await changed(api, path, status="REVOKED")
        took["revoked"] = await until(client, 403, headers=replaced)
        assert max(took.values()) < WITHIN_S, took


async def test_a_plan_expires_on_the_router_at_its_very_time() -> None:
    async with (
        http_backend() as backend,
        gateway(tier="basic") as running,
        running.api() as api,
        httpx.AsyncClient(base_url=running.url) as client,
    ):
        await shop(api, backend.url)
        expiry = datetime.now(UTC) + timedelta(seconds=4)
        plan = await made(
            api, "/subscription-plans", planName="Trial", expiryTime=expiry.isoformat()
        )
        token = TOKEN["Subscription-Key"]
        given = {"apiId": "shop", "subscriptionToken": token}
        await made(api, "/subscriptions", subscriptionPlanId=plan["id"], **given)
        await until(client, 200, headers=TOKEN)
        await until(client, 403, headers=TOKEN)
        late_s = (datetime.now(UTC) - expiry).total_seconds()
        assert 0 <= late_s < WITHIN_S


async def test_an_applications_key_is_enough_and_usage_is_told() -> None:
    async with (
        http_backend() as backend,
        gateway(tier="standard") as running,
        running.api() as api,
        httpx.AsyncClient(base_url=running.url) as client,
    ):
        key_policy = {
            "name": "api-key-auth",
            "version": "v1",
            "params": {"key": "API-Key", "in": "header"},
        }
        await shop(api, backend.url, key_policy)
        await made(api, "/applications", id="app-1", name="Web shop")
        body = {"displayName": "Web shop"}
        issued = await made(api, "/rest-apis/shop/api-keys", **body)
        key = {"API-Key": issued["apiKey"]["apiKey"]}
        await until(client, 403, headers=key)
        plan = await made(
            api,
            "/subscription-plans",
            planName="Day",
            throttleLimitCount=100,
            throttleLimitUnit="Day",
        )
        one = await made(
            api,
            "/subscriptions",
            apiId="shop",
            subscriptionToken="unused",
            applicationId="app-1",
            subscriptionPlanId=plan["id"],
        )
        await until(client, 200, headers=key)
        for _ in range(6):
            assert (await client.get("/shop/a", headers=key)).status_code == 200
        await used(running, one["id"], 7)


async def used(running: Gateway, name: str, wanted: int) -> None:
    """Wait until that many requests are counted, over REST and by the command."""
    async with running.api() as api, asyncio.timeout(PATIENCE_S):
        while True:
            usage = (await api.get(f"/subscriptions/{name}/usage")).json()
            if usage["used"] >= wanted:
                break
            await asyncio.sleep(0.1)
    assert (usage["used"], usage["limit"], usage["remaining"]) == (wanted, 100, 100 - wanted)


DOCUMENTS = """\
apiVersion: gateway.api-platform.wso2.com/v1
kind: Subscription
metadata: {{name: {name}-on-shop}}
spec: {{apiId: shop, subscriptionPlan: {name}, subscriptionToken: token-of-{name}}}
---
apiVersion: gateway.api-platform.wso2.com/v1
kind: SubscriptionPlan
metadata: {{name: {name}}}
spec: {{throttleLimitCount: 2, throttleLimitUnit: Day{zone}}}
---
"""


def seconds_left(zone: str) -> float:
    """Until the next midnight there."""
    now = datetime.now(ZoneInfo(zone))
    midnight = datetime.combine(now.date() + timedelta(days=1), clock(), tzinfo=ZoneInfo(zone))
    return midnight.timestamp() - now.timestamp()


async def test_days_of_plans_and_quotas_end_at_midnight_in_their_time_zone() -> None:
    here, there = "Pacific/Kiritimati", "America/Los_Angeles"
    async with (
        http_backend() as backend,
        gateway(environment={"SIGNALBOX_RATELIMIT_TIME_ZONE": here}) as running,
        running.api() as api,
        httpx.AsyncClient(base_url=running.url) as client,
    ):
        daily = {"limits": [{"limit": 2, "calendar": "day"}]}
        params = {"quotas": [daily], "backend": "redis"}
        quota = {"name": "advanced-ratelimit", "version": "v1", "params": params}
        document = rest_api("quota", backend.url, policies=[quota])
        assert (await api.post("/rest-apis", json=document)).status_code == 201
        await api.get("/rest-apis/quota/status", params={"waitSeconds": 20}, timeout=40)
        await shop(api, backend.url)
        documents = DOCUMENTS.format(name="here", zone="")
        documents += DOCUMENTS.format(name="there", zone=f", timeZone: {there}")
        code, out, err = await running.cli("apply", "-f", "-", stdin=documents)
        assert (code, err, out.splitlines()[-1]) == (0, "", "4 created"), out
        code, out, err = await running.cli("apply", "-f", "-", stdin=documents)
        assert (code, err, out.splitlines()[-1]) == (0, "", "4 unchanged"), out
        for path, zone, headers in (
            ("/quota/a", here, {}),
            ("/shop/a", here, {"Subscription-Key": "token-of-here"}),
            ("/shop/a", there, {"Subscription-Key": "token-of-there"}),
        ):
            await until(client, 429, path, headers=headers)
            before_s = seconds_left(zone)
            refused = await client.get(path, headers=headers)
            assert refused.status_code == 429
            told_s = int(refused.headers["retry-after"])
            off_s = min(abs(told_s - before_s), abs(told_s - seconds_left(zone)))
            assert off_s < 30, (zone, told_s, before_s)
        for name, zone in (("here", here), ("there", there)):
            usage = (await api.get(f"/subscriptions/{name}-on-shop/usage")).json()
            left_s = (datetime.fromisoformat(usage["resetsAt"]) - datetime.now(UTC)).total_seconds()
            assert abs(left_s - seconds_left(zone)) < 30
            assert usage["timeZone"] == zone
