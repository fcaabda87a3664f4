"""advanced-ratelimit."""

import json
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from policy_engine.errors import PolicyNotCompiled
from policy_engine.lua import constants, lua, program
from policy_engine.parameters.headers import PRIVATE_PREFIX
from policy_engine.policy import (
    Document,
    HttpFilter,
    Parameters,
    Policy,
    Refusal,
    Scope,
    Version,
)
from policy_engine.rate_limits import in_router
from policy_engine.rate_limits.costs import Cost
from policy_engine.rate_limits.headers import TOLD
from policy_engine.rate_limits.keys import Key, KeyPart
from policy_engine.rate_limits.limits import Algorithm
from policy_engine.rate_limits.quota import Backend, Counted, QuotaParameters
from policy_engine.rate_limits.together import bucket, shadowed, together
from policy_engine.shadow import counted

MARK = f"{PRIVATE_PREFIX}limited"
"""Put on an answer by the limiter that refused, taken off by the filter that words it."""

_TOO_MANY = {
    "error": "Too Many Requests",
    "message": "Rate limit exceeded. Please try again later.",
}


class Exceeded(Parameters):
    """The answer to requests beyond a limit."""

    status_code: Annotated[int, Field(ge=400, le=599)] = 429
    """Its status."""

    body: Annotated[str, Field(min_length=1, max_length=16_384)] = json.dumps(_TOO_MANY)
    """Its body."""

    body_format: Literal["json", "plain"] = "json"
    """What the body is: `json` or `plain` text."""


