"""A quota as users write it, and what the ways of keeping count all need of it."""

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from bus.resources.document import PositiveDuration, TimeZone, duration_s, wrong
from policy_engine.policy import Parameters, Scope
from policy_engine.rate_limits.costs import Cost, CostExtraction
from policy_engine.rate_limits.keys import Key, KeyPart
from policy_engine.rate_limits.limits import Algorithm, Calendar, Hits, Limit, Quota, Told, WhenAway

SHORTEST_S = 0.05  # Envoy fills its buckets no faster

Backend = Literal["memory", "redis", "redis-local-async"]


def _long_enough(duration: str) -> str:
    if duration_s(duration) < SHORTEST_S:
        raise ValueError("must be at least 50ms")
    return duration


Window = Annotated[PositiveDuration, AfterValidator(_long_enough)]


class LimitParameters(Parameters):
    """So much in so much time."""

    limit: Annotated[int, Field(ge=1, le=1_000_000_000)]
    """How many requests, or how much cost, may pass in each `duration`."""

    duration: Window | None = None
    """The time it is for, such as `1s`, `1m`, `24h`; at least `50ms`. Required without
    `calendar`."""

    burst: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """How many may pass at once, for the algorithm `gcra`; without it, `limit`."""

    calendar: Calendar | None = None
    """Instead of `duration`: the calendar's `hour`, `day`, `week` (from Monday) or `month`. Needs
    a shared backend and the algorithm `fixed-window`."""

    time_zone: TimeZone | None = None
    """Whose calendar it is: the IANA name of a time zone, such as `Europe/Zurich`; without it, as
    whoever runs the gateway says (`ratelimit_time_zone`)."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.duration is None) == (self.calendar is None):
            raise wrong("exactly one of duration and calendar is required", "duration")
        return self

    def limit_of(self, time_zone: str) -> Limit:
        """As the rate limiter counts it; `time_zone`: the gateway's."""
        return Limit(
            self.limit,
            0.0 if self.duration is None else duration_s(self.duration),
            self.burst or 0,
            self.calendar,
            self.time_zone or time_zone,
        )


class QuotaParameters(Parameters):
    """Limits that all must hold for one kind of key."""

    name: Annotated[str, Field(max_length=100, pattern=r"^[ -~]*$")] = ""
    """How callers are told of it, in `X-RateLimit-Quota` and `RateLimit`."""

    limits: Annotated[tuple[LimitParameters, ...], Field(min_length=1, max_length=10)]
    """The limits; a request must be within all of them."""

    key_extraction: Annotated[tuple[KeyPart, ...], Field(max_length=5)] = ()
    """Whom it counts, in this order; without any, as the policy says for all quotas."""

    cost_extraction: CostExtraction = CostExtraction()
    """What a request costs; without it, 1."""


@dataclass(frozen=True)
class Counted:
    """One quota where it is attached."""

    name: str
    bucket: str
    limits: tuple[Limit, ...]
    algorithm: Algorithm
    key: Key
    cost: Cost | None  # None: each request is one hit

    def quota(self, scope: Scope, hits: Hits, *, when_away: WhenAway, shadow: bool) -> Quota:
        """As the rate limiter is told of it."""
        system = scope.system
        return Quota(
            bucket=self.bucket,
            limits=self.limits,
            name=self.name,
            algorithm=self.algorithm,
            hits=hits,
            shadow=shadow,
            when_away=when_away,
            told=Told(
                x_ratelimit=system.ratelimit_x_headers,
                ietf=system.ratelimit_ietf_headers,
                retry_after=system.ratelimit_retry_after,
            ),
            api=scope.api_id,
            tells_key=self.key.shown,
        )
