"""A subscription plan: how much of an API whoever subscribes to it may use."""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AwareDatetime, Field, model_validator

from bus.resources.document import Document, TimeZone, wrong

ThrottleUnit = Literal["Min", "Hour", "Day", "Month"]
PlanStatus = Literal["ACTIVE", "INACTIVE"]


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""The same moment is the same value, whatever its offset was written as."""


class PlanTerms(Document):
    """What a plan says, whatever it is called. Without a throttle limit it is unlimited."""

    billing_plan: Annotated[str, Field(max_length=255)] | None = None
    stop_on_quota_reach: bool = True  # off: requests beyond the limit are counted, not refused
    throttle_limit_count: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    throttle_limit_unit: ThrottleUnit | None = None
    time_zone: TimeZone | None = None  # whose calendar it is; None: the gateway's
    expiry_time: Moment | None = None  # from then on no subscription to it is live
    status: PlanStatus = "ACTIVE"

    @model_validator(mode="after")
    def _whole_limit(self) -> Self:
        if self.throttle_limit_count is not None and self.throttle_limit_unit is None:
            raise wrong("is required with throttleLimitCount", "throttleLimitUnit")
        if self.throttle_limit_unit is not None and self.throttle_limit_count is None:
            raise wrong("is required with throttleLimitUnit", "throttleLimitCount")
        return self


class SubscriptionPlan(PlanTerms):
    """One plan."""

    id: str  # given by the gateway
    plan_name: Annotated[str, Field(min_length=1, max_length=255)]

    def live(self, now: datetime) -> bool:
        """Whether subscriptions to it open anything at `now`."""
        expired = self.expiry_time is not None and self.expiry_time <= now
        return self.status == "ACTIVE" and not expired
