"""retry."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from bus.resources.document import PositiveDuration, duration_s
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

_PREVIOUS_HOSTS = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
Reason = Literal["connect-failure", "refused-stream", "reset", "gateway-error", "5xx"]


def _a_millisecond(duration: str) -> str:
    if duration_s(duration) < 0.001:
        raise ValueError("must be at least 1ms")
    return duration


Pause = Annotated[PositiveDuration, AfterValidator(_a_millisecond)]


class BackOff(Parameters):
    """How long to wait between attempts: each pause up to twice as long as the one before."""

    base: Pause = "25ms"
    """The first pause at most; pauses are drawn by chance, so that callers do not come at once."""

    max: Pause = "250ms"
    """The longest pause."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if duration_s(self.max) < duration_s(self.base):
            raise ValueError("max must not be shorter than base")
        return self


class Retry(Policy):
    """Sends a request to the upstream again when it fails there.

    It takes the place of the gateway's own retries, which are for requests that never reached an
    upstream. All attempts together end with the API's timeout. Requests of any method are sent
    again: attach it where that does no harm. Of several the one that runs last decides.
    """

    name: ClassVar[str] = "retry"
    version: ClassVar[Version] = Version(1, 0, 0)
    purpose: ClassVar[Purpose] = "changes"
    example: ClassVar[Document] = {
        "attempts": 3,
        "retryOn": ["connect-failure", "gateway-error"],
        "perTryTimeout": "2s",
    }

    attempts: Annotated[int, Field(ge=1, le=10)] = 2
    """How often to try again after the first attempt."""

    retry_on: Annotated[tuple[Reason, ...], Field(max_length=5)] = (
        "connect-failure",
        "refused-stream",
        "reset",
    )
    """What counts as a failure: no connection, a stream refused or reset, a status 502 to 504
    (`gateway-error`), any status from 500 or no answer (`5xx`)."""

    statuses: Annotated[
        tuple[Annotated[int, Field(ge=400, le=599)], ...], Field(max_length=50)
    ] = ()
    """Further statuses that count as a failure."""

    per_try_timeout: Pause | None = None
    """How long one attempt may take; none by itself by default."""

    back_off: BackOff = BackOff()
    """How long to wait between attempts."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.retry_on or self.statuses):
            raise ValueError("retryOn or statuses is required")
        return self

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """None: the route tries again."""
        del scope
        return ()

    def route_fields(self, scope: Scope) -> Document:
        """Envoy's `retry_policy`."""
        del scope
        reasons = [*self.retry_on, *(("retriable-status-codes",) if self.statuses else ())]
        policy: Document = {
            "retry_on": ",".join(reasons),
            "num_retries": self.attempts,
            "retry_back_off": {
                "base_interval": f"{duration_s(self.back_off.base):.3f}s",
                "max_interval": f"{duration_s(self.back_off.max):.3f}s",
            },
            "host_selection_retry_max_attempts": 3,
            "retry_host_predicate": [
                {
                    "name": "envoy.retry_host_predicates.previous_hosts",
                    "typed_config": typed(_PREVIOUS_HOSTS),
                }
            ],
        }
        if self.statuses:
            policy["retriable_status_codes"] = list(self.statuses)
        if self.per_try_timeout is not None:
            policy["per_try_timeout"] = f"{duration_s(self.per_try_timeout):.3f}s"
        return {"retry_policy": policy}
