"""fault-injection."""

from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from bus.resources.document import PositiveDuration, duration_s
from policy_engine.lua import program
from policy_engine.policy import (
    Document,
    HttpFilter,
    Parameters,
    Policy,
    Purpose,
    Scope,
    Version,
    typed,
)
from policy_engine.shadow import looking

_FILTER = "envoy.extensions.filters.http.fault.v3.HTTPFault"
_LONGEST_S = 300
Percentage = Annotated[float, Field(gt=0, le=100)]


def _not_too_long(duration: str) -> str:
    if not 0.001 <= duration_s(duration) <= _LONGEST_S:
        raise ValueError("must be between 1ms and 5m")
    return duration


class Delay(Parameters):
    """Requests that wait."""

    duration: Annotated[PositiveDuration, AfterValidator(_not_too_long)]
    """How long each waits before it goes on, such as `200ms`; at most `5m`."""

    percentage: Percentage = 100.0
    """How many requests wait, percent."""


class Abort(Parameters):
    """Requests that fail."""

    status_code: Annotated[int, Field(ge=400, le=599)]
    """The status of the answer, with the gateway's own words for it."""

    percentage: Percentage = 100.0
    """How many requests fail, percent; of those that are delayed too, after their delay."""


class FaultInjection(Policy):
    """Delays requests or lets them fail, to see what callers make of it.

    Requests are drawn by chance, each for itself, for the delay and for the failure.
    """

    name: ClassVar[str] = "fault-injection"
    version: ClassVar[Version] = Version(1, 0, 0)
    purpose: ClassVar[Purpose] = "answers"
    example: ClassVar[Document] = {"delay": {"duration": "5ms", "percentage": 50.0}}

    delay: Delay | None = None
    """Which requests wait, and how long."""

    abort: Abort | None = None
    """Which requests fail, and how."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.delay is None and self.abort is None:
            raise ValueError("delay or abort is required")
        return self

    def shadow(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One `lua` filter that draws; delays refuse nothing."""
        if self.abort is None:
            return ()
        config = looking(
            self.name,
            program("fault_shadow.lua"),
            PER_MILLION=round(self.abort.percentage * 10_000),
            REASON=f"fails with {self.abort.status_code}",
        )
        return (HttpFilter(scope.unique(self.name), config),)

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One `fault` filter."""
        faults: Document = {}
        if self.delay is not None:
            faults["delay"] = {
                "fixed_delay": f"{duration_s(self.delay.duration):.3f}s",
                "percentage": _fraction(self.delay.percentage),
            }
        if self.abort is not None:
            faults["abort"] = {
                "http_status": self.abort.status_code,
                "percentage": _fraction(self.abort.percentage),
            }
        return (HttpFilter(scope.unique(self.name), typed(_FILTER, faults)),)


def _fraction(percentage: float) -> Document:
    return {"numerator": round(percentage * 10_000), "denominator": "MILLION"}
