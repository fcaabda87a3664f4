"""Limits that all routers hold together from shares: Envoy's `rate_limit_quota`.

A router asks nobody about a request. It counts from the share it was given; the rate limiter
balances shares by what routers report.
"""

from collections.abc import Sequence
from dataclasses import replace

from policy_engine.policy import Document, HttpFilter, Scope, typed
from policy_engine.rate_limits import in_router
from policy_engine.rate_limits.balanced_limits import (
    DOMAIN,
    LEAST,
    PROBE_ENTRY,
    QUOTAS_CLUSTER,
    capacity,
    fill,
    is_leased,
    rate_per_s,
)
from policy_engine.rate_limits.headers import within_quotes
from policy_engine.rate_limits.keys import Value
from policy_engine.rate_limits.limits import LIMIT_ENTRY, Hits, Limit, WhenAway, encode
from policy_engine.rate_limits.quota import Counted

_FILTER = "envoy.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaFilterConfig"
_BUCKET = "envoy.extensions.filters.http.rate_limit_quota.v3.RateLimitQuotaBucketSettings"
_SET_STATE = "envoy.extensions.filters.http.set_filter_state.v3.Config"
_STATE = "envoy.extensions.matching.common_inputs.network.v3.FilterStateInput"
_HEADER_INPUT = "envoy.type.matcher.v3.HttpRequestHeaderMatchInput"
_FRACTION = "envoy.extensions.matching.input_matchers.runtime_fraction.v3.RuntimeFraction"

_REPORTED_EVERY_S = 5  # whatever is asked
_RETRY_S = 5  # by then shares are balanced anew
_PROBES_PER_S = 40  # at the limit's own rate
_MILLION = 1_000_000
_KEPT_S = 30 * 86_400  # for how long a router goes on by itself


def can_balance(one: Counted, scope: Scope) -> bool:
    """Whether shares can hold the quota; otherwise each request must be asked about.

    Shares cannot follow costs, which only requests and answers tell; nor limits that are as small
    as a share; nor refuse what a router has not asked about yet.
    """
    closed = WhenAway(scope.system.ratelimit_when_away) is WhenAway.CLOSED
    return one.cost is None and not closed and all(limit.limit >= LEAST for limit in one.limits)


def limiters(
    name: str, quotas: Sequence[Counted], scope: Scope, *, marked: Document | None = None
) -> list[HttpFilter]:
    """The filters that hold `quotas`: one per limit, the one that fills fastest first.

    `marked`: a HeaderValueOption put on what they refuse. What tells callers apart is worked out
    once per quota, in filters before them; one header alone needs no working out.

    Behind them stands a ceiling, unless limits fail open: the whole limit in the router's own
    buckets. A router knows no share of a key that it meets while every rate limiter is away, and
    lets it pass; Envoy takes no limit for that (see `policy_engine.rate_limits.balanced_limits`).
    Whatever shares let pass is below the ceiling.
    """
    filters: list[HttpFilter] = []
    alone: list[tuple[Counted, str]] = []
    for number, one in enumerate(quotas):
        prefix = f"{name}.{number}"
        told = [value for value in one.key.values if value.fixed is None]
        if told and not (_is_alone(told) and told[0].header is not None):
            filters.append(HttpFilter(f"{name}.key{number}", _worked_out(told, prefix)))
        alone += [(replace(one, limits=(limit,)), prefix) for limit in one.limits]
    alone.sort(key=lambda pair: rate_per_s(pair[0].limits[0]), reverse=True)
    filters += [
        HttpFilter(f"{name}.share{number}", _limiter(one, prefix, scope, marked))
        for number, (one, prefix) in enumerate(alone)
    ]
    if quotas and WhenAway(scope.system.ratelimit_when_away) is WhenAway.LOCAL:
        ceiling = in_router.limiter(
            [one for one, _ in alone], scope, marked=marked, tells=False, windows=_windows
        )
        filters.append(HttpFilter(f"{name}.ceiling", ceiling))
    return filters


def _windows(limit: Limit) -> int:
    """A rate fills as its shares do; a portion may be all of a window, at its end and beginning."""
    return 2 if is_leased(limit) else 1


def _worked_out(values: Sequence[Value], prefix: str) -> Document:
    """Parts of the key, as filter state: what a request lacks has a value, too."""
    states: list[Document] = []
    for value in values:
        stands_in = [value.missing] if value.missing is not None and not _is_alone(values) else []
        texts = [*(stands_in if value.pattern is None else []), value.format]
        states += [
            {
                "object_key": f"{prefix}.{value.entry}",
                "factory_key": "envoy.string",
                "format_string": {
                    "text_format_source": {"inline_string": text},
                    "omit_empty_values": True,
                },
                "skip_if_empty": True,
            }
            for text in texts
        ]
    return typed(_SET_STATE, {"on_request_headers": states})


def _is_alone(values: Sequence[Value]) -> bool:
    """Whether a bucket of its own is simpler than a value that stands for a part's absence."""
    return len(values) == 1 and values[0].missing is not None and values[0].pattern is None


