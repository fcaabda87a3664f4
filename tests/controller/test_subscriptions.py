"""`/subscriptions` as their clients see them."""

import hashlib
from typing import Any

import pytest
from structlog.testing import capture_logs

from bus.events import SubscriptionPublished
from controller.ports import Record
from tests.controller.samples import document
from tests.controller.subscribing import (
    APPLICATIONS,
    PLANS,
    SUBSCRIPTIONS,
    TOKEN,
    created,
    events,
    faults,
    subscribed,
)

pytestmark = pytest.mark.usefixtures("weather")


async def test_a_token_is_kept_as_a_digest_and_in_no_answer_log_event_or_row(
    client, record: Record
) -> None:
    with capture_logs() as logs:
        made = await subscribed(client, billingCustomerId="c-1", billingSubscriptionId="b-1")
        place = f"{SUBSCRIPTIONS}/{made['id']}"
        answers = [made, (await client.get(place)).json(), (await client.get(SUBSCRIPTIONS)).json()]
        changed = await client.put(place, json={"subscriptionToken": TOKEN + "2"})
        answers.append(changed.json())
    assert made == made | {
        "apiId": "weather",
        "billingCustomerId": "c-1",
        "billingSubscriptionId": "b-1",
        "status": "ACTIVE",
        "gatewayId": "default",
        "revision": 1,
    }
    first, second = await events(record)
    assert isinstance(first, SubscriptionPublished)
    assert isinstance(second, SubscriptionPublished)
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    assert first.subscription.digest == digest
    assert second.subscription.digest == hashlib.sha256(f"{TOKEN}2".encode()).hexdigest()
    pending = b"".join(one.body for one in await record.pending(99)).decode()
    kept = f"{logs} {answers} {await record.everything()} {pending}"
    assert TOKEN not in kept
    assert digest not in f"{logs} {answers}"


async def test_a_subscription_is_suspended_resumed_revoked_and_deleted(
    client, record: Record
) -> None:
    made = await subscribed(client)
    place = f"{SUBSCRIPTIONS}/{made['id']}"
    for status in ("INACTIVE", "ACTIVE", "REVOKED"):
        answer = await client.put(place, json={"status": status})
        assert answer.json()["status"] == status
    again = await client.put(place, json={"status": "REVOKED"})
    assert again.json()["revision"] == 4  # nothing has changed
    assert (await client.delete(place)).status_code == 204
    for answer in (
        await client.get(place),
        await client.delete(place),
        await client.put(place, json={}),
        await client.get(f"{place}/usage"),
    ):
        assert answer.status_code == 404
    told = [(one.kind, one.revision) for one in await events(record)]  # type: ignore[attr-defined]
    assert told[-1] == ("subscription.retired", 5)


async def test_subscriptions_are_found_by_api_application_plan_and_status(client) -> None:
    await client.post("/rest-apis", json=document("tides"))
    gold = await created(client, PLANS, planName="Gold")
    a = await subscribed(client, subscriptionToken="a", applicationId="app-1")
    b = await subscribed(client, subscriptionToken="b", subscriptionPlanId=gold["id"])
    c = await subscribed(client, apiId="tides", subscriptionToken="a", applicationId="app-1")
    await client.put(f"{SUBSCRIPTIONS}/{b['id']}", json={"status": "INACTIVE"})

    async def found(**query: str) -> list[str]:
        answer = (await client.get(SUBSCRIPTIONS, params=query)).json()
        assert answer["count"] == len(answer["subscriptions"])
        return [one["id"] for one in answer["subscriptions"]]

    assert await found() == [a["id"], b["id"], c["id"]]
    assert await found(apiId="weather") == [a["id"], b["id"]]
    assert await found(applicationId="app-1") == [a["id"], c["id"]]
    assert await found(applicationId="app-1", apiId="tides") == [c["id"]]
    assert await found(status="INACTIVE") == [b["id"]]
    assert await found(subscriptionPlanId=gold["id"]) == [b["id"]]
    assert await found(apiId="nothing") == []
    assert faults(await client.get(SUBSCRIPTIONS, params={"status": "GONE"})) == ["status"]


