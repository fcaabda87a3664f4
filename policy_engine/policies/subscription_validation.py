"""subscription-validation."""

import re
from functools import lru_cache
from hashlib import sha256
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from policy_engine.lua import constants, lua, program
from policy_engine.parameters.headers import EditableHeaderName, caller
from policy_engine.policy import Document, HttpFilter, Policy, Refusal, Scope, Version
from policy_engine.rate_limits.headers import TOLD, one_voice
from policy_engine.rate_limits.plan_limits import (
    WATCHED_QUOTA_HEADER,
    WATCHED_SUBSCRIPTION_HEADER,
    limiters,
    telling,
    watchers,
)
from policy_engine.shadow import looking
from policy_engine.subscriptions import Subscriber

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
    says that they are only counted. With a rate limiter (tier Standard) all routers count
    together, in the minutes, hours, days and months of the calendar, whose time zone the plan says,
    or else the gateway. Without one, each router counts by itself: a limit fills evenly, a month
    has 30 days, and every change of the API or its subscriptions begins the count anew. What the
    upstream says of limits in `RateLimit` and `X-RateLimit-*` is taken off.
    """

    name: ClassVar[str] = "subscription-validation"
    version: ClassVar[Version] = Version(1, 0, 4)
    refusals: ClassVar[tuple[Refusal, ...]] = ()
    silenced: ClassVar[frozenset[str]] = TOLD
    example: ClassVar[Document] = {
        "subscriptionKeyHeader": "Subscription-Key",
        "subscriptionKeyCookie": "subscription",
    }

    enabled: bool = True
    """Off: everything passes."""

    subscription_key_header: EditableHeaderName = "Subscription-Key"
    """The name of the request header that holds the token."""

    subscription_key_cookie: Annotated[str, Field(max_length=128), AfterValidator(_cookie)] = ""
    """The name of the cookie that holds the token when the header is not there; empty: none."""

    def shadow(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """A `lua` filter that looks the subscription up, and what counts by its plan."""
        if not self.enabled:
            return ()
        name = scope.unique(self.name)
        counting = watchers(self.name, f"{name}.quota", scope)
        config = looking(
            self.name,
            _program("subscription_shadow.lua"),
            HEADER=self.subscription_key_header.lower(),
            COOKIE=self.subscription_key_cookie or None,
            SUBSCRIPTION=WATCHED_SUBSCRIPTION_HEADER if counting else None,
            QUOTA=WATCHED_QUOTA_HEADER if counting else None,
        )
        return (HttpFilter(name, _knowing(config, scope.subscriptions)), *counting)

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
        check = HttpFilter(f"{name}.check", _knowing(lua(source), scope.subscriptions))
        return (check, *_limits(name, scope))


@lru_cache(maxsize=64)
def _source(header: str, cookie: str | None, *, keep: bool) -> str:
    given = constants(HEADER=header, COOKIE=cookie, KEEP=keep)
    return given + _program("subscription_check.lua")


def _program(name: str) -> str:
    return "\n".join(program(one) for one in ("sha256.lua", "subscription_table.lua", name))


def _context(subscriptions: tuple[Subscriber, ...]) -> dict[str, str]:
    """What `subscription_table.lua` is made of; of several, the oldest one counts."""
    found: dict[str, str] = {}
    for one in subscriptions:
        quota = one.quota.plan if one.quota is not None and one.quota.stop else ""
        known = f"{one.id}\t{quota}\t{caller(one.application) if one.application else ''}"
        found.setdefault(f"t:{one.digest}", known)
        for name in one.callers:
            found.setdefault(f"a:{caller(name)}", known)
    return found


def _knowing(config: Document, subscriptions: tuple[Subscriber, ...]) -> Document:
    """A `lua` filter with states of its own for these subscriptions: they keep them in a table."""
    context = _context(subscriptions)
    identity = sha256(config["shared_vm_id"].encode())  # of its program
    for known in context.items():
        identity.update("\n".join(known).encode())
    own = {"shared_vm_id": f"subscriptions-{identity.hexdigest()[:32]}"}
    return config | own | {"filter_context": context}


def _limits(name: str, scope: Scope) -> tuple[HttpFilter, ...]:
    """What holds subscriptions to their plans, telling callers with one voice."""
    found = limiters(f"{name}.quota", scope)
    if not found:
        return ()
    *away, asked = found
    return (*away, *one_voice([asked], SubscriptionValidation.name, scope, telling(scope)))