def _limiter(one: Counted, prefix: str, scope: Scope, marked: Document | None) -> Document:
    (limit,) = one.limits
    quota = one.quota(
        scope,
        Hits.CONSUME,
        when_away=WhenAway(scope.system.ratelimit_when_away),
        shadow=False,
    )
    entries: dict[str, Document] = {LIMIT_ENTRY: {"string_value": encode(quota)}}
    gates: list[Document] = []
    told = [value for value in one.key.values if value.fixed is None]
    alone = _is_alone(told)
    for value in one.key.values:
        if value.fixed is not None:
            entries[value.entry] = {"string_value": value.fixed}
            continue
        found = _found(f"{prefix}.{value.entry}")
        if value.header is not None and alone:
            found = _header(value.header)
        entries[value.entry] = {"custom_value": found}
        if value.pattern is not None:
            entries[value.gate] = {"string_value": "1"}
            gates.append(_single(found, value.pattern))
    settings = _settings(entries, _away(one, scope), _refusal(one, scope, marked))
    matchers: list[Document] = []
    if not is_leased(limit):
        seen = min(_MILLION, max(1, round(_PROBES_PER_S / rate_per_s(limit) * _MILLION)))
        probe = _settings({**entries, PROBE_ENTRY: {"string_value": str(seen)}}, {}, {})
        some = _all_of([*gates, _sometimes(seen)])
        matchers.append({"predicate": some, "on_match": {"keep_matching": True, "action": probe}})
    otherwise = settings
    if gates:
        matchers.append({"predicate": _all_of(gates), "on_match": {"action": settings}})
    elif alone:
        (value,) = told
        there = _single(entries[value.entry]["custom_value"], "")
        matchers.append({"predicate": there, "on_match": {"action": settings}})
        lacking = {**entries, value.entry: {"string_value": value.missing}}
        otherwise = _settings(lacking, _away(one, scope), _refusal(one, scope, marked))
    return typed(
        _FILTER,
        {
            "domain": DOMAIN,
            "rlqs_server": {"envoy_grpc": {"cluster_name": QUOTAS_CLUSTER}},
            "bucket_matchers": {
                **({"matcher_list": {"matchers": matchers}} if matchers else {}),
                **({} if gates else {"on_no_match": {"action": otherwise}}),
            },
        },
    )


def _settings(entries: Document, away: Document, refusal: Document) -> Document:
    return {
        "name": "bucket",
        "typed_config": typed(
            _BUCKET,
            {
                "bucket_id_builder": {"bucket_id_builder": entries},
                "reporting_interval": f"{_REPORTED_EVERY_S}s",
                **away,
                **({"deny_response_settings": refusal} if refusal else {}),
            },
        ),
    }


def _away(one: Counted, scope: Scope) -> Document:
    """What holds once the rate limiter has not been heard for a while: the limit in each router."""
    if WhenAway(scope.system.ratelimit_when_away) is not WhenAway.LOCAL:
        return {}
    (limit,) = one.limits
    tokens, interval_s = fill(rate_per_s(limit))
    return {
        "expired_assignment_behavior": {
            "expired_assignment_behavior_timeout": f"{_KEPT_S}s",
            "fallback_rate_limit": {
                "token_bucket": {
                    "max_tokens": capacity(limit.limit),
                    "tokens_per_fill": tokens,
                    "fill_interval": f"{interval_s}s",
                }
            },
        }
    }


def _refusal(one: Counted, scope: Scope, marked: Document | None) -> Document:
    """What callers are told who are refused: the limit; when, nobody knows exactly."""
    (limit,) = one.limits
    system = scope.system
    window_s = max(1, round(limit.window_s))
    wait_s = min(window_s, _RETRY_S)
    headers: dict[str, str] = {}
    if system.ratelimit_x_headers:
        headers |= {
            "x-ratelimit-limit": str(limit.limit),
            "x-ratelimit-remaining": "0",
            "x-ratelimit-reset": str(wait_s),
            "x-ratelimit-quota": one.name,
        }
    if system.ratelimit_ietf_headers:
        name = within_quotes(one.name)  # no format strings here
        headers["ratelimit-policy"] = f'"{name}";q={limit.limit};w={window_s}'
        headers["ratelimit"] = f'"{name}";r=0;t={wait_s}'
    if system.ratelimit_retry_after:
        headers["retry-after"] = str(wait_s)
    added = [{"header": {"key": key, "value": value}} for key, value in headers.items()]
    return {"response_headers_to_add": [*added, *([] if marked is None else [marked])]}


def _found(key: str) -> Document:
    return {"name": "part", "typed_config": typed(_STATE, {"key": key})}


def _header(name: str) -> Document:
    return {"name": "header", "typed_config": typed(_HEADER_INPUT, {"header_name": name})}


def _single(found: Document, pattern: str) -> Document:
    """True where `pattern` is found anywhere in the text; false where there is no text."""
    expression = f"(?s).*(?:{pattern}).*" if pattern else "(?s).*"
    anywhere = {"google_re2": {}, "regex": expression}
    return {"single_predicate": {"input": found, "value_match": {"safe_regex": anywhere}}}


def _sometimes(millionths: int) -> Document:
    """True for that share of requests, by their id, which is as good as random."""
    share = {"default_value": {"numerator": millionths, "denominator": "MILLION"}}
    return {
        "single_predicate": {
            "input": _header("x-request-id"),
            "custom_match": {
                "name": "share",
                "typed_config": typed(_FRACTION, {"runtime_fraction": share}),
            },
        }
    }


def _all_of(predicates: Sequence[Document]) -> Document:
    if len(predicates) == 1:
        return predicates[0]
    return {"and_matcher": {"predicate": list(predicates)}}