class AdvancedRatelimit(Policy):
    """Limits how much passes: per caller, address, token or whatever else tells requests apart.

    Every quota has its own key, its own limits and its own idea of what a request costs; all must
    hold. A cost that only the response tells is charged afterwards: the next request meets it.

    `backend` says who counts. `memory`: each router by itself, in Envoy; nearly free, but two
    routers let twice as much pass, and counts start anew when the API changes. `redis`: all routers
    together, exactly, for one question to the rate limiter per request. `redis-local-async`: all
    routers together, each from a share that follows demand; no question per request, and only
    refusals tell of limits. What shares cannot hold is counted as with `redis`: costs, limits below
    20, shadow mode, and everything where limits fail closed.
    """

    name: ClassVar[str] = "advanced-ratelimit"
    version: ClassVar[Version] = Version(1, 1, 2)
    refusals: ClassVar[tuple[Refusal, ...]] = (
        Refusal("request_rate_limited", 429, _TOO_MANY),
        Refusal(
            "rate_limiter_error",
            503,
            {
                "error": "Service Unavailable",
                "message": "Limits cannot be checked. Please try again later.",
            },
        ),
    )
    silenced: ClassVar[frozenset[str]] = TOLD
    counts: ClassVar[bool] = True
    example: ClassVar[Document] = {
        "quotas": [
            {
                "name": "per-user",
                "limits": [{"limit": 10, "duration": "1s"}, {"limit": 1000, "duration": "1h"}],
                "keyExtraction": [{"type": "header", "key": "X-User-ID"}],
            },
            {"name": "all", "limits": [{"limit": 10_000, "duration": "1m"}]},
        ],
        "onRateLimitExceeded": {"body": '{"code":"SLOW_DOWN"}'},
    }

    quotas: Annotated[tuple[QuotaParameters, ...], Field(min_length=1, max_length=10)]
    """What is limited; all quotas must hold."""

    key_extraction: Annotated[tuple[KeyPart, ...], Field(max_length=5)] = ()
    """Whom quotas count that do not say it themselves; without any, everybody together, for each
    route (`routename`)."""

    on_rate_limit_exceeded: Exceeded | None = None
    """The answer to what is refused; without it, 429 and a JSON body."""

    algorithm: Algorithm | None = None
    """`fixed-window`, `sliding-window` or `gcra` (a bucket that fills evenly, with `burst`);
    without it, as whoever runs the gateway says. `memory` knows the bucket only."""

    backend: Backend | None = None
    """Who counts: `memory`, `redis` or `redis-local-async`; without it, as whoever runs the gateway
    says."""

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """The limiter, with what words its answer and reads bodies before it."""
        backend = self.backend or scope.system.ratelimit_backend
        name = scope.unique(self.name)
        quotas = self._counted(scope)
        exceeded = self.on_rate_limit_exceeded
        marked = None if exceeded is None else {"header": {"key": MARK, "value": name}}
        before = _readers(name, quotas)
        if exceeded is not None:
            before.insert(0, HttpFilter(f"{name}.answer", _worded(name, exceeded, scope)))
        if backend != "memory":
            limiting = together(self.name, quotas, scope, name=name, backend=backend, marked=marked)
        else:
            self._only_what_a_router_can(quotas)
            limiters = in_router.limiters(name, quotas, scope, marked=marked)
            limiting = in_router.told(limiters, self.name, quotas, scope)
        return (*before, *limiting)

    def shadow(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """The same limiters, which count and refuse nothing."""
        backend = self.backend or scope.system.ratelimit_backend
        name = scope.unique(self.name)
        quotas = self._counted(scope)
        before = _readers(name, quotas)
        if backend != "memory":
            return (*before, *shadowed(self.name, quotas, scope, name=name))
        self._only_what_a_router_can(quotas)
        limiters = in_router.limiters(name, quotas, scope)
        return (*before, *(one for limiter in limiters for one in counted(self.name, limiter)))

    def _counted(self, scope: Scope) -> tuple[Counted, ...]:
        algorithm = self.algorithm or Algorithm(scope.system.ratelimit_algorithm)
        time_zone = scope.system.ratelimit_time_zone
        everybody = (KeyPart(type="routename"),)
        made = []
        for number, one in enumerate(self.quotas):
            key = Key(one.key_extraction or self.key_extraction or everybody, scope)
            extraction = one.cost_extraction
            slot = f"{scope.level}.{scope.taken(self.name)}.{number}"
            name = one.name or f"quota-{number + 1}"
            made.append(
                Counted(
                    name=name,
                    bucket=bucket(scope, self.name, name, key),
                    limits=tuple(limit.limit_of(time_zone) for limit in one.limits),
                    algorithm=algorithm,
                    key=key,
                    cost=Cost(extraction, scope, slot) if extraction.enabled else None,
                )
            )
        self._only_windows_of_a_calendar(made)
        return tuple(made)

    def _only_windows_of_a_calendar(self, counted: list[Counted]) -> None:
        for number, one in enumerate(counted):
            if one.algorithm is Algorithm.FIXED_WINDOW:
                continue
            if any(limit.calendar is not None for limit in one.limits):
                raise PolicyNotCompiled(
                    self.name,
                    f"quotas[{number}].limits: calendar periods need the algorithm fixed-window",
                    parameter=f"quotas[{number}].limits",
                )

    def _only_what_a_router_can(self, counted: tuple[Counted, ...]) -> None:
        for number, one in enumerate(counted):
            if one.cost is not None and one.cost.afterwards:
                raise PolicyNotCompiled(
                    self.name,
                    f"quotas[{number}].costExtraction: a cost that the response tells needs the"
                    " backend redis",
                    parameter=f"quotas[{number}].costExtraction",
                )
            if any(limit.calendar is not None for limit in one.limits):
                raise PolicyNotCompiled(
                    self.name,
                    f"quotas[{number}].limits: calendar needs the backend redis",
                    parameter=f"quotas[{number}].limits",
                )


def _readers(name: str, quotas: Sequence[Counted]) -> list[HttpFilter]:
    """What reads the bodies in which costs are told."""
    return [
        HttpFilter(f"{name}.cost{number}", bodies)
        for number, one in enumerate(quotas)
        if one.cost is not None and (bodies := one.cost.bodies) is not None
    ]


def _worded(name: str, exceeded: Exceeded, scope: Scope) -> Document:
    kind = "application/json" if exceeded.body_format == "json" else "text/plain"
    retry = scope.system.ratelimit_retry_after
    given = constants(
        MARK=MARK,
        FILTER=name,
        STATUS=str(exceeded.status_code),
        TYPE=kind,
        BODY=exceeded.body,
        RETRY=retry,
    )
    return lua(f"{given}{program('limit_answer.lua')}")
