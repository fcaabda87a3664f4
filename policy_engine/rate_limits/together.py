"""Limits that all routers of a gateway hold together, and what holds when they cannot ask."""

from collections.abc import Sequence
from hashlib import sha256

from policy_engine.errors import PolicyNotCompiled
from policy_engine.policy import Document, HttpFilter, Scope
from policy_engine.rate_limits import balanced, in_router, shared
from policy_engine.rate_limits.headers import one_voice
from policy_engine.rate_limits.keys import Key
from policy_engine.rate_limits.limits import WhenAway
from policy_engine.rate_limits.quota import Backend, Counted
from policy_engine.shadow import limit_reported

_WINDOWS = 2  # a bucket of so many never refuses what a fixed window lets pass


def together(
    policy: str,
    counted: Sequence[Counted],
    scope: Scope,
    *,
    name: str,
    backend: Backend = "redis",
    marked: Document | None = None,
) -> tuple[HttpFilter, ...]:
    """The filters of `policy` for shared limits; `name` is that of the one that asks.

    With `redis-local-async`, quotas that shares can hold are held by shares; there is always a way
    for the others. Raises PolicyNotCompiled.
    """
    _needs_rate_limiter(policy, scope)
    if backend == "redis-local-async":
        shares = [one for one in counted if balanced.can_balance(one, scope)]
        asked = [one for one in counted if one not in shares]
        filters = balanced.limiters(name, shares, scope, marked=marked)
        return (*filters, *(_asking(policy, asked, scope, name, marked) if asked else ()))
    return _asking(policy, counted, scope, name, marked)


def _asking(
    policy: str, counted: Sequence[Counted], scope: Scope, name: str, marked: Document | None
) -> tuple[HttpFilter, ...]:
    away: list[HttpFilter] = []
    known = [one for one in counted if one.cost is None or not one.cost.afterwards]
    if known and WhenAway(scope.system.ratelimit_when_away) is WhenAway.LOCAL:
        bucket_of_router = in_router.limiter(
            known, scope, marked=marked, tells=False, windows=lambda _: _WINDOWS
        )
        away = [HttpFilter(f"{name}.away", bucket_of_router)]
    caller = shared.caller(counted, scope, marked=marked)
    return (*away, *one_voice([HttpFilter(name, caller)], policy, scope))


def shadowed(
    policy: str, counted: Sequence[Counted], scope: Scope, *, name: str
) -> tuple[HttpFilter, ...]:
    """As `together`, but what would be refused is only reported. Raises PolicyNotCompiled."""
    _needs_rate_limiter(policy, scope)
    caller = HttpFilter(name, shared.caller(counted, scope, shadow=True))
    return (caller, limit_reported(policy, name))


def bucket(scope: Scope, policy: str, quota: str, key: Key) -> str:
    """What a quota counts, apart from its key: the same after any change of the API.

    To be asked once the policy has its unique name.
    """
    place = scope.api_id
    if scope.level == "operation" and not key.of_the_api:
        place += f" {scope.operation_method} {scope.operation_path}"
    digest = sha256(key.identity.encode()).hexdigest()[:8]
    return f"{place} {scope.level} {policy} {scope.taken(policy)} {quota} {digest}".replace(
        "%", "_"
    )


def _needs_rate_limiter(policy: str, scope: Scope) -> None:
    if not scope.system.rate_limiter:
        reason = "backend: this gateway has no rate limiter, only memory; tier standard has one"
        raise PolicyNotCompiled(policy, reason, parameter="backend")
