"""`/subscription-plans`."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from controller.ports import Record
from tests.controller.samples import document
from tests.controller.subscribing import (
    PLANS,
    SUBSCRIPTIONS,
    TOKEN,
    created,
    events,
    faults,
    subscribed,
)

pytestmark = pytest.mark.usefixtures("weather")


async def test_a_plan_is_made_shown_changed_and_deleted(client, record: Record) -> None:
    made = await created(
        client, PLANS, planName="Gold", throttleLimitCount=100, throttleLimitUnit="Min"
    )
    assert made == made | {
        "planName": "Gold",
        "stopOnQuotaReach": True,
        "throttleLimitCount": 100,
        "throttleLimitUnit": "Min",
        "status": "ACTIVE",
        "gatewayId": "default",
        "revision": 1,
    }
    assert {"id", "createdAt", "updatedAt"} <= made.keys()
    place = f"{PLANS}/{made['id']}"
    assert (await client.get(place)).json() == made
    listing = (await client.get(PLANS)).json()
    assert (listing["count"], listing["subscriptionPlans"]) == (1, [made])
    answer = await client.put(place, json={"throttleLimitCount": 5, "billingPlan": "B"})
    assert answer.status_code == 200
    changed = answer.json()
    assert changed == made | {
        "throttleLimitCount": 5,
        "billingPlan": "B",
        "revision": 2,
        "updatedAt": changed["updatedAt"],
    }
    assert (await client.put(place, json=changed)).json() == changed  # an answer comes back
    cleared = {"throttleLimitCount": None, "throttleLimitUnit": None, "billingPlan": None}
    answer = await client.put(place, json=cleared)
    assert "throttleLimitCount" not in answer.json()
    assert (await client.delete(place)).status_code == 204
    assert (await client.delete(place)).status_code == 404
    assert (await client.get(place)).status_code == 404
    assert (await client.put(place, json={})).status_code == 404
    assert (await client.get(PLANS)).json()["count"] == 0
    told = [(one.kind, one.revision) for one in await events(record)]  # type: ignore[attr-defined]
    assert told == [
        ("subscription-plan.published", 1),
        ("subscription-plan.published", 2),
        ("subscription-plan.published", 3),
        ("subscription-plan.retired", 4),
    ]


async def test_a_plan_is_told_whole(client, record: Record) -> None:
    expiry = "2040-01-01T00:00:00Z"
    await created(client, PLANS, planName="Free", stopOnQuotaReach=False, expiryTime=expiry)
    (told,) = await events(record)
    plan = told.plan  # type: ignore[attr-defined]
    assert (plan.plan_name, plan.stop_on_quota_reach) == ("Free", False)
    assert plan.expiry_time == datetime(2040, 1, 1, tzinfo=UTC)


async def test_two_plans_of_one_name_are_a_conflict(client) -> None:
    await created(client, PLANS, planName="Gold")
    silver = await created(client, PLANS, planName="Silver")
    assert (await client.post(PLANS, json={"planName": "Gold"})).status_code == 409
    place = f"{PLANS}/{silver['id']}"
    assert (await client.put(place, json={"planName": "Gold"})).status_code == 409
    assert (await client.put(place, json={"planName": "Bronze"})).status_code == 200
    await created(client, PLANS, planName="Silver")  # the name is free again


async def test_of_plans_made_at_once_with_one_name_one_wins(client) -> None:
    answers = await asyncio.gather(
        *(client.post(PLANS, json={"planName": "Gold"}) for _ in range(8))
    )
    assert sorted(one.status_code for one in answers) == [201] + [409] * 7


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "planName"),
        ({"planName": ""}, "planName"),
        ({"planName": " a"}, "planName"),
        ({"planName": 7}, "planName"),
        ({"planName": "a", "throttleLimitCount": 0}, "throttleLimitCount"),
        ({"planName": "a", "throttleLimitCount": "5"}, "throttleLimitCount"),
        ({"planName": "a", "throttleLimitCount": 5}, "throttleLimitUnit"),
        ({"planName": "a", "throttleLimitUnit": "Day"}, "throttleLimitCount"),
        (
            {"planName": "a", "throttleLimitCount": 5, "throttleLimitUnit": "Week"},
            "throttleLimitUnit",
        ),
        ({"planName": "a", "status": "GONE"}, "status"),
        ({"planName": "a", "stopOnQuotaReach": "no"}, "stopOnQuotaReach"),
        ({"planName": "a", "expiryTime": "2020-01-01T00:00:00Z"}, "expiryTime"),
        ({"planName": "a", "expiryTime": "soon"}, "expiryTime"),
        ({"planName": "a", "surprise": 1}, "surprise"),
    ],
)
async def test_a_bad_plan_names_the_field(client, body: dict[str, Any], field: str) -> None:
    assert faults(await client.post(PLANS, json=body)) == [field]
    assert (await client.get(PLANS)).json()["count"] == 0


async def test_a_plan_with_subscriptions_stays(client) -> None:
    plan = await created(client, PLANS, planName="Gold")
    one = await subscribed(client, subscriptionPlanId=plan["id"])
    answer = await client.delete(f"{PLANS}/{plan['id']}")
    assert answer.status_code == 409
    assert "in use by 1 subscription" in answer.json()["message"]
    await client.delete(f"{SUBSCRIPTIONS}/{one['id']}")
    assert (await client.delete(f"{PLANS}/{plan['id']}")).status_code == 204


async def test_an_api_offers_only_plans_that_there_are(client) -> None:
    offering = document("tides", subscriptionPlans=["Gold", "Silver"])
    await created(client, PLANS, planName="Silver")
    assert faults(await client.post("/rest-apis", json=offering)) == ["spec.subscriptionPlans[0]"]
    gold = await created(client, PLANS, planName="Gold")
    bronze = await created(client, PLANS, planName="Bronze")
    assert (await client.post("/rest-apis", json=offering)).status_code == 201
    for given in ({}, {"subscriptionPlanId": bronze["id"]}):
        body = {"apiId": "tides", "subscriptionToken": TOKEN, **given}
        answer = await client.post(SUBSCRIPTIONS, json=body)
        assert faults(answer) == ["subscriptionPlanId"]
        assert "Gold, Silver" in answer.json()["errors"][0]["message"]
    one = await subscribed(client, apiId="tides", subscriptionPlanId=gold["id"])
    place = f"{SUBSCRIPTIONS}/{one['id']}"
    moved = await client.put(place, json={"subscriptionPlanId": bronze["id"]})
    assert faults(moved) == ["subscriptionPlanId"]
    offering["spec"]["subscriptionPlans"] = ["Silver"]  # who has Gold keeps it
    assert (await client.put("/rest-apis/tides", json=offering)).status_code == 200
    assert (await client.put(place, json={"status": "INACTIVE"})).status_code == 200
