"""What subscriptions have used of their plans, and the periods that it is counted in."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from controller.errors import UsageUnavailable
from controller.quota import Served, period
from policy_engine.rate_limits.limits import Calendar, calendar_end_us
from tests.controller.subscribing import (
    PLANS,
    SUBSCRIPTIONS,
    created,
    faults,
    subscribed,
)

pytestmark = pytest.mark.usefixtures("weather")


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
