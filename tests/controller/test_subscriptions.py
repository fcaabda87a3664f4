"""`/subscription-plans`, `/subscriptions` and `/applications` as their clients see them."""

import asyncio
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from hypothesis import given as examples
from hypothesis import strategies as st
from structlog.testing import capture_logs

from bus.events import Event, SubscriptionPublished, event_class
from controller.errors import UsageUnavailable
from controller.ports import Record
from controller.quota import Served, period
from policy_engine.limits import Calendar, calendar_end_us
from tests.controller.samples import document

PLANS, SUBSCRIPTIONS, APPLICATIONS = "/subscription-plans", "/subscriptions", "/applications"
TOKEN = "token-of-a-customer"


@pytest.fixture(autouse=True)
async def weather(client) -> None:
    await client.post("/rest-apis", json=document())


async def created(client: httpx.AsyncClient, path: str, **body: object) -> dict[str, Any]:
    answer = await client.post(path, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def subscribed(client: httpx.AsyncClient, **body: object) -> dict[str, Any]:
    given = {"apiId": "weather", "subscriptionToken": TOKEN, **body}
    return await created(client, SUBSCRIPTIONS, **given)


async def events(record: Record) -> list[Event]:
    found = [
        event_class(one.kind).model_validate_json(one.body) for one in await record.pending(99)
    ]
    return [one for one in found if not one.kind.startswith("rest-api")]


def faults(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 400, answer.text
    assert answer.json()["status"] == "error"
    return [one["field"] for one in answer.json()["errors"]]


# -- plans -------------------------------------------------------------------------------------


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


# -- subscriptions -----------------------------------------------------------------------------


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


# -- usage -------------------------------------------------------------------------------------


@dataclass
class Counted:
    """Whoever counts requests."""

    served: Served | None
    asked: list[tuple[str, datetime, datetime]] = field(default_factory=list)

    async def of_subscription(self, name: str, since: datetime, until: datetime) -> Served:
        self.asked.append((name, since, until))
        if self.served is None:
            raise UsageUnavailable("the database is away")
        return self.served


async def test_usage_is_told_against_the_quota(client, app) -> None:
    gold = await created(
        client, PLANS, planName="Gold", throttleLimitCount=10, throttleLimitUnit="Day"
    )
    one = await subscribed(client, subscriptionPlanId=gold["id"])
    app.state.subscription_usage = counted = Counted(Served(passed=7, refused=2))
    usage = (await client.get(f"{SUBSCRIPTIONS}/{one['id']}/usage")).json()
    ((name, since, until),) = counted.asked
    assert (name, until - since) == (one["id"], timedelta(days=1))
    assert usage == usage | {
        "subscriptionId": one["id"],
        "apiId": "weather",
        "planName": "Gold",
        "used": 7,
        "refused": 2,
        "limit": 10,
        "unit": "Day",
        "remaining": 3,
        "stopOnQuotaReach": True,
    }
    assert datetime.fromisoformat(usage["resetsAt"]) == until
    app.state.subscription_usage = Counted(Served(passed=12, refused=0))
    usage = (await client.get(f"{SUBSCRIPTIONS}/{one['id']}/usage")).json()
    assert usage["remaining"] == 0


async def test_usage_without_a_plan_is_that_of_the_month(client, app) -> None:
    one = await subscribed(client)
    app.state.subscription_usage = counted = Counted(Served(3, 0))
    usage = (await client.get(f"{SUBSCRIPTIONS}/{one['id']}/usage")).json()
    assert (usage["used"], usage["limit"], usage["remaining"]) == (3, None, None)
    assert counted.asked[0][1].day == 1


async def test_usage_that_cannot_be_read_is_unavailable(client, app) -> None:
    one = await subscribed(client)
    for counted in (None, Counted(None)):
        app.state.subscription_usage = counted
        answer = await client.get(f"{SUBSCRIPTIONS}/{one['id']}/usage")
        assert answer.status_code == 503
        assert "usage is unavailable" in answer.json()["message"]


@pytest.mark.parametrize(
    ("unit", "start", "end"),
    [
        ("Min", "2028-02-29T23:59:00", "2028-03-01T00:00:00"),
        ("Hour", "2028-02-29T23:00:00", "2028-03-01T00:00:00"),
        ("Day", "2028-02-29T00:00:00", "2028-03-01T00:00:00"),
        ("Month", "2028-02-01T00:00:00", "2028-03-01T00:00:00"),
    ],
)
def test_periods_are_those_of_the_calendar(unit, start: str, end: str) -> None:
    found = period(unit, datetime(2028, 2, 29, 23, 59, 59, 999_999, tzinfo=UTC))
    assert (found.start.isoformat(), found.end.isoformat()) == (f"{start}+00:00", f"{end}+00:00")


def test_a_period_may_end_with_the_year() -> None:
    found = period("Month", datetime(2029, 12, 31, 12, tzinfo=UTC))
    assert found.end == datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("unit", "zone", "now", "start", "hours"),
    [
        ("Day", "Europe/Zurich", "2027-03-28T12:00", "2027-03-27T23:00", 23),
        ("Day", "Europe/Zurich", "2027-10-31T12:00", "2027-10-30T22:00", 25),
        ("Month", "Europe/Zurich", "2027-03-28T12:00", "2027-02-28T23:00", 31 * 24 - 1),
        ("Day", "Pacific/Kiritimati", "2027-01-01T11:00", "2027-01-01T10:00", 24),
        ("Hour", "Asia/Kathmandu", "2027-01-01T11:00", "2027-01-01T10:15", 1),
        ("Min", "Asia/Kathmandu", "2027-01-01T11:00", "2027-01-01T11:00", 1 / 60),
    ],
)
def test_a_period_is_that_of_its_time_zone(
    unit, zone: str, now: str, start: str, hours: float
) -> None:
    found = period(unit, datetime.fromisoformat(f"{now}:00+00:00"), zone)
    assert found.start.isoformat() == f"{start}:00+00:00"
    assert found.end - found.start == timedelta(hours=hours)


@examples(
    st.sampled_from([("Hour", Calendar.HOUR), ("Day", Calendar.DAY), ("Month", Calendar.MONTH)]),
    st.sampled_from(["UTC", "Europe/Zurich", "Africa/Cairo", "America/Havana", "Asia/Kathmandu"]),
    st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)),  # noqa: DTZ001 - in UTC, below
)
def test_usage_is_told_of_the_very_period_that_the_rate_limiter_counts(unit, zone, when) -> None:
    now = when.replace(tzinfo=UTC)
    found = period(unit[0], now, zone)
    end_us = calendar_end_us(unit[1], zone, int(now.timestamp() * 1e6))
    assert found.end.timestamp() * 1e6 == end_us
    assert found.start <= now < found.end
    start_us = int(found.start.timestamp() * 1e6)
    assert calendar_end_us(unit[1], zone, start_us) == end_us
    assert calendar_end_us(unit[1], zone, start_us - 1) == start_us


