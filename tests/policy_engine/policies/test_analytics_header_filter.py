from collections.abc import Iterable
from typing import Any

import pytest

from bus.usage import RequestsServed
from policy_engine.errors import InvalidParameters
from policy_engine.policies.analytics_header_filter import AnalyticsHeaderFilter
from tests.analytics.receiving import receiving, until
from tests.policy_engine.attached import CATALOGUE, policy
from tests.policy_engine.python_gateway import python_api, ref
from tests.servers.http_backend import Answer, http_backend
from tests.xds.routing import router
from xds.access_log import access_log_config

REQUEST = ("user-agent", "accept", "x-plan")
RESPONSE = ("content-type", "x-internal-cost")
HTTP2 = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
Headers = list[tuple[dict[str, str], dict[str, str]]]


def collector(port: int) -> dict[str, Any]:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address}}]}
    options = {
        "@type": f"type.googleapis.com/{HTTP2}",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    return {
        "name": "access-log",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "access-log", "endpoints": [endpoint]},
        "typed_extension_protocol_options": {HTTP2: options},
    }


async def recorded(
    policies: Iterable[Any] = (),
    operation: Iterable[Any] = (),
    *,
    request: Iterable[str] = REQUEST,
    response: Iterable[str] = RESPONSE,
) -> Headers:
    """What usage events tell of a request and its answer, the way through Envoy."""
    said = Answer(200, (("content-type", "text/plain"), ("x-internal-cost", "7")), b"x")
    async with receiving(access_log_port=0) as (bus, listening), http_backend() as backend:
        backend.answer = lambda _: said
        api = python_api(tuple(policies), {"GET /items": tuple(operation)}, backend.url)
        async with router(
            api,
            catalogue=CATALOGUE,
            access_log=access_log_config("access-log", request, response),
            more_clusters=[collector(listening.port)],
        ) as running:
            headers = {"User-Agent": "ua", "Accept": "text/*", "X-Plan": "gold", "X-Other": "o"}
            answer = await running.get("/items", headers=headers)
            assert (answer.status_code, answer.headers["x-internal-cost"]) == (200, "7")
            assert backend.last.header("x-plan") == "gold"
            await until(lambda: bus.events(RequestsServed))
    (event,) = bus.events(RequestsServed)
    if not event.request_header_set:
        assert event.request_headers == event.response_headers == event.response_header_set == ()
        return []
    return [
        (event.request_headers[asked], event.response_headers[answered])
        for asked, answered in zip(event.request_header_set, event.response_header_set, strict=True)
    ]


async def test_without_a_setting_nothing_is_recorded() -> None:
    assert await recorded(request=(), response=()) == []


async def test_without_the_policy_what_the_gateway_is_set_to_is_recorded() -> None:
    assert await recorded() == [
        (
            {"user-agent": "ua", "accept": "text/*", "x-plan": "gold"},
            {"content-type": "text/plain", "x-internal-cost": "7"},
        )
    ]


async def test_the_example_does_what_it_says() -> None:
    example = ref("analytics-header-filter", **AnalyticsHeaderFilter.example)
    assert await recorded([example]) == [({"user-agent": "ua"}, {"content-type": "text/plain"})]


async def test_what_stands_at_both_levels_must_both_let_a_header_through() -> None:
    above = ref("analytics-header-filter", request={"mode": "deny", "headers": ["ACCEPT"]})
    twice = [
        ref("analytics-header-filter", request={"mode": "allow", "headers": ["Accept", "X-Plan"]}),
        ref("analytics-header-filter", response={"mode": "allow", "headers": ["X-Other"]}),
    ]
    assert await recorded([above], twice) == [({"x-plan": "gold"}, {})]


async def test_an_empty_list_says_nothing() -> None:
    empty = ref("analytics-header-filter", request={"mode": "allow"}, response={"mode": "deny"})
    ((asked, answered),) = await recorded([empty])
    assert (set(asked), set(answered)) == (set(REQUEST), set(RESPONSE))


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({}, ""),
        ({"request": {"headers": ["a"]}}, "request.mode"),
        ({"request": {"mode": "some"}}, "request.mode"),
        ({"response": {"mode": "deny", "headers": ["a b"]}}, "response.headers[0]"),
    ],
)
def test_wrong_parameters_are_told_by_their_path(params: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidParameters) as caught:
        policy("analytics-header-filter", **params)
    assert [fault.path for fault in caught.value.faults] == [path]
