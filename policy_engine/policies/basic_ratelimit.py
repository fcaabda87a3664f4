"""basic-ratelimit."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from bus.resources.document import PositiveDuration, duration_s
from policy_engine.headers import header_mutation
from policy_engine.policy import (
    Document,
    HttpFilter,
    Parameters,
    Policy,
    Refusal,
    Scope,
    Version,
    typed,
)

_LIMITER = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
_SHORTEST_S = 0.05  # Envoy fills its buckets no faster
_ALWAYS = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
_TOLD = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")


def _long_enough(duration: str) -> str:
    if duration_s(duration) < _SHORTEST_S:
        raise ValueError("must be at least 50ms")
    return duration


class Limit(Parameters):
    """So many requests in so much time."""

    requests: Annotated[int, Field(ge=1, le=1_000_000_000)]
    """How many requests may pass at once, and how many more in each `duration`."""

    duration: Annotated[PositiveDuration, AfterValidator(_long_enough)]
    """The time in which a used-up limit is full again, such as `1s`, `1m`, `1h`; at least `50ms`.
    It fills evenly, not at once at the end."""

    @property
    def rate_per_s(self) -> float:
        """How fast it fills."""
        return self.requests / duration_s(self.duration)


class BasicRatelimit(Policy):
    """Limits how many requests pass, whoever sends them, counted in each router by itself.

    Attached to an API, one count serves all its operations; attached to an operation, the operation
    has its own. All limits must hold. Answers tell how much is left of the slowest one.
    """

    name: ClassVar[str] = "basic-ratelimit"
    version: ClassVar[Version] = Version(1, 1, 1)
    refusals: ClassVar[tuple[Refusal, ...]] = (
        Refusal(
            "local_rate_limited",
            429,
            {
                "error": "Too Many Requests",
                "message": "Rate limit exceeded. Please try again later.",
            },
        ),
    )
    example: ClassVar[Document] = {
        "limits": [{"requests": 10, "duration": "1s"}, {"requests": 300, "duration": "1m"}]
    }

    limits: Annotated[tuple[Limit, ...], Field(min_length=1, max_length=10)]
    """The limits; a request must be within all of them."""

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One `local_ratelimit` per limit, the one that fills fastest first.

        So a request that a fast limit refuses takes nothing from a slow one; the other way round
        a fast limit loses only what it soon has again.
        """
        innermost = not scope.repeats(self.name)
        ordered = sorted(self.limits, key=lambda limit: limit.rate_per_s, reverse=True)
        filters = [HttpFilter(scope.unique(self.name), _limiter(limit)) for limit in ordered]
        if len(filters) > 1 or not innermost:
            filters.insert(0, HttpFilter(scope.unique(f"{self.name}.told"), _INNERMOST_TELLS))
        if innermost:
            filters.append(HttpFilter(scope.unique(f"{self.name}.upstream"), _UPSTREAM_IS_SILENT))
        return tuple(filters)


_UPSTREAM_IS_SILENT = header_mutation(response=[{"remove": name} for name in _TOLD])

# Each limiter adds headers of its own; responses meet the last filter of a chain first, and
# `%RESP()%` is the first value of a header.
_INNERMOST_TELLS = header_mutation(
    response=[
        {
            "append": {
                "header": {"key": name, "value": f"%RESP({name})%"},
                "append_action": "OVERWRITE_IF_EXISTS",
            }
        }
        for name in _TOLD
    ]
)


def _limiter(limit: Limit) -> Document:
    return typed(
        _LIMITER,
        {
            "stat_prefix": "basic_ratelimit",
            "token_bucket": {
                "max_tokens": limit.requests,
                "tokens_per_fill": limit.requests,
                "fill_interval": f"{duration_s(limit.duration):.3f}s",
            },
            "filter_enabled": _ALWAYS,
            "filter_enforced": _ALWAYS,
            "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
            "enable_retry_after_header": True,
        },
    )
