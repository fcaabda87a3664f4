"""circuit-breaker."""

from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from bus.resources.document import PositiveDuration, duration_s
from policy_engine.policy import (
    Connections,
    Document,
    HttpFilter,
    Parameters,
    Policy,
    Purpose,
    Refusal,
    Scope,
    Version,
)

Count = Annotated[int, Field(ge=1, le=1_000_000)]
Percent = Annotated[int, Field(ge=1, le=100)]


def _a_millisecond(duration: str) -> str:
    if duration_s(duration) < 0.001:
        raise ValueError("must be at least 1ms")
    return duration


Period = Annotated[PositiveDuration, AfterValidator(_a_millisecond)]


class OutlierDetection(Parameters):
    """When an endpoint of the upstream is left alone for a while."""

    consecutive_5xx: Count | None = Field(default=None, alias="consecutive5xx")
    """Answers from 500 in a row, failed connections and timeouts among them, after which an
    endpoint is left alone."""

    consecutive_gateway_errors: Count | None = None
    """The same for 502, 503 and 504, failed connections and timeouts."""

    interval: Period = "10s"
    """How often is looked whether an endpoint may come back."""

    base_ejection_time: Period = "30s"
    """How long an endpoint is left alone the first time; twice as long the second time, and so
    on."""

    max_ejection_time: Period = "5m"
    """The longest time that an endpoint is left alone."""

    max_ejection_percent: Percent = 100
    """How many of the endpoints may be left alone at the same time, in percent."""

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.consecutive_5xx is None and self.consecutive_gateway_errors is None:
            raise ValueError("needs consecutive5xx or consecutiveGatewayErrors")
        if duration_s(self.max_ejection_time) < duration_s(self.base_ejection_time):
            raise ValueError("maxEjectionTime must not be shorter than baseEjectionTime")
        return self


class CircuitBreaker(Policy):
    """Spares an upstream that is overloaded or broken: callers get 503 at once instead of waiting.

    What is over a limit is answered 503 with `Retry-After: 1`, and so is every request while all
    endpoints are left alone. Limits count in each router, over all routes that lead to the same
    upstream with the same parameters; routes without the policy have connections of their own. Of
    several policies the one that runs last decides, limit by limit.
    """

    name: ClassVar[str] = "circuit-breaker"
    version: ClassVar[Version] = Version(1, 0, 0)
    purpose: ClassVar[Purpose] = "changes"
    refusals: ClassVar[tuple[Refusal, ...]] = (
        Refusal(
            "upstream_reset_before_response_started{overflow}",
            503,
            {
                "error": "Service Unavailable",
                "message": "The upstream has too much to do. Please try again later.",
            },
            headers=(("retry-after", "1"),),
        ),
        Refusal(
            "no_healthy_upstream",
            503,
            {
                "error": "Service Unavailable",
                "message": "The upstream is not available. Please try again later.",
            },
            headers=(("retry-after", "1"),),
        ),
    )
    example: ClassVar[Document] = {
        "maxConnections": 100,
        "maxPendingRequests": 50,
        "maxRequests": 200,
        "outlierDetection": {"consecutive5xx": 5, "interval": "5s", "baseEjectionTime": "15s"},
    }

    max_connections: Count | None = None
    """Connections to the upstream at the same time; without HTTP/2 each serves one request."""

    max_pending_requests: Count | None = None
    """Requests that wait for a connection at the same time."""

    max_requests: Count | None = None
    """Requests that are being served at the same time, over HTTP/2; over HTTP/1.1 connections and
    waiting requests limit them."""

    max_retries: Count | None = None
    """Retries at the same time; without it, a fifth of the requests, at least 3."""

    outlier_detection: OutlierDetection | None = None
    """When an endpoint of the upstream is left alone for a while."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self._limits() and self.outlier_detection is None:
            raise ValueError(
                "one of maxConnections, maxPendingRequests, maxRequests, maxRetries and "
                "outlierDetection is required"
            )
        return self

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """None: the connections to the upstream have limits."""
        del scope
        return ()

    def connections(self) -> Connections:
        """Thresholds and outlier detection of the upstream's cluster."""
        outliers = None if self.outlier_detection is None else _outliers(self.outlier_detection)
        return Connections(limits=self._limits(), outliers=outliers)

    def _limits(self) -> Document:
        limits = {
            "max_connections": self.max_connections,
            "max_pending_requests": self.max_pending_requests,
            "max_requests": self.max_requests,
            "max_retries": self.max_retries,
        }
        return {name: limit for name, limit in limits.items() if limit is not None}


def _outliers(wanted: OutlierDetection) -> Document:
    document: Document = {
        "interval": f"{duration_s(wanted.interval):.3f}s",
        "base_ejection_time": f"{duration_s(wanted.base_ejection_time):.3f}s",
        "max_ejection_time": f"{duration_s(wanted.max_ejection_time):.3f}s",
        "max_ejection_percent": wanted.max_ejection_percent,
        "enforcing_success_rate": 0,
    }
    for name, count in (
        ("consecutive_5xx", wanted.consecutive_5xx),
        ("consecutive_gateway_failure", wanted.consecutive_gateway_errors),
    ):
        document[name] = count or 0
        document[f"enforcing_{name}"] = 100 if count else 0
    return document
