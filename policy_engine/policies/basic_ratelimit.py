"""basic-ratelimit."""

from typing import Annotated, ClassVar

from pydantic import Field

from bus.resources.document import duration_s
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
from policy_engine.rate_limits.headers import TOLD, refused_by
from policy_engine.rate_limits.in_router import percent, told
from policy_engine.rate_limits.keys import Key
from policy_engine.rate_limits.limits import Algorithm
from policy_engine.rate_limits.limits import Limit as CountedLimit
from policy_engine.rate_limits.quota import Backend, Counted, Window
from policy_engine.rate_limits.together import bucket, shadowed, together
from policy_engine.shadow import counted

_TOO_MANY = {
    "error": "Too Many Requests",
    "message": "Rate limit exceeded. Please try again later.",
}
_NAME = "default"  # of its one quota, as callers are told
_LIMITER = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"


class Limit(Parameters):
    """So many requests in so much time."""

    requests: Annotated[int, Field(ge=1, le=1_000_000_000)]
    """How many requests may pass at once, and how many more in each `duration`."""

    duration: Window
    """The time in which a used-up limit is full again, such as `1s`, `1m`, `1h`; at least `50ms`.
    Counted in a router, it fills evenly, not at once at the end."""

    @property
    def rate_per_s(self) -> float:
        """How fast it fills."""
        return self.requests / duration_s(self.duration)


class BasicRatelimit(Policy):
    """Limits how many requests pass, whoever sends them.

    Attached to an API, one count serves all its operations; attached to an operation, the operation
    has its own. All limits must hold. Answers tell how much is left of the one with the least.
    Preflights that `cors` answers are not counted, unless they meet another policy behind the
    limit.
    """

    name: ClassVar[str] = "basic-ratelimit"
    version: ClassVar[Version] = Version(1, 1, 1)
    refusals: ClassVar[tuple[Refusal, ...]] = (
        Refusal("local_rate_limited", 429, _TOO_MANY),
        Refusal("rate_limited_by_quota", 429, _TOO_MANY),
    )
    silenced: ClassVar[frozenset[str]] = TOLD
    counts: ClassVar[bool] = True
    example: ClassVar[Document] = {
        "limits": [{"requests": 10, "duration": "1s"}, {"requests": 300, "duration": "1m"}]
    }

    limits: Annotated[tuple[Limit, ...], Field(min_length=1, max_length=10)]
    """The limits; a request must be within all of them."""

    backend: Backend | None = None
    """Who counts: each router by itself (`memory`), all together by one question per request
    (`redis`), or all together from balanced shares (`redis-local-async`); without it, as whoever
    runs the gateway says."""

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """In the router, one `local_ratelimit` per limit, the one that fills fastest first.

        So a request that a fast limit refuses takes nothing from a slow one; the other way round
        a fast limit loses only what it soon has again.
        """
        backend = self.backend or scope.system.ratelimit_backend
        if backend != "memory":
            name = scope.unique(self.name)
            return together(self.name, [self._counted(scope)], scope, name=name, backend=backend)
        ordered = sorted(self.limits, key=lambda limit: limit.rate_per_s, reverse=True)
        filters = [HttpFilter(scope.unique(self.name), _limiter(one, scope)) for one in ordered]
        return told(filters, self.name, [self._counted(scope)], scope)

    def shadow(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """The same limiters, which count and refuse nothing."""
        backend = self.backend or scope.system.ratelimit_backend
        if backend != "memory":
            name = scope.unique(self.name)
            return shadowed(self.name, [self._counted(scope)], scope, name=name)
        limiters = [
            HttpFilter(scope.unique(self.name), _limiter(one, scope)) for one in self.limits
        ]
        return tuple(one for limiter in limiters for one in counted(self.name, limiter))

    def _counted(self, scope: Scope) -> Counted:
        key = Key((), scope)
        return Counted(
            name=_NAME,
            bucket=bucket(scope, self.name, "default", key),
            limits=tuple(
                CountedLimit(one.requests, duration_s(one.duration)) for one in self.limits
            ),
            algorithm=Algorithm(scope.system.ratelimit_algorithm),
            key=key,
            cost=None,
        )


def _limiter(limit: Limit, scope: Scope) -> Document:
    system = scope.system
    tells = system.ratelimit_x_headers or system.ratelimit_ietf_headers
    named = refused_by(_NAME, scope)
    return typed(
        _LIMITER,
        {
            "stat_prefix": "basic_ratelimit",
            "token_bucket": {
                "max_tokens": limit.requests,
                "tokens_per_fill": limit.requests,
                "fill_interval": f"{duration_s(limit.duration):.3f}s",
            },
            "filter_enabled": percent(100),
            "filter_enforced": percent(100),
            "enable_x_ratelimit_headers": "DRAFT_VERSION_03" if tells else "OFF",
            "enable_retry_after_header": system.ratelimit_retry_after,
            **({"response_headers_to_add": named} if named else {}),
        },
    )
