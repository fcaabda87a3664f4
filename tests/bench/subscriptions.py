"""Subscriptions on the request path, and what a change of one among 1,000 costs.

Ratios are against the same gateway's API without policies, in interleaved rounds.
"""

import asyncio
import statistics
import time
from typing import Any

import httpx

from tests.bench import load
from tests.servers.gateway import Gateway, gateway, rest_api

MANY = 1_000
CHANGES = 20
VALIDATION = {"name": "subscription-validation", "version": "v1"}
API_KEY = {"name": "api-key-auth", "version": "v1", "params": {"key": "API-Key", "in": "header"}}
LIMIT = {"throttleLimitCount": 1_000_000_000, "throttleLimitUnit": "Min"}


async def made(api: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    answer = await api.post(path, json=body)
    answer.raise_for_status()
    return dict(answer.json())


async def subscribe(api: httpx.AsyncClient, name: str, count: int, plan: str | None) -> list[str]:
    """The ids of `count` subscriptions whose tokens are `token-0`, `token-1`, ..."""
    given = {} if plan is None else {"subscriptionPlanId": plan}
    return [
        (await made(api, "/subscriptions", apiId=name, subscriptionToken=f"token-{one}", **given))[
            "id"
        ]
        for one in range(count)
    ]


async def until(client: httpx.AsyncClient, path: str, status: int, **headers: str) -> None:
    while (await client.get(path, headers=headers)).status_code != status:
        await asyncio.sleep(0.001)


async def change_ms(running: Gateway, name: str, subscription: str) -> list[float]:
    """From the request that suspends or resumes one to the router's first answer by it."""
    token = {"Subscription-Key": "token-0"}
    took: list[float] = []
    async with running.api() as api, httpx.AsyncClient(base_url=running.url) as client:
        for number in range(CHANGES):
            status, answer = ("INACTIVE", 403) if number % 2 == 0 else ("ACTIVE", 200)
            began = time.perf_counter()
            put = await api.put(f"/subscriptions/{subscription}", json={"status": status})
            put.raise_for_status()
            await until(client, f"/{name}/a", answer, **token)
            took.append((time.perf_counter() - began) * 1000)
    return took


async def main() -> None:
    async with load.upstream() as url, gateway(tier="basic") as running, running.api() as api:
        for name, policies in (
            ("plain", []),
            ("keyed", [API_KEY]),
            ("one", [VALIDATION]),
            ("many", [VALIDATION]),
            ("limited", [VALIDATION]),
        ):
            document = rest_api(name, url, policies=policies)
            (await api.post("/rest-apis", json=document)).raise_for_status()
        plan = await made(api, "/subscription-plans", planName="Large", **LIMIT)
        key = (await made(api, "/rest-apis/keyed/api-keys"))["apiKey"]["apiKey"]
        await subscribe(api, "one", 1, None)
        many = await subscribe(api, "many", MANY, None)
        limited = await subscribe(api, "limited", MANY, str(plan["id"]))
        token = {"Subscription-Key": f"token-{MANY - 1}"}
        async with httpx.AsyncClient(base_url=running.url) as client:
            for name in ("many", "limited"):
                await until(client, f"/{name}/a", 200, **token)
        pid = running.children()["envoy"]
        load.pin(pid, load.ROUTER_CORE)
        shown = {
            "plain": (),
            "keyed": (f"API-Key: {key}",),
            "one": ("Subscription-Key: token-0",),
            "many": (f"Subscription-Key: token-{MANY // 2}",),
            "limited": (f"Subscription-Key: token-{MANY // 2}",),
        }

        def case(name: str) -> load.Case:
            return load.Case(
                pid, lambda: load.wrk(f"{running.url}/{name}/a", headers=shown[name], seconds=2)
            )

        measured = await load.ratios({name: case(name) for name in shown}, base="plain")
        for name, text in (
            ("keyed", "api-key-auth, 1 key"),
            ("one", "1 subscription"),
            ("many", f"{MANY} subscriptions"),
            ("limited", f"{MANY} subscriptions with a limit"),
        ):
            one = measured[name]
            print(
                f"{text:36} {one.throughput:.2f} [{one.lowest:.2f}-{one.highest:.2f}]"
                f"  by CPU time {one.cpu:.2f}"
            )
        for name, ids in (("many", many), ("limited", limited)):
            took = await change_ms(running, name, ids[0])
            print(
                f"one of {MANY} changes ({name}): to live {statistics.median(took):.1f} ms, "
                f"worst {max(took):.1f} ms"
            )


if __name__ == "__main__":
    asyncio.run(main())
