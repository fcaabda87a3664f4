"""Shadow mode of policies that run in Envoy: what would be refused is reported, nothing else.

Reports are dynamic metadata, which the access log tells with each request: in `SHADOW_NAMESPACE`
the reason by policy, and in that of Envoy's `rbac` what its rules would have done.
"""

from collections.abc import Mapping
from typing import Any

from policy_engine.hooks import SHADOW_NAMESPACE
from policy_engine.lua import Value, constants, lua, program
from policy_engine.policy import Document, HttpFilter, typed
from policy_engine.rate_limits.limits import SHADOW_HEADER

RBAC_NAMESPACE = "envoy.filters.http.rbac"
RBAC_PREFIX = "signalbox_shadow/"
"""Keys are this, the policy, a slash, the filter, and one of the two endings."""

_RESULT, _RULE = "/shadow_engine_result", "/shadow_effective_policy_id"
_SET_METADATA = "envoy.extensions.filters.http.set_metadata.v3.Config"
_TO_METADATA = "envoy.extensions.filters.http.header_to_metadata.v3.Config"


def noting(policy: str, reason: str) -> Document:
    """A filter that reports every request."""
    return typed(
        _SET_METADATA,
        {
            "metadata": [
                {
                    "metadata_namespace": SHADOW_NAMESPACE,
                    "value": {policy: reason},
                    "allow_overwrite": True,
                }
            ]
        },
    )


def looking(policy: str, script: str, **given: Value) -> Document:
    """A `lua` filter whose `script` calls `report(handle, reason)`."""
    known = constants(NAMESPACE=SHADOW_NAMESPACE, POLICY=policy, **given)
    return lua(known + program("shadow_report.lua") + "\n" + script)


def watched(policy: str, one: HttpFilter) -> HttpFilter:
    """An `rbac` filter that refuses, as one that reports."""
    rules = {f"shadow_{key}": value for key, value in one.config.items() if key != "@type"}
    prefix = {"shadow_rules_stat_prefix": f"{RBAC_PREFIX}{policy}/{one.name}/"}
    return HttpFilter(one.name, {"@type": one.config["@type"], **rules, **prefix})


def counted(policy: str, limiter: HttpFilter) -> tuple[HttpFilter, HttpFilter]:
    """A `local_ratelimit` filter as one that counts, and what reports for it."""
    config = {
        key: value
        for key, value in limiter.config.items()
        if key not in ("enable_x_ratelimit_headers", "enable_retry_after_header")
    }
    config["filter_enforced"] = {"default_value": {"numerator": 0, "denominator": "HUNDRED"}}
    config["request_headers_to_add_when_not_enforced"] = [
        {
            "header": {"key": SHADOW_HEADER, "value": "1"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    ]
    return HttpFilter(limiter.name, config), limit_reported(policy, limiter.name)


def limit_reported(policy: str, limiter: str) -> HttpFilter:
    """What stands behind filter `limiter` and reports what that put in `SHADOW_HEADER`."""
    found: Document = {
        "metadata_namespace": SHADOW_NAMESPACE,
        "key": policy,
        "value": "rate limit exceeded",
    }
    rule = {"header": SHADOW_HEADER, "on_header_present": found, "remove": True}
    return HttpFilter(f"{limiter}.report", typed(_TO_METADATA, {"request_rules": [rule]}))


def reports(metadata: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Policies that would have refused, with their reasons, in dynamic `metadata` by namespace."""
    found: dict[str, str] = {}
    if RBAC_NAMESPACE in metadata:
        rules = metadata[RBAC_NAMESPACE]
        for key in rules:
            if not (key.startswith(RBAC_PREFIX) and key.endswith(_RESULT)):
                continue
            if rules[key] == "denied":
                policy = key.removeprefix(RBAC_PREFIX).partition("/")[0]
                rule = key.removesuffix(_RESULT) + _RULE
                found[policy] = str(rules[rule]) if rule in rules else "denied"
    if SHADOW_NAMESPACE in metadata:
        own = metadata[SHADOW_NAMESPACE]
        found |= {policy: str(own[policy]) for policy in own}
    return tuple(sorted(found.items()))
