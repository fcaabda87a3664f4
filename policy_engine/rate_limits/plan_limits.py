"""What holds subscriptions to their plans, by two private headers that name plan and subscription.

Without a rate limiter each router counts by itself, in a bucket per subscription that fills
evenly. With one, all routers count together, in the periods of the calendar of their time zone,
over restarts and changes of the API; the routers' own buckets hold while it is away.
"""

from collections.abc import Sequence

from policy_engine.parameters.headers import PRIVATE_PREFIX, header_mutation
from policy_engine.policy import Document, HttpFilter, Scope, typed
from policy_engine.rate_limits.headers import ietf, refused_by
from policy_engine.rate_limits.in_router import percent
from policy_engine.rate_limits.limits import Calendar, Limit, Told, WhenAway
from policy_engine.rate_limits.limits import Quota as SharedQuota
from policy_engine.rate_limits.shared import asking, limit_entry
from policy_engine.shadow import counted, limit_reported
from policy_engine.subscriptions import UNIT_S, Quota, Unit

SUBSCRIPTION_HEADER = f"{PRIVATE_PREFIX}subscription"
"""By which subscription the caller came: its id, for later filters and the access log."""
QUOTA_HEADER = f"{PRIVATE_PREFIX}quota"
"""The id of the subscription's plan, if that refuses requests beyond its limit."""

WATCHED_SUBSCRIPTION_HEADER = f"{PRIVATE_PREFIX}shadow-subscription"
WATCHED_QUOTA_HEADER = f"{PRIVATE_PREFIX}shadow-quota"
"""The same of a subscription that is only looked at, for the limiters behind and nobody else."""
NAME = "plan"
"""How callers are told of the limit of a plan."""

_LOCAL = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
_FEWEST_BUCKETS = 64
_WINDOWS = 2  # a bucket of so many never refuses what a period of the calendar lets pass
_CALENDAR: dict[Unit, Calendar] = {
    "Hour": Calendar.HOUR,
    "Day": Calendar.DAY,
    "Month": Calendar.MONTH,
}


def limiters(name: str, scope: Scope) -> tuple[HttpFilter, ...]:
    """The filters for all plans that refuse; `name` is that of the last one."""
    quotas, limited = _refusing(scope)
    if not quotas:
        return ()
    if not scope.system.rate_limiter:
        return (HttpFilter(name, _in_each_router(quotas, limited, scope)),)
    shared = HttpFilter(name, _together(quotas, scope))
    if WhenAway(scope.system.ratelimit_when_away) is not WhenAway.LOCAL:
        return (shared,)
    away = _in_each_router(quotas, limited, scope, tells=False, windows=_WINDOWS)
    return (HttpFilter(f"{name}.away", away), shared)


def watchers(policy: str, name: str, scope: Scope) -> tuple[HttpFilter, ...]:
    """The filters that count what `limiters` would, apart from it, and report what they refuse.

    By `WATCHED_SUBSCRIPTION_HEADER` and `WATCHED_QUOTA_HEADER`, which are taken off behind them.
    """
    quotas, limited = _refusing(scope)
    if not quotas:
        return ()
    if scope.system.rate_limiter:
        shared = HttpFilter(name, _together(quotas, scope, watched=True))
        made = (shared, limit_reported(policy, name))
    else:
        local = _in_each_router(quotas, limited, scope, tells=False, watched=True)
        made = counted(policy, HttpFilter(name, local))
    off: list[Document] = [
        {"remove": WATCHED_SUBSCRIPTION_HEADER},
        {"remove": WATCHED_QUOTA_HEADER},
    ]
    return (*made, HttpFilter(f"{name}.off", header_mutation(off)))


def _refusing(scope: Scope) -> tuple[list[Quota], int]:
    """The plans that refuse, each once, and how many subscriptions there are to them."""
    limited = [one.quota for one in scope.subscriptions if one.quota is not None and one.quota.stop]
    plans = {one.plan: one for one in limited}
    return [plans[plan] for plan in sorted(plans)], len(limited)