async def test_one_token_opens_an_api_for_one_subscription(client) -> None:
    first = await subscribed(client)
    again = {"apiId": "weather", "subscriptionToken": TOKEN}
    assert (await client.post(SUBSCRIPTIONS, json=again)).status_code == 409
    other = await subscribed(client, subscriptionToken="other")
    place = f"{SUBSCRIPTIONS}/{other['id']}"
    assert (await client.put(place, json={"subscriptionToken": TOKEN})).status_code == 409
    await client.post("/rest-apis", json=document("tides"))
    await subscribed(client, apiId="tides")  # another API
    await client.delete(f"{SUBSCRIPTIONS}/{first['id']}")
    assert (await client.put(place, json={"subscriptionToken": TOKEN})).status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"subscriptionToken": TOKEN}, "apiId"),
        ({"apiId": "weather"}, "subscriptionToken"),
        ({"apiId": "nobody", "subscriptionToken": TOKEN}, "apiId"),
        ({"apiId": "a b", "subscriptionToken": TOKEN}, "apiId"),
        ({"apiId": "weather", "subscriptionToken": ""}, "subscriptionToken"),
        ({"apiId": "weather", "subscriptionToken": "a b"}, "subscriptionToken"),
        ({"apiId": "weather", "subscriptionToken": "x" * 4097}, "subscriptionToken"),
        (
            {"apiId": "weather", "subscriptionToken": TOKEN, "subscriptionPlanId": "none"},
            "subscriptionPlanId",
        ),
        ({"apiId": "weather", "subscriptionToken": TOKEN, "status": "GONE"}, "status"),
        ({"apiId": "weather", "subscriptionToken": TOKEN, "digest": "0" * 64}, "digest"),
    ],
)
async def test_a_bad_subscription_names_the_field(client, body: dict[str, Any], field: str) -> None:
    answer = await client.post(SUBSCRIPTIONS, json=body)
    assert faults(answer) == [field]
    assert TOKEN not in answer.text
    assert (await client.get(SUBSCRIPTIONS)).json()["count"] == 0


async def test_the_api_of_a_subscription_never_changes(client) -> None:
    await client.post("/rest-apis", json=document("tides"))
    made = await subscribed(client)
    place = f"{SUBSCRIPTIONS}/{made['id']}"
    assert faults(await client.put(place, json={"apiId": "tides"})) == ["apiId"]
    assert faults(await client.put(place, json={"id": "mine"})) == ["id"]
    assert faults(await client.put(place, json={"subscriptionPlanId": "x"})) == [
        "subscriptionPlanId"
    ]
    assert (await client.get(place)).json() == made


async def test_deleting_an_api_ends_its_subscriptions(client, record: Record) -> None:
    await subscribed(client)
    await client.delete("/rest-apis/weather")
    assert [one.kind for one in await record.pending(99)][-2:] == [
        "rest-api.retired",
        "subscription.retired",
    ]
    assert (await client.get(SUBSCRIPTIONS)).json()["count"] == 0


async def test_only_admins_may(client, as_user) -> None:
    for user in ("dev", "carla"):
        for path in (PLANS, SUBSCRIPTIONS, APPLICATIONS):
            assert (await as_user(user).get(path)).status_code == 403
            assert (await as_user(user).post(path, json={})).status_code == 403
            assert (await as_user(user).delete(f"{path}/x")).status_code == 403
    client.auth = None
    assert (await client.get(PLANS)).status_code == 401


async def test_an_id_of_the_callers_own_is_taken_once(client) -> None:
    await client.post("/rest-apis", json=document("tides"))
    one = await subscribed(client, id="shop-weather")
    assert one["id"] == "shop-weather"
    body = {"apiId": "weather", "subscriptionToken": "other", "id": "shop-weather"}
    assert (await client.post(SUBSCRIPTIONS, json=body)).status_code == 409
    assert faults(await client.post(SUBSCRIPTIONS, json={**body, "id": "a/b"})) == ["id"]
    assert (await client.delete(f"{SUBSCRIPTIONS}/shop-weather")).status_code == 204
    elsewhere = await client.post(SUBSCRIPTIONS, json={**body, "apiId": "tides"})
    assert elsewhere.status_code == 409
    assert "was one to API 'weather'" in elsewhere.json()["message"]
    again = await client.post(SUBSCRIPTIONS, json=body)
    assert (again.status_code, again.json()["revision"]) == (201, 3)


async def test_who_knows_a_token_finds_its_subscription_by_the_digest(client) -> None:
    one = await subscribed(client, subscriptionToken="mine")
    await subscribed(client, subscriptionToken="yours")
    for token, found in (("mine", [one["id"]]), ("nobody's", [])):
        digest = hashlib.sha256(token.encode()).hexdigest()
        answer = await client.get(SUBSCRIPTIONS, params={"subscriptionTokenDigest": digest})
        assert [row["id"] for row in answer.json()["subscriptions"]] == found
