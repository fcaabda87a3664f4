"""Limits whose routers count by themselves, from shares that the rate limiter balances.

Envoy's quota service (RLQS): a router says what passed and what it refused, the rate limiter says
how much each may let pass. The id of a bucket has the entries that a descriptor of Envoy's rate
limit call would have (`policy_engine.rate_limits.limits`), the quota with one limit first: so a
limit is known by the same counter whichever way it is kept.

What Envoy 1.40 does with assignments, all of which was tried:

* Token buckets fill continuously, at tokens_per_fill per *whole seconds* of fill_interval: less
  than a second is no limit at all.
* A token bucket in `no_assignment_behavior` ends the process.
* Reports come every 5 s whatever is asked, and at once for a bucket that is new. A bucket that is
  *previewed* (`keep_matching`) counts and never refuses: abandoned again and again, it tells when
  requests come. That is what buckets with `PROBE_ENTRY` are for.
"""

from policy_engine.rate_limits.limits import Limit

QUOTAS_CLUSTER = "quotas"
"""Envoy's name for the quota service."""

DOMAIN = "signalbox"

PROBE_ENTRY = "probe"
"""An entry of buckets that only tell how often requests come; its value is the share of requests
that they see, in millionths."""

LEASED_ABOVE_S = 10.0
"""Limits for longer than this are given out in portions; others as a rate."""

LEAST = 20
"""Smaller limits cannot be shared out: a router's share would be a few requests."""

BURST = 0.15
"""What a router may let pass at once of a rate: this share of its limit."""

FILL_S = 1_000
_TOKENS_MAX = 2**32 - 1


def rate_per_s(limit: Limit) -> float:
    """How much the limit lets pass, on the long run."""
    return limit.limit / limit.window_s


def is_leased(limit: Limit) -> bool:
    """Whether the limit is given out in portions, not as a rate."""
    return limit.window_s > LEASED_ABOVE_S


def fill(per_s: float) -> tuple[int, int]:
    """Tokens and whole seconds in which a bucket gets them: as near as can be to `per_s`."""
    interval_s = FILL_S
    while per_s * interval_s > _TOKENS_MAX and interval_s > 1:
        interval_s //= 10
    return min(_TOKENS_MAX, max(1, round(per_s * interval_s))), interval_s


def capacity(tokens: float) -> int:
    """The size of a bucket for so many tokens: a whole number that Envoy takes."""
    return min(_TOKENS_MAX, max(1, int(tokens)))