def telling(scope: Scope) -> list[Document]:
    """Edits of the response that tell in the current draft's headers what a router counts itself.

    The window is told where it is that of all plans: Envoy does not say by which one came.
    """
    system = scope.system
    if system.rate_limiter or not system.ratelimit_ietf_headers:
        return []
    units = {
        one.quota.unit for one in scope.subscriptions if one.quota is not None and one.quota.stop
    }
    window = f";w={UNIT_S[units.pop()]}" if len(units) == 1 else ""
    stated = f'"{NAME}";q=%RESP(x-ratelimit-limit)%{window}'
    return ietf(stated, NAME, keep_x=system.ratelimit_x_headers)


def _in_each_router(
    quotas: Sequence[Quota],
    subscriptions: int,
    scope: Scope,
    *,
    tells: bool = True,
    windows: int = 1,
    watched: bool = False,
) -> Document:
    """`local_ratelimit`; `windows`: how many periods' worth a bucket holds."""
    plan, who = _headers(watched=watched)
    system = scope.system
    headers = tells and (system.ratelimit_x_headers or system.ratelimit_ietf_headers)
    named = refused_by(NAME, scope) if tells else []
    return typed(
        _LOCAL,
        {
            "stat_prefix": "subscription_validation",
            "filter_enabled": percent(100),
            "filter_enforced": percent(100),
            "enable_x_ratelimit_headers": "DRAFT_VERSION_03" if headers else "OFF",
            "enable_retry_after_header": system.ratelimit_retry_after,
            **({"response_headers_to_add": named} if named else {}),
            "max_dynamic_descriptors": _buckets(subscriptions),
            "rate_limits": [{"actions": [_said(plan, "plan"), _said(who, "who")]}],
            "descriptors": [
                {
                    "entries": [{"key": "plan", "value": one.plan}, {"key": "who"}],
                    "token_bucket": {
                        "max_tokens": one.limit * windows,
                        "tokens_per_fill": one.limit,
                        "fill_interval": f"{UNIT_S[one.unit]}s",
                    },
                }
                for one in quotas
            ],
        },
    )


def _together(quotas: Sequence[Quota], scope: Scope, *, watched: bool = False) -> Document:
    """`ratelimit`: one question per request, about the one plan that it comes by."""
    plan, who = _headers(watched=watched)
    return asking(
        [
            {
                "actions": [
                    limit_entry(_shared(one, scope, watched=watched)),
                    _is(plan, one.plan),
                    _said(who, "who"),
                ]
            }
            for one in quotas
        ],
        scope,
        shadow=watched,
    )


def _headers(*, watched: bool) -> tuple[str, str]:
    """The headers that name the plan and the subscription."""
    if watched:
        return WATCHED_QUOTA_HEADER, WATCHED_SUBSCRIPTION_HEADER
    return QUOTA_HEADER, SUBSCRIPTION_HEADER


def _shared(quota: Quota, scope: Scope, *, watched: bool) -> SharedQuota:
    system = scope.system
    calendar = _CALENDAR.get(quota.unit)
    duration_s = 0.0 if calendar is not None else float(UNIT_S[quota.unit])
    time_zone = quota.time_zone or system.ratelimit_time_zone
    return SharedQuota(
        bucket="subscription shadow" if watched else "subscription",
        limits=(Limit(quota.limit, duration_s, 0, calendar, time_zone),),
        name=NAME,
        shadow=watched,
        when_away=WhenAway(system.ratelimit_when_away),
        told=Told(
            x_ratelimit=system.ratelimit_x_headers,
            ietf=system.ratelimit_ietf_headers,
            retry_after=system.ratelimit_retry_after,
        ),
        api=scope.api_id,
        tells_key=True,
    )


def _said(header: str, key: str) -> Document:
    return {"request_headers": {"header_name": header, "descriptor_key": key}}


def _is(header: str, value: str) -> Document:
    """An entry for requests with that header only; others are not asked about."""
    match = {"name": header, "string_match": {"exact": value}}
    return {
        "header_value_match": {
            "descriptor_key": "plan",
            "descriptor_value": value.replace("%", "_"),
            "expect_match": True,
            "headers": [match],
        }
    }


def _buckets(subscriptions: int) -> int:
    """A power of two with room for as many again: it changes seldom."""
    return max(_FEWEST_BUCKETS, 1 << (2 * subscriptions - 1).bit_length())
