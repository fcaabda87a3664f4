"""What Envoy's status and response code details mean."""

import pytest

from analytics.outcome import Outcome, outcome_of

CASES = [
    (200, "via_upstream", True, Outcome.SERVED),
    (503, "via_upstream", True, Outcome.SERVED),  # the upstream's own answer
    (429, "via_upstream", True, Outcome.SERVED),
    (401, "via_upstream", True, Outcome.SERVED),
    (404, "via_upstream", True, Outcome.SERVED),
    (418, "direct_response", True, Outcome.SERVED),  # the policy `respond`
    (200, "cors_response", True, Outcome.SERVED),
    (401, "missing_api_key", True, Outcome.UNAUTHENTICATED),
    (401, "lua_response", True, Outcome.UNAUTHENTICATED),
    (403, "rbac_access_denied_matched_policy[none]", True, Outcome.FORBIDDEN),
    (429, "local_rate_limited", True, Outcome.LIMITED),
    (429, "request_rate_limited", True, Outcome.LIMITED),
    (413, "request_payload_too_large", True, Outcome.REJECTED),
    (422, "ext_proc_response", True, Outcome.REJECTED),
    (400, "path_normalization_failed", False, Outcome.REJECTED),
    (404, "route_not_found", False, Outcome.UNROUTED),
    (404, "direct_response", False, Outcome.UNROUTED),
    (503, "no_healthy_upstream", True, Outcome.UNAVAILABLE),
    (504, "response_timeout", True, Outcome.UNAVAILABLE),
    (503, "overload", False, Outcome.UNAVAILABLE),
    (0, "downstream_remote_disconnect", True, Outcome.ABANDONED),
    (0, "", False, Outcome.ABANDONED),
    (200, "downstream_remote_reset", True, Outcome.ABANDONED),
]


@pytest.mark.parametrize(("status", "details", "routed", "outcome"), CASES)
def test_outcome(status, details, routed, outcome):
    assert outcome_of(status, details, routed=routed) is outcome
