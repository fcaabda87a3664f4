"""Headers in usage events, as entries of the access log tell them."""

from typing import Any

import pytest
from pydantic import ValidationError

from analytics.batch import requests_served
from bus.usage import RequestsServed
from xds.settings import XdsSettings
from xds.wire.messages import build

MESSAGE = "envoy.service.accesslog.v3.StreamAccessLogsMessage"


def served(*entries: dict[str, Any]) -> RequestsServed:
    """The event of entries with these `request` and `response` headers, and `said` of policies."""
    log_entry = [
        {
            "common_properties": {
                "metadata": {"filter_metadata": {"signalbox.analytics": one.get("said", {})}}
            },
            "request": {"request_headers": one.get("request", {})},
            "response": {"response_headers": one.get("response", {})},
        }
        for one in entries
    ]
    message = build(MESSAGE, {"http_logs": {"log_entry": log_entry}})
    return requests_served("router", message.http_logs.log_entry)


OURS = {"x-signalbox-application": "shop", "x-signalbox-subscription": "s"}


def test_who_calls_is_no_header_that_is_recorded() -> None:
    event = served({"request": OURS}, {})
    assert (event.request_headers, event.request_header_set) == ((), ())


def test_equal_sets_are_told_once_and_those_before_the_first_are_empty() -> None:
    agent, plain = {"user-agent": "a"}, {"content-type": "text/plain"}
    event = served(
        {}, {"request": OURS}, {"request": agent | OURS}, {"response": plain}, {"request": agent}
    )
    assert event.request_headers == ({}, agent)
    assert event.request_header_set == (0, 0, 1, 0, 1)
    assert event.response_headers == ({}, plain)
    assert event.response_header_set == (0, 0, 0, 1, 0)


def test_long_values_are_cut_off() -> None:
    event = served({"request": {"user-agent": "x" * 5000}})
    assert event.request_headers == ({"user-agent": "x" * 1024},)


def test_every_use_of_the_policy_must_let_a_header_through() -> None:
    said = {
        "api.analytics-header-filter": {"request": {"mode": "deny", "headers": ["a"]}},
        "operation.analytics-header-filter": {
            "request": {"mode": "allow", "headers": ["a", "b"]},
            "response": {"mode": "deny", "headers": ["c"]},
        },
    }
    event = served(
        {"request": {"a": "1", "b": "2", "d": "4"}, "response": {"c": "3"}, "said": said}
    )
    assert event.request_headers == ({"b": "2"},)
    assert event.response_headers == ({},)


def test_columns_that_do_not_fit_are_refused() -> None:
    event = served({"request": {"a": "1"}}).model_dump()
    for wrong in ({"request_header_set": (1,)}, {"request_header_set": (0, 0)}):
        with pytest.raises(ValidationError, match="request_header_set does not fit"):
            RequestsServed.model_validate(event | wrong)


@pytest.mark.parametrize(
    "name", ["Authorization", "cookie", "X-API-Key", "Subscription-Key", "X-Auth-Token", "host"]
)
def test_headers_that_hold_secrets_cannot_be_recorded(name: str) -> None:
    with pytest.raises(ValidationError):
        XdsSettings(usage_request_headers=(name,))
    assert XdsSettings(usage_request_headers=("User-Agent",)).usage_request_headers == (
        "user-agent",
    )
