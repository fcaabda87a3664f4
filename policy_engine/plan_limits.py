"""What holds subscriptions to their plans, by two private headers that name plan and subscription.

Without a rate limiter each router counts by itself, in a bucket per subscription that fills
evenly. With one, all routers count together, in the periods of the calendar of
their time zone, over restarts
and changes of the API; the routers' own buckets hold while it is away.
"""

from collections.abc import Sequence

from policy_engine.headers import PRIVATE_PREFIX
from policy_engine.limits import Calendar, Limit, Told, WhenAway
from policy_engine.limits import Quota as SharedQuota
from policy_engine.policy import Document, HttpFilter, Scope, typed
from policy_engine.rate_limits.in_router import percent
from policy_engine.rate_limits.shared import asking, limit_entry
from policy_engine.subscriptions import UNIT_S, Quota, Unit

SUBSCRIPTION_HEADER = f"{PRIVATE_PREFIX}subscription"
"""By which subscription the caller came: its id, for later filters and the access log."""
QUOTA_HEADER = f"{PRIVATE_PREFIX}quota"
"""The id of the subscription's plan, if that refuses requests beyond its limit."""

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
    limited = [one.quota for one in scope.subscriptions if one.quota is not None and one.quota.stop]
    if not limited:
        return ()
    plans = {one.plan: one for one in limited}
    quotas = [plans[plan] for plan in sorted(plans)]
    if not scope.system.rate_limiter:
        return (HttpFilter(name, _in_each_router(quotas, len(limited), scope)),)
    shared = HttpFilter(name, _together(quotas, scope))
    if WhenAway(scope.system.ratelimit_when_away) is not WhenAway.LOCAL:
        return (shared,)
    away = _in_each_router(quotas, len(limited), scope, tells=False, windows=_WINDOWS)
    return (HttpFilter(f"{name}.away", away), shared)


def _in_each_router(
    quotas: Sequence[Quota],
    subscriptions: int,
    scope: Scope,
    *,
    tells: bool = True,
    windows: int = 1,
) -> Document:
    """`local_ratelimit`; `windows`: how many periods' worth a bucket holds."""
    headers = tells and scope.system.ratelimit_x_headers
    return typed(
        _LOCAL,
        {
            "stat_prefix": "subscription_validation",
            "filter_enabled": percent(100),
            "filter_enforced": percent(100),
            "enable_x_ratelimit_headers": "DRAFT_VERSION_03" if headers else "OFF",
            "enable_retry_after_header": scope.system.ratelimit_retry_after,
            "max_dynamic_descriptors": _buckets(subscriptions),
            "rate_limits": [
                {"actions": [_said(QUOTA_HEADER, "plan"), _said(SUBSCRIPTION_HEADER, "who")]}
            ],
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


def _together(quotas: Sequence[Quota], scope: Scope) -> Document:
    """`ratelimit`: one question per request, about the one plan that it comes by."""
    return asking(
        [
            {
                "actions": [
                    limit_entry(_shared(one, scope)),
                    _is(QUOTA_HEADER, one.plan),
                    _said(SUBSCRIPTION_HEADER, "who"),
                ]
            }
            for one in quotas
        ],
        scope,
    )


def _shared(quota: Quota, scope: Scope) -> SharedQuota:
    system = scope.system
    calendar = _CALENDAR.get(quota.unit)
    duration_s = 0.0 if calendar is not None else float(UNIT_S[quota.unit])
    time_zone = quota.time_zone or system.ratelimit_time_zone
    return SharedQuota(
        bucket="subscription",
        limits=(Limit(quota.limit, duration_s, 0, calendar, time_zone),),
        name="plan",
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
