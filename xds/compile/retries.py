"""Retries that are safe for any method: only what provably never reached the upstream."""

from typing import Any

from policy_engine.policy import typed

Document = dict[str, Any]

_PREVIOUS_HOSTS = "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"


def retry_policy(retries: int, *, several: bool) -> Document:
    """Envoy's RetryPolicy; with `several` endpoints a retry goes to another one."""
    policy: Document = {
        "retry_on": "connect-failure,refused-stream,reset-before-request",
        "num_retries": retries,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
    }
    if several:
        policy["host_selection_retry_max_attempts"] = 3
        policy["retry_host_predicate"] = [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": typed(_PREVIOUS_HOSTS),
            }
        ]
    return policy
