"""How much of its plan a subscription has used: periods of the calendar, counted by others."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

from bus.resources.subscription_plan import ThrottleUnit


@dataclass(frozen=True, slots=True)
class Served:
    """What became of the requests of a subscription."""

    passed: int  # reached, or should have reached, the upstream
    refused: int  # by a policy or the gateway's own rules


class SubscriptionUsage(Protocol):
    """Whoever counts requests."""

    async def of_subscription(
        self, subscription_id: str, since: datetime, until: datetime
    ) -> Served:
        """What was served in this time, in whole minutes. Raises UsageUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class Period:
    """One period of a quota."""

    start: datetime
    end: datetime  # when the next one starts


def period(unit: ThrottleUnit, now: datetime, time_zone: str = "UTC") -> Period:
    """The period of that zone's calendar that holds `now`, as moments in UTC.

    The rate limiter counts in the same ones: days have 23 to 25 hours when clocks change.
    """
    minute = now.astimezone(UTC).replace(second=0, microsecond=0)
    if unit == "Min":
        return Period(minute, minute + timedelta(minutes=1))
    zone = ZoneInfo(time_zone)
    local = minute.astimezone(zone)
    if unit == "Hour":
        start = minute - timedelta(minutes=local.minute)
        return Period(start, start + timedelta(hours=1))
    first = local.date() if unit == "Day" else local.date().replace(day=1)
    after = first + timedelta(days=1 if unit == "Day" else 32)
    if unit == "Month":
        after = after.replace(day=1)
    return Period(_midnight(first, zone), _midnight(after, zone))


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)
