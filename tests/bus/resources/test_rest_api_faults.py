"""The literal messages of the public contract, on the right fields."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from bus.resources.faults import InvalidResource, parse
from bus.resources.rest_api import RestApi

Document = dict[str, Any]

GOOD: Document = {
    "apiVersion": "gateway.api-platform.wso2.com/v1",
    "kind": "RestApi",
    "metadata": {"name": "weather-v1.0", "labels": {"team": "sky"}},
    "spec": {
        "displayName": "Weather API",
        "version": "v1.0",
        "context": "/weather/$version",
        "upstreamDefinitions": [
            {
                "name": "pool",
                "basePath": "/base",
                "timeout": {"connect": "500ms"},
                "upstreams": [
                    {"url": "http://one.example.com:8080", "weight": 80},
                    {"url": "https://two.example.com", "weight": 20},
                ],
            }
        ],
        "upstream": {
            "main": {"url": "https://api.example.com/v2", "hostRewrite": "manual"},
            "sandbox": {"ref": "pool"},
        },
        "vhosts": {"main": "api.example.com;*.example.org", "sandbox": "sandbox.example.com"},
        "policies": [{"name": "cors", "version": "v1", "params": {"allowedOrigins": ["*"]}}],
        "resilience": {"timeout": "30s", "idleTimeout": "0s"},
        "operations": [
            {"method": "GET", "path": "/{country}/{city}"},
            {"method": "POST", "path": "/alerts/*"},
            {
                "match": {
                    "method": "GET",
                    "path": {"value": "/beta", "type": "PathPrefix"},
                    "headers": [{"name": "x-v", "value": "b.*", "type": "RegularExpression"}],
                }
            },
        ],
    },
}


def changed(path: str, value: object) -> Document:
    """GOOD with the field at `path` (dots and numbers) replaced, or removed by Ellipsis."""
    document = copy.deepcopy(GOOD)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    parent: Any = document
    for part in parents:
        parent = parent[part]
    if value is ...:
        del parent[last]
    else:
        parent[last] = value
    return document


def faults(document: Document) -> list[tuple[str, str]]:
    with pytest.raises(InvalidResource) as caught:
        parse(RestApi, document)
    return [(fault.field, fault.message) for fault in caught.value.faults]


def test_everything_an_api_can_say_is_accepted() -> None:
    api = parse(RestApi, GOOD)
    assert api.id == "weather-v1.0"
    assert api.rendered().spec.context == "/weather/v1.0"


@pytest.mark.parametrize(
    ("path", "value", "field", "message"),
    [
        ("spec.context", ..., "spec.context", "Context is required"),
        ("spec.context", "", "spec.context", "Context is required"),
        ("spec.operations", ..., "spec.operations", "At least one operation is required"),
        ("spec.operations", [], "spec.operations", "At least one operation is required"),
        ("metadata.name", ..., "metadata.name", "Metadata name is required"),
        ("metadata.name", "", "metadata.name", "Metadata name is required"),
        ("spec.displayName", ..., "spec.displayName", "Display name is required"),
        ("spec.upstream.main", ..., "spec.upstream.main", "Main is required"),
        (
            "spec.upstream.main.url",
            "ftp://api.example.com",
            "spec.upstream.main.url",
            "Upstream URL must use http or https scheme",
        ),
        (
            "spec.upstreamDefinitions.0.upstreams.1.url",
            "ws://two.example.com",
            "spec.upstreamDefinitions[0].upstreams[1].url",
            "URL must use http or https scheme",
        ),
        (
            "spec.upstreamDefinitions.0.upstreams.0.url",
            "http://one.example.com?x=1",
            "spec.upstreamDefinitions[0].upstreams[0].url",
            "URL must not include a query string",
        ),
        (
            "spec.upstreamDefinitions.0.upstreams.0.url",
            "http://one.example.com#x",
            "spec.upstreamDefinitions[0].upstreams[0].url",
            "URL must not include a fragment",
        ),
        ("spec.surprise", 1, "spec.surprise", "Unknown field"),
        ("spec.display_name", "x", "spec.display_name", "Unknown field"),
        (
            "spec.operations.0.path",
            7,
            "spec.operations[0].path",
            "Invalid type. Expected: string, given: integer",
        ),
        (
            "spec.operations",
            {"method": "GET"},
            "spec.operations",
            "Invalid type. Expected: array, given: object",
        ),
        (
            "spec.operations.0",
            {"path": "/x"},
            "spec.operations[0].method",
            "Operation method is required",
        ),
        (
            "spec.operations.0",
            {"method": "GET"},
            "spec.operations[0].path",
            "Operation path is required",
        ),
    ],
)
def test_a_fault_is_named_with_its_field(
    path: str, value: object, field: str, message: str
) -> None:
    assert faults(changed(path, value)) == [(field, message)]


@pytest.mark.parametrize(
    ("path", "value", "field", "part"),
    [
        ("spec.version", "v1.0.0-beta", "spec.version", "semantic versioning pattern"),
        ("spec.version", "v1.0\n", "spec.version", "semantic versioning pattern"),
        ("spec.version", "v\u0661", "spec.version", "semantic versioning pattern"),
        ("spec.displayName", "a" * 101, "spec.displayName", "at most 100 characters"),
        ("spec.displayName", "a/b", "spec.displayName", "may only hold"),
        ("spec.displayName", "a\n", "spec.displayName", "may only hold"),
        ("spec.context", "weather", "spec.context", "must start with '/'"),
        ("spec.context", "/weather/", "spec.context", "must not end with '/'"),
        ("spec.context", "/" + "a" * 200, "spec.context", "at most 200"),
        ("spec.context", "/a/../b", "spec.context", "'.' and '..'"),
        ("spec.context", "/_gateway-health/x", "spec.context", "reserved prefix"),
        (
            "spec.upstreamDefinitions.0.upstreams.0.url",
            "http://one.example.com/path",
            "spec.upstreamDefinitions[0].upstreams[0].url",
            "must not include a path",
        ),
        (
            "spec.upstreamDefinitions.0.upstreams",
            [],
            "spec.upstreamDefinitions[0].upstreams",
            "at least 1",
        ),
        (
            "spec.upstreamDefinitions.0.upstreams.0.weight",
            101,
            "spec.upstreamDefinitions[0].upstreams[0].weight",
            "at most 100",
        ),
        (
            "spec.upstreamDefinitions.0.upstreams.0.weight",
            "50",
            "spec.upstreamDefinitions[0].upstreams[0].weight",
            "Invalid type",
        ),
        (
            "spec.upstreamDefinitions.0.timeout.connect",
            "0s",
            "spec.upstreamDefinitions[0].timeout.connect",
            "positive",
        ),
        ("spec.upstreamDefinitions.0.name", "a b", "spec.upstreamDefinitions[0].name", "only hold"),
        (
            "spec.upstreamDefinitions.0.basePath",
            "/a/",
            "spec.upstreamDefinitions[0].basePath",
            "end",
        ),
        ("spec.upstream.main", {}, "spec.upstream.main", "exactly one of url and ref"),
        (
            "spec.upstream.main",
            {"url": "http://a", "ref": "pool"},
            "spec.upstream.main",
            "exactly one of url and ref",
        ),
        ("spec.upstream.main.url", "http://", "spec.upstream.main.url", "must include a host"),
        ("spec.upstream.main.url", "http://a\nb", "spec.upstream.main.url", "whitespace"),
        ("spec.upstream.main.url", "http://u:p@a", "spec.upstream.main.url", "credentials"),
        ("spec.upstream.main.url", "http://a:0", "spec.upstream.main.url", "between 1 and 65535"),
        ("spec.upstream.main.url", "http://a:70000", "spec.upstream.main.url", "out of range"),
        ("spec.vhosts.main", "a.com;;b.com", "spec.vhosts.main", "must not be empty"),
        ("spec.vhosts.main", "a.com;A.com", "spec.vhosts.main", "given twice"),
        ("spec.vhosts.sandbox", "a.*.com", "spec.vhosts.sandbox", "not a host name"),
        ("spec.operations.0.method", "get", "spec.operations[0].method", "must be 'GET', 'POST'"),
        ("spec.operations.0.path", "/a/{b}c", "spec.operations[0].path", "whole segment"),
        ("spec.operations.0.path", "/{a}/{a}", "spec.operations[0].path", "named twice"),
        ("spec.operations.0.path", "/*/a", "spec.operations[0].path", "last segment"),
        (
            "spec.operations.2.match.headers.0.value",
            "(unclosed",
            "spec.operations[2].match.headers[0].value",
            "invalid",
        ),
        (
            "spec.operations.2.match.headers.0.value",
            "(?=ahead)",
            "spec.operations[2].match.headers[0].value",
            "RE2",
        ),
        ("spec.policies.0.version", "v1.0", "spec.policies[0].version", "major version"),
        ("spec.resilience.timeout", "1m30s", "spec.resilience.timeout", "duration"),
        ("spec.resilience.timeout", "99999999h", "spec.resilience.timeout", "10000h"),
        ("spec.deploymentState", "gone", "spec.deploymentState", "'deployed' or 'undeployed'"),
        ("metadata.name", "a/b", "metadata.name", "must not contain"),
        ("metadata.name", "a b", "metadata.name", "must not contain"),
        ("metadata.labels", {"a b": "c"}, "metadata.labels", "whitespace"),
        ("kind", "Mcp", "kind", "must be 'RestApi'"),
        ("apiVersion", "v9", "apiVersion", "gateway.api-platform.wso2.com/v1"),
    ],
)
def test_a_bad_value_is_refused(path: str, value: object, field: str, part: str) -> None:
    (only,) = faults(changed(path, value))
    assert only[0] == field
    assert part in only[1]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.version", "v3.0.0"),
        ("spec.version", "v99.88.77"),
        ("spec.version", "v1"),
        ("spec.context", "/"),
        ("apiVersion", "gateway.api-platform.wso2.com/v1alpha1"),
        ("spec.upstream.main.url", "http://[::1]:8080/v2"),
        ("spec.upstream.main.url", "http://my_service.ns.svc:80"),
        ("spec.vhosts.main", "_gateway_default_"),
        ("spec.policies.0.version", ""),
        ("spec.operations.2.match.headers.0.value", r"v\d+\.\d+"),
        ("metadata.name", "Weather_v1.0"),
    ],
)
def test_a_good_value_is_accepted(path: str, value: object) -> None:
    parse(RestApi, changed(path, value))


def test_all_faults_come_at_once() -> None:
    document = changed("spec.context", "weather")
    document["spec"]["version"] = "x"
    document["spec"]["operations"][1]["method"] = "FETCH"
    fields = [field for field, _ in faults(document)]
    assert fields == ["spec.version", "spec.context", "spec.operations[1].method"]


def test_a_wrong_item_does_not_make_its_list_too_short() -> None:
    document = changed("spec.upstreamDefinitions.0.upstreams", [{"url": "http://a?b"}])
    assert [field for field, _ in faults(document)] == [
        "spec.upstreamDefinitions[0].upstreams[0].url"
    ]


def test_every_rule_survives_a_round_trip() -> None:
    def again(change: Callable[[RestApi], RestApi]) -> RestApi:
        return RestApi.model_validate_json(
            change(parse(RestApi, GOOD)).model_dump_json(by_alias=True)
        )

    assert again(lambda api: api) == parse(RestApi, GOOD)
    assert again(lambda api: api.rendered()).spec.context == "/weather/v1.0"