async def test_usage_is_of_the_plans_calendar_or_else_the_gateways(client, app) -> None:
    counted = Counted(Served(0, 0))
    app.state.subscription_usage, app.state.time_zone = counted, "Asia/Kolkata"
    day = {"throttleLimitCount": 5, "throttleLimitUnit": "Day"}
    plan = await created(client, PLANS, planName="Day", **day)
    one = await subscribed(client, subscriptionPlanId=plan["id"])
    usage = (await client.get(f"{SUBSCRIPTIONS}/{one['id']}/usage")).json()
    assert (usage["timeZone"], usage["resetsAt"][11:19]) == ("Asia/Kolkata", "18:30:00")
    place = f"{PLANS}/{plan['id']}"
    assert (await client.put(place, json={"timeZone": "Asia/Tokyo"})).status_code == 200
    usage = (await client.get(f"{SUBSCRIPTIONS}/{one['id']}/usage")).json()
    assert (usage["timeZone"], usage["resetsAt"][11:19]) == ("Asia/Tokyo", "15:00:00")
    assert faults(await client.put(place, json={"timeZone": "Mars"})) == ["timeZone"]
    assert (await client.put(place, json={"timeZone": None})).status_code == 200
    assert "timeZone" not in (await client.get(place)).json()


# -- applications ------------------------------------------------------------------------------


