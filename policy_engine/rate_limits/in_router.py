"""Limits that each router holds by itself: Envoy's `local_ratelimit`, a bucket per key.

Buckets fill evenly, whatever the algorithm is called. They begin full, when a router starts and
when their API changes.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count

from policy_engine.policy import Document, HttpFilter, Scope, literal, typed
from policy_engine.rate_limits.headers import ietf, one_voice, refused_by, strictest, within_quotes
from policy_engine.rate_limits.keys import gate
from policy_engine.rate_limits.limits import Algorithm, Limit
from policy_engine.rate_limits.quota import Counted

_LIMITER = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
_QUOTA = "q"  # the key of the entry that tells limits of one filter apart


def _one_window(_: Limit) -> int:
    return 1


def percent(share: int) -> Document:
    """A fraction of requests."""
    return {"default_value": {"numerator": share, "denominator": "HUNDRED"}}


def limiters(
    name: str,
    quotas: Sequence[Counted],
    scope: Scope,
    *,
    marked: Document | None = None,
) -> list[HttpFilter]:
    """A filter per limit, called `name` with a number, the one that fills fastest first.

    So a request that a fast limit refuses takes nothing from a slow one: one filter for all would
    take from each. The other way round a fast limit loses only what it soon has again.
    """
    return [
        HttpFilter(f"{name}.{number}", limiter([one], scope, marked=marked))
        for number, one in enumerate(alone(quotas), start=1)
    ]


def limiter(
    quotas: Sequence[Counted],
    scope: Scope,
    *,
    marked: Document | None = None,
    tells: bool = True,
    enforced: bool = True,
    windows: Callable[[Limit], int] = _one_window,
) -> Document:
    """A `local_ratelimit` filter's configuration that holds all limits of `quotas`.

    `windows`: how many windows' worth a bucket of a window algorithm holds; 2 never refuses what
    the window itself would let pass. `marked`: a HeaderValueOption put on what it refuses.
    """
    numbers = count()
    rate_limits: list[Document] = []
    descriptors: list[Document] = []
    for one in quotas:
        for limit in one.limits:
            number = str(next(numbers))
            actions: list[Document] = [
                {"generic_key": {"descriptor_key": _QUOTA, "descriptor_value": number}}
            ]
            entries: list[Document] = [{"key": _QUOTA, "value": number}]
            fields: Document = {}
            if one.cost is not None:
                # Envoy's limiter refuses what costs nothing: it must not be asked
                actions.append(gate("cost", f"{one.cost.expression} > 0"))
                entries.append({"key": "cost", "value": "1"})
                fields["hits_addend"] = {"format": one.cost.hits}
            rate_limits.append({"actions": [*actions, *one.key.actions], **fields})
            descriptors.append(
                {
                    "entries": [*entries, *one.key.entries],
                    "token_bucket": _bucket(one, limit, windows(limit)),
                }
            )
    system = scope.system
    headers = tells and (system.ratelimit_x_headers or system.ratelimit_ietf_headers)
    named = refused_by(quotas[0].name, scope) if tells and len(quotas) == 1 else []
    added = [*named, *([] if marked is None else [marked])]
    return typed(
        _LIMITER,
        {
            "stat_prefix": "rate_limit",
            "filter_enabled": percent(100),
            "filter_enforced": percent(100 if enforced else 0),
            "enable_x_ratelimit_headers": "DRAFT_VERSION_03" if headers else "OFF",
            "enable_retry_after_header": system.ratelimit_retry_after,
            "max_dynamic_descriptors": system.ratelimit_memory_entries,
            "rate_limits": rate_limits,
            "descriptors": descriptors,
            **({"response_headers_to_add": added} if added else {}),
        },
    )


def told(
    filters: Sequence[HttpFilter], policy: str, quotas: Sequence[Counted], scope: Scope
) -> tuple[HttpFilter, ...]:
    """`filters`, which hold the limits of `quotas` as `alone` has them, telling with one voice."""
    system = scope.system
    limits = [(_name(one, quotas), one.limits[0]) for one in alone(quotas)]
    stated = None
    if system.ratelimit_ietf_headers:
        stated = ", ".join(
            f'"{name}";q={limit.limit};w={round(limit.window_s) or 1}' for name, limit in limits
        )
    counts_all = all(one.cost is None and not one.key.may_bypass for one in quotas)
    if len(filters) > 1 and (stated is not None or system.ratelimit_x_headers):
        return strictest(
            filters,
            policy,
            scope,
            policy=stated,
            names=[name for name, _ in limits] if counts_all else None,
            keep_x=system.ratelimit_x_headers,
        )
    only = limits[0][0] if counts_all else None
    edits = [] if stated is None else ietf(literal(stated), only, keep_x=system.ratelimit_x_headers)
    return one_voice(filters, policy, scope, edits)


def alone(quotas: Sequence[Counted]) -> list[Counted]:
    """Each limit as a quota of its own, the one that fills fastest first."""
    found = [replace(one, limits=(limit,)) for one in quotas for limit in one.limits]
    found.sort(key=lambda one: one.limits[0].limit / one.limits[0].window_s, reverse=True)
    return found


def _name(one: Counted, quotas: Sequence[Counted]) -> str:
    """What callers are told: the quota's name, or with its window behind if it has several."""
    several = any(len(quota.limits) > 1 for quota in quotas if quota.bucket == one.bucket)
    name = within_quotes(one.name)
    return f"{name}-{round(one.limits[0].window_s) or 1}s" if several else name


def _bucket(one: Counted, limit: Limit, windows: int) -> Document:
    burst = limit.capacity if one.algorithm is Algorithm.GCRA else limit.limit * windows
    return {
        "max_tokens": burst,
        "tokens_per_fill": limit.limit,
        "fill_interval": f"{limit.window_s:.3f}s",
    }
