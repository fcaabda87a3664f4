"""How much of its plan a subscription has used: calendar periods in UTC, counted by others."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

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


def period(unit: ThrottleUnit, now: datetime) -> Period:
    """The period of the calendar that holds `now`, in UTC."""
    minute = now.astimezone(UTC).replace(second=0, microsecond=0)
    match unit:
        case "Min":
            return Period(minute, minute + timedelta(minutes=1))
        case "Hour":
            hour = minute.replace(minute=0)
            return Period(hour, hour + timedelta(hours=1))
        case "Day":
            day = minute.replace(hour=0, minute=0)
            return Period(day, day + timedelta(days=1))
        case "Month":
            month = minute.replace(day=1, hour=0, minute=0)
            return Period(month, (month + timedelta(days=32)).replace(day=1))
