"""Events about limits that routers share: for billing, for alarms, and among rate limiters.

Limits are told of once per counter and window, some seconds late, and at most so many per second:
they inform; what is enforced is in the counters.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from bus.events import Event
from bus.subjects import Family
from bus.usage import Moment


class KeyPart(BaseModel):
    """One part of what a limit counts by."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str
    """Such as `client`, `ip`, or a header's name."""
    value: str


class _OfLimit(Event):
    """What all events about one limit of one key say."""

    api: str = ""
    """Handle of the API; empty when the limit is not of one."""
    bucket: str
    """What is counted: API, operation, policy and quota."""
    quota: str
    """The quota's name, as callers are told it."""
    counter: str
    """The counter's name in the store; equal for the same key, which nobody can read from it."""
    parts: tuple[KeyPart, ...] = ()
    """The key, where the policy says that it is no credential; empty otherwise."""
    limit: Annotated[int, Field(ge=1)]
    """Hits per window; of a bucket, its size."""
    window_s: float
    """Length of the window, seconds; of a month, the longest."""
    shadow: bool = False
    """Whether the limit only watches."""
    at_ms: Moment
    """Unix time, by the store's clock."""

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by API."""
        return (self.api or "none",)


class LimitApproaching(_OfLimit, kind="limit.approaching", family=Family.USAGE):
    """80 % of a limit are used; told once per window."""

    remaining: Annotated[int, Field(ge=0)]
    reset_ms: Moment  # Unix time at which nothing of it is used any more


class LimitExceeded(_OfLimit, kind="limit.exceeded", family=Family.USAGE):
    """A call did not fit into a limit; told once per window."""

    reset_ms: Moment  # Unix time at which nothing of it is used any more


class QuotaReset(_OfLimit, kind="quota.reset", family=Family.USAGE):
    """The window of a limit that was approached or exceeded is over."""


class RatelimiterAlive(Event, kind="ratelimiter.alive", family=Family.ROUTER):
    """A rate limiter counts; said again every few seconds."""

    node: str
    every_s: Annotated[float, Field(gt=0)]
    """Who is silent for three times as long is gone."""

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by rate limiter."""
        return ("ratelimiter", "alive", self.node)


class RatelimiterLeft(Event, kind="ratelimiter.left", family=Family.ROUTER):
    """A rate limiter has ended in order."""

    node: str

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by rate limiter, so that it replaces the last sign of life."""
        return ("ratelimiter", "alive", self.node)


class RatelimiterDegraded(Event, kind="ratelimiter.degraded", family=Family.ROUTER):
    """The store of counters is away: this rate limiter enforces its share of each limit."""

    node: str
    place: str  # which part of the store
    reason: str
    cause: Literal["unreachable", "slow", "full", "refused"]
    since_ms: Moment  # Unix time

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by rate limiter."""
        return ("ratelimiter", "store", self.node)


class RatelimiterRecovered(Event, kind="ratelimiter.recovered", family=Family.ROUTER):
    """The store of counters is back and knows what was counted without it."""

    node: str
    place: str
    away_s: float
    merged: Annotated[int, Field(ge=0)]
    """Counters that had something to tell."""

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by rate limiter, so that it replaces the degradation."""
        return ("ratelimiter", "store", self.node)