async def test_an_application_is_made_shown_changed_and_deleted(client, record: Record) -> None:
    made = await created(client, APPLICATIONS, id="shop", name="Shop", attributes={"tier": "1"})
    assert made == made | {"id": "shop", "name": "Shop", "attributes": {"tier": "1"}}
    place = f"{APPLICATIONS}/shop"
    assert (await client.get(place)).json() == made
    assert (await client.get(APPLICATIONS)).json()["applications"] == [made]
    changed = (await client.put(place, json={"owner": "carla", "description": "sells"})).json()
    assert (changed["owner"], changed["description"], changed["revision"]) == ("carla", "sells", 2)
    assert changed["attributes"] == {"tier": "1"}
    assert faults(await client.put(place, json={"id": "other"})) == ["id"]
    assert (await client.delete(place)).status_code == 204
    assert (await client.get(place)).status_code == 404
    again = await created(client, APPLICATIONS, id="shop", name="Shop")
    assert again["revision"] == 4  # counts on, so that nobody takes it for an older one
    told = [(one.kind, one.revision) for one in await events(record)]  # type: ignore[attr-defined]
    assert told[-2:] == [("application.retired", 3), ("application.published", 4)]
    unnamed = await created(client, APPLICATIONS, name="Other")
    assert len(unnamed["id"]) == 36


async def test_names_and_ids_of_applications_are_one_space(client) -> None:
    await created(client, APPLICATIONS, id="shop", name="Shop")
    for taken in (
        {"id": "shop", "name": "x"},
        {"id": "x", "name": "Shop"},
        {"id": "Shop", "name": "x"},
        {"id": "x", "name": "shop"},
    ):
        assert (await client.post(APPLICATIONS, json=taken)).status_code == 409, taken
    await created(client, APPLICATIONS, id="x", name="x")
    assert (await client.put(f"{APPLICATIONS}/x", json={"name": "shop"})).status_code == 409
    assert faults(await client.post(APPLICATIONS, json={"id": "a b", "name": "y"})) == ["id"]
    assert faults(await client.post(APPLICATIONS, json={"id": "y"})) == ["name"]


async def test_an_application_with_subscriptions_stays(client) -> None:
    await created(client, APPLICATIONS, id="shop", name="Shop")
    one = await subscribed(client, applicationId="shop")
    assert (await client.delete(f"{APPLICATIONS}/shop")).status_code == 409
    await client.delete(f"{SUBSCRIPTIONS}/{one['id']}")
    assert (await client.delete(f"{APPLICATIONS}/shop")).status_code == 204


async def test_the_keys_of_an_application_are_those_of_its_name_or_id(client) -> None:
    await created(client, APPLICATIONS, id="app-1", name="Shop")
    await client.post("/rest-apis", json=document("tides"))
    for api, name, display in (
        ("weather", "one", "Shop"),
        ("tides", "two", "app-1"),
        ("tides", "three", "Other"),
    ):
        body = {"name": name, "displayName": display}
        assert (await client.post(f"/rest-apis/{api}/api-keys", json=body)).status_code == 201
    listing = (await client.get(f"{APPLICATIONS}/app-1/api-keys")).json()
    assert [(one["apiId"], one["name"]) for one in listing["apiKeys"]] == [
        ("weather", "one"),
        ("tides", "two"),
    ]
    assert listing["totalCount"] == 2
    assert (await client.get(f"{APPLICATIONS}/none/api-keys")).status_code == 404


async def test_a_key_may_only_say_whom_its_maker_may_speak_for(client, as_user) -> None:
    await created(client, APPLICATIONS, id="app-1", name="Shop", owner="carla")
    await subscribed(client, applicationId="partner")
    keys = "/rest-apis/weather/api-keys"
    for name in ("Shop", "app-1"):
        body = {"displayName": name}
        assert (await as_user("carlo").post(keys, json=body)).status_code == 403
        assert (await as_user("carla").post(keys, json=body)).status_code == 201
        assert (await client.post(keys, json=body)).status_code == 201
    body = {"displayName": "partner"}
    assert (await as_user("carla").post(keys, json=body)).status_code == 403
    assert (await client.post(keys, json=body)).status_code == 201
    mine = {"name": "mine", "displayName": "Mine"}
    carlo = as_user("carlo")
    assert (await carlo.post(keys, json=mine)).status_code == 201
    assert (await carlo.put(f"{keys}/mine", json={"displayName": "Shop"})).status_code == 403
    assert (await carlo.put(f"{keys}/mine", json={"displayName": "Ours"})).status_code == 200


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
