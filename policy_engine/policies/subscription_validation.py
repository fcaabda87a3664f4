"""subscription-validation."""

import re
from functools import lru_cache
from hashlib import sha256
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from policy_engine.headers import PRIVATE_PREFIX, EditableHeaderName, caller, header_mutation
from policy_engine.lua import constants, lua, program
from policy_engine.policy import (
    Document,
    HttpFilter,
    Policy,
    Refusal,
    Scope,
    Version,
    typed,
)
from policy_engine.shadow import looking
from policy_engine.subscriptions import UNIT_S, Quota, Subscriber

SUBSCRIPTION_HEADER = f"{PRIVATE_PREFIX}subscription"
"""By which subscription the caller came: its id, for later filters and the access log."""
QUOTA_HEADER = f"{PRIVATE_PREFIX}quota"
"""The id of the subscription's plan, if that refuses requests beyond its limit."""

_LIMITER = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
_ALWAYS = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
_FEWEST_BUCKETS = 64
_TOLD = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")
_COOKIE = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]*")


def _cookie(name: str) -> str:
    if not _COOKIE.fullmatch(name):
        raise ValueError(f"{name!r} is not the name of a cookie")
    return name


class SubscriptionValidation(Policy):
    """Lets only requests pass that come by an active subscription to this API.

    The subscription is found by the token in a header, else by the token in a cookie, else by the
    application that an earlier policy has verified (`api-key-auth`, `jwt-auth`, `basic-auth`). A
    token that is presented must be good: nothing else is looked at then. It is taken off the
    request before it is forwarded.

    Subscriptions that are suspended or revoked, or whose plan is inactive or has expired, are
    refused with 403. Requests beyond the limit of the plan are refused with 429, unless the plan
    says that they are only counted.
    """

    name: ClassVar[str] = "subscription-validation"
    version: ClassVar[Version] = Version(1, 0, 3)
    refusals: ClassVar[tuple[Refusal, ...]] = ()
    example: ClassVar[Document] = {
        "subscriptionKeyHeader": "Subscription-Key",
        "subscriptionKeyCookie": "subscription",
    }

    enabled: bool = True
    """Off: everything passes, as if the policy were not there."""

    subscription_key_header: EditableHeaderName = "Subscription-Key"
    """The name of the request header that holds the token."""

    subscription_key_cookie: Annotated[str, Field(max_length=128), AfterValidator(_cookie)] = ""
    """The name of the cookie that holds the token when the header is not there; empty: none."""

    def shadow(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One `lua` filter that looks the subscription up; limits of plans are not looked at."""
        if not self.enabled:
            return ()
        config = looking(
            self.name,
            program("sha256.lua") + "\n" + program("subscription_shadow.lua"),
            HEADER=self.subscription_key_header.lower(),
            COOKIE=self.subscription_key_cookie or None,
        )
        context = {"filter_context": _context(scope.subscriptions)}
        return (HttpFilter(scope.unique(self.name), config | context),)

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """`lua` finds the subscription or refuses; then what limits it."""
        if not self.enabled:
            return ()
        name = scope.unique(self.name)
        source = _source(
            self.subscription_key_header.lower(),
            self.subscription_key_cookie or None,
            keep=scope.level == "api" or scope.repeats(self.name),  # an operation may ask again
        )
        check = HttpFilter(f"{name}.check", _check(source, _context(scope.subscriptions)))
        return (check, *_limits(name, scope))


@lru_cache(maxsize=64)
def _source(header: str, cookie: str | None, *, keep: bool) -> str:
    given = constants(HEADER=header, COOKIE=cookie, KEEP=keep)
    return f"{given}{program('sha256.lua')}\n{program('subscription_check.lua')}"


def _context(subscriptions: tuple[Subscriber, ...]) -> dict[str, str]:
    """What `subscription_check.lua` looks things up in; of several, the oldest one counts."""
    found: dict[str, str] = {}
    for one in subscriptions:
        quota = one.quota.plan if one.quota is not None and one.quota.stop else ""
        known = f"{one.id}\t{quota}\t{caller(one.application) if one.application else ''}"
        found.setdefault(f"t:{one.digest}", known)
        for name in one.callers:
            found.setdefault(f"a:{caller(name)}", known)
    return found


def _check(source: str, context: dict[str, str]) -> Document:
    """`lua` with states of its own for these subscriptions: they keep them in a table."""
    identity = sha256(source.encode())
    for known in context.items():
        identity.update("\n".join(known).encode())
    own = {"shared_vm_id": f"subscriptions-{identity.hexdigest()[:32]}"}
    return lua(source) | own | {"filter_context": context}


def _limits(name: str, scope: Scope) -> tuple[HttpFilter, ...]:
    """The filters that hold subscriptions to their plans, by the two private headers."""
    limited = [one.quota for one in scope.subscriptions if one.quota is not None and one.quota.stop]
    if not limited:
        return ()
    quotas = {one.plan: one for one in limited}
    limiter = _in_each_router([quotas[plan] for plan in sorted(quotas)], len(limited))
    quota = HttpFilter(f"{name}.quota", limiter)
    if any("ratelimit" in one for one in (*scope.attached, *scope.below)):
        return (HttpFilter(f"{name}.told", _INNERMOST_TELLS), quota)
    return (quota, HttpFilter(f"{name}.upstream", _UPSTREAM_IS_SILENT))


_UPSTREAM_IS_SILENT = header_mutation(response=[{"remove": name} for name in _TOLD])

# Another limiter may add the same headers; responses meet the last filter of a chain first, and
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


def _in_each_router(quotas: list[Quota], subscriptions: int) -> Document:
    """Each router counts by itself: a bucket per subscription, which fills evenly."""
    return typed(
        _LIMITER,
        {
            "stat_prefix": "subscription_validation",
            "filter_enabled": _ALWAYS,
            "filter_enforced": _ALWAYS,
            "enable_x_ratelimit_headers": "DRAFT_VERSION_03",
            "enable_retry_after_header": True,
            "max_dynamic_descriptors": _buckets(subscriptions),
            "rate_limits": [
                {
                    "actions": [
                        _by_header(QUOTA_HEADER, "plan"),
                        _by_header(SUBSCRIPTION_HEADER, "subscription"),
                    ]
                }
            ],
            "descriptors": [
                {
                    "entries": [{"key": "plan", "value": one.plan}, {"key": "subscription"}],
                    "token_bucket": {
                        "max_tokens": one.limit,
                        "tokens_per_fill": one.limit,
                        "fill_interval": f"{UNIT_S[one.unit]}s",
                    },
                }
                for one in quotas
            ],
        },
    )


def _by_header(header: str, key: str) -> Document:
    return {"request_headers": {"header_name": header, "descriptor_key": key}}


def _buckets(subscriptions: int) -> int:
    """A power of two with room for as many again: it changes seldom."""
    return max(_FEWEST_BUCKETS, 1 << (2 * subscriptions - 1).bit_length())
