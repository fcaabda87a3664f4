"""What never changes in the headers about a quota.

draft-ietf-httpapi-ratelimit-headers-10: each limit is a policy with a name of its own.
"""

from policy_engine.rate_limits.limits import Quota
from ratelimiter.counters import Rule


def names(quota: Quota, rules: tuple[Rule, ...]) -> tuple[str, ...]:
    """A structured-field string for each rule: the quota's name, made distinct where needed."""
    if len(rules) == 1:
        return (_quoted(quota.name),)
    return tuple(_quoted(f"{quota.name}-{_window(rule)}") for rule in rules)


def policies(quota: Quota, rules: tuple[Rule, ...]) -> str:
    """The quota's items of `RateLimit-Policy`: `"name";q=<hits>;w=<seconds>` for each rule."""
    return ", ".join(
        f"{name};q={rule.hits};w={max(1, round(rule.limit.window_s))}"
        for name, rule in zip(names(quota, rules), rules, strict=True)
    )


def _window(rule: Rule) -> str:
    if rule.limit.calendar is not None:
        return rule.limit.calendar.value
    return f"{rule.limit.duration_s:g}s"


def _quoted(text: str) -> str:
    """RFC 9651, section 3.3.3."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
