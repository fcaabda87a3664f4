"""What policies in shadow mode would have refused: from the access log to reports and metrics."""

from typing import Any

from prometheus_client import REGISTRY

from analytics.aggregation import Aggregation
from analytics.batch import requests_served
from analytics.metrics import RequestMetrics
from analytics.ports import Row
from analytics.totals import fold
from bus.usage import RequestsServed
from xds.wire.messages import build

MESSAGE = "envoy.service.accesslog.v3.StreamAccessLogsMessage"


def served(*metadata: dict[str, Any]) -> RequestsServed:
    """The event of requests with this dynamic metadata."""
    log_entry = [
        {
            "common_properties": {
                "route_name": "GET|/orders|*|orders",
                "metadata": {"filter_metadata": one},
            },
            "response": {"response_code": 200},
        }
        for one in metadata
    ]
    message = build(MESSAGE, {"http_logs": {"log_entry": log_entry}})
    return requests_served("router", message.http_logs.log_entry)


def of_rbac(policy: str, result: str, rule: str = "deny") -> dict[str, str]:
    prefix = f"signalbox_shadow/{policy}/api.{policy}/"
    return {
        f"{prefix}shadow_engine_result": result,
        f"{prefix}shadow_effective_policy_id": rule,
    }


RBAC, OWN = "envoy.filters.http.rbac", "signalbox.shadow"


def test_reports_of_filters_are_told_by_group_with_their_reasons() -> None:
    event = served(
        {},
        {"envoy.filters.http.jwt_authn": {"payload": {"sub": "ann"}}},
        {OWN: {"word-count-guardrail": "3 words {not 4}", "csrf": "no origin"}},
        {RBAC: of_rbac("jwt-auth", "denied", "claims") | of_rbac("ip-filter", "allowed")},
        {RBAC: {"shadow_engine_result": "denied"}},
    )
    assert [event.groups[at].shadow for at in event.group] == [
        (),
        (),
        ("csrf: no origin", "word-count-guardrail: 3 words "),
        ("jwt-auth: claims",),
        (),
    ]


def test_they_are_counted_by_policy_and_are_no_refusals() -> None:
    both = {RBAC: of_rbac("ip-filter", "denied"), OWN: {"csrf": "no origin"}}
    totals = fold(served({}, both, both, {OWN: {"csrf": "origin mismatch"}}))

    def counted(policy: str) -> float:
        labels = {"policy": policy}
        return REGISTRY.get_sample_value("signalbox_requests_shadow_total", labels) or 0.0

    before = counted("csrf"), counted("ip-filter")
    RequestMetrics(apis_max=0).add(totals)
    assert (counted("csrf"), counted("ip-filter")) == (before[0] + 3, before[1] + 2)
    report = Aggregation(("shadow",))
    for (minute, series), total in totals.items():
        report.add(Row(minute, 1, series, total))
    assert {line.names["shadow"]: line.requests for line in report.lines()} == {
        "": 1,
        "csrf": 1,
        "csrf,ip-filter": 2,
    }
    assert (report.total().would_refuse, report.total().refused) == (3, 0)
