"""Documents become the bytes that protobuf's own JSON reader makes of them, or are refused."""

from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.xds.wire.documents import REAL, TYPED_STRUCT, invented
from xds.wire.descriptors import envoy_descriptors
from xds.wire.errors import BadDocument, UnknownMessage
from xds.wire.messages import build, decode, digest, encode, message_class, pack, type_url

ROUTES = "envoy.config.route.v3.RouteConfiguration"
MESSAGES = (
    ROUTES,
    "envoy.config.cluster.v3.Cluster",
    "envoy.config.listener.v3.Listener",
    "envoy.config.route.v3.ScopedRouteConfiguration",
    "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    "envoy.extensions.transport_sockets.tls.v3.Secret",
    "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
    "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
    "envoy.service.discovery.v3.DeltaDiscoveryRequest",
    "envoy.data.accesslog.v3.HTTPAccessLogEntry",
    "xds.type.matcher.v3.Matcher",
    "cel.expr.CheckedExpr",
    "google.api.HttpRule",
)


def parse_dict(full_name: str, document: Any) -> Any:
    message = message_class(full_name)()
    json_format.ParseDict(document, message, descriptor_pool=envoy_descriptors().pool)
    return message


def refusal(full_name: str, document: Any) -> BadDocument:
    with pytest.raises(BadDocument) as caught:
        encode(full_name, document)
    return caught.value


@pytest.mark.parametrize("full_name", REAL)
def test_a_real_document_gives_the_message_of_parse_dict(full_name: str) -> None:
    """Not the bytes: ParseDict leaves the order of maps inside an Any to chance."""
    body = encode(full_name, REAL[full_name])
    expected = parse_dict(full_name, REAL[full_name]).SerializeToString(deterministic=True)
    assert len(body) == len(expected) > 50
    assert decode(full_name, body) == decode(full_name, expected)


@settings(
    max_examples=400,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.sampled_from(MESSAGES).flatmap(lambda name: st.tuples(st.just(name), invented(name))))
def test_any_document_gives_the_bytes_of_parse_dict(case: tuple[str, dict[str, Any]]) -> None:
    full_name, document = case
    encode(full_name, document)  # Any's types must be in the pool before ParseDict looks
    expected = parse_dict(full_name, document)
    assert encode(full_name, document) == expected.SerializeToString(deterministic=True)


def test_equal_documents_have_equal_digests_whatever_their_order() -> None:
    one = {"filter_metadata": {"a": {"x": 1, "y": 2}, "b": {}}}
    other = {"filter_metadata": {"b": {}, "a": {"y": 2, "x": 1}}}
    first, second = (encode("envoy.config.core.v3.Metadata", each) for each in (one, other))
    assert digest(first) == digest(second)
    assert len(digest(first)) == 32
    assert digest(first) != digest(first + b"\0")


def test_an_any_is_packed_under_its_type() -> None:
    packed = pack({"@type": type_url("envoy.config.cluster.v3.Cluster"), "name": "up"})
    assert packed.type_url == "type.googleapis.com/envoy.config.cluster.v3.Cluster"
    assert packed.body == encode("envoy.config.cluster.v3.Cluster", {"name": "up"})


def test_a_typed_struct_keeps_a_key_called_fields() -> None:
    message = build("google.protobuf.Any", TYPED_STRUCT)
    struct = message_class("xds.type.v3.TypedStruct").FromString(message.value).value
    assert struct["fields"]["not"] == "fields"


def test_decode_shows_what_was_encoded() -> None:
    name = "envoy.config.listener.v3.Listener"
    shown = decode(name, encode(name, REAL[name]))
    hcm = shown["filter_chains"][0]["filters"][0]["typed_config"]
    route = hcm["route_config"]["virtual_hosts"][0]["routes"][0]
    assert route["route"]["timeout"] == "15s"
    chain = route["typed_per_filter_config"]["chain0"]["filter_chain"]["filters"]
    assert chain[0]["typed_config"]["credentials"] == [{"key": "d1", "client": "a"}]


def test_an_unknown_message_is_named() -> None:
    for name in ("envoy.config.cluster.v3.Clutter", "envoy.config.cluster.v3.Cluster.X", "x", ""):
        with pytest.raises(UnknownMessage, match="has no message") as caught:
            message_class(name)
        assert caught.value.full_name == name


def test_nested_messages_have_classes() -> None:
    descriptor = message_class("envoy.config.route.v3.RouteAction.HashPolicy.Header").DESCRIPTOR
    assert "header_name" in descriptor.fields_by_name


def _routes(*routes: Any) -> dict[str, Any]:
    return {"virtual_hosts": [{"routes": list(routes)}]}


LIMIT = "type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
ROUTE = "virtual_hosts[0].routes[1]"


@pytest.mark.parametrize(
    ("route", "path", "reason"),
    [
        ({"match": {"prefx": "/"}}, f"{ROUTE}.match", "did you mean 'prefix'"),
        ({"match": {"prefix": "/", "path": "/"}}, f"{ROUTE}.match", "only one of 'prefix', 'path'"),
        ({"match": {"prefix": 5}}, f"{ROUTE}.match.prefix", "expected a string, not 5"),
        ({"match": {"prefix": "\ud800"}}, f"{ROUTE}.match.prefix", "not Unicode"),
        ({"match": []}, f"{ROUTE}.match", "expected an object"),
        ({"match": "/"}, f"{ROUTE}.match", "expected an object"),
        ("x", ROUTE, "expected an object"),
        (None, ROUTE, "expected an object"),
        ({"route": {"timeout": "5m"}}, f"{ROUTE}.route.timeout", "duration in seconds"),
        ({"route": {"timeout": 5}}, f"{ROUTE}.route.timeout", "duration in seconds"),
        ({"route": {"timeout": ["5s"]}}, f"{ROUTE}.route.timeout", "duration in seconds"),
        ({"route": {"timeout": "999999999999s"}}, f"{ROUTE}.route.timeout", "10,000 years"),
        ({"direct_response": {"status": -1}}, f"{ROUTE}.direct_response.status", "not between 0"),
        ({"direct_response": {"status": 2**32}}, f"{ROUTE}.direct_response.status", "not between"),
        ({"direct_response": {"status": True}}, f"{ROUTE}.direct_response.status", "whole number"),
        ({"direct_response": {"status": 1.5}}, f"{ROUTE}.direct_response.status", "whole number"),
        (
            {"direct_response": {"body": {"inline_bytes": "?"}}},
            f"{ROUTE}.direct_response.body.inline_bytes",
            "not base64",
        ),
        ({"redirect": {"https_redirect": 1}}, f"{ROUTE}.redirect.https_redirect", "true or false"),
        ({"redirect": {"response_code": "MOVED"}}, f"{ROUTE}.redirect.response_code", "not one of"),
        ({"redirect": {"response_code": 77}}, f"{ROUTE}.redirect.response_code", "not one of"),
        ({"request_headers_to_remove": "x"}, f"{ROUTE}.request_headers_to_remove", "a list"),
        (
            {"request_headers_to_remove": ["a", 5]},
            f"{ROUTE}.request_headers_to_remove[1]",
            "expected a string",
        ),
        (
            {"metadata": {"filter_metadata": {"a": {"b": object()}}}},
            f'{ROUTE}.metadata.filter_metadata["a"]["b"]',
            "not JSON",
        ),
        (
            {"metadata": {"filter_metadata": {"a": {"b": "\ud800"}}}},
            f'{ROUTE}.metadata.filter_metadata["a"]["b"]',
            "not Unicode",
        ),
        (
            {"typed_per_filter_config": {"l": {"@type": LIMIT, "stat": "x"}}},
            f'{ROUTE}.typed_per_filter_config["l"]',
            "no field 'stat'",
        ),
        (
            {"typed_per_filter_config": {"l": {"@type": LIMIT, "status": {"code": "\ud800"}}}},
            f'{ROUTE}.typed_per_filter_config["l"].status.code',
            "not one of",
        ),
        (
            {"typed_per_filter_config": {"l": {"@type": LIMIT, "stage": -1}}},
            f'{ROUTE}.typed_per_filter_config["l"].stage',
            "not between",
        ),
        (
            {"typed_per_filter_config": {"l": {"@type": f"{LIMIT}er"}}},
            f'{ROUTE}.typed_per_filter_config["l"]',
            "has no message",
        ),
        (
            {"typed_per_filter_config": {"l": {"@type": "LocalRateLimit"}}},
            f'{ROUTE}.typed_per_filter_config["l"]',
            "must be a type URL",
        ),
        (
            {"typed_per_filter_config": {"l": {"@type": ["x"]}}},
            f'{ROUTE}.typed_per_filter_config["l"]',
            "must be a type URL",
        ),
        (
            {"typed_per_filter_config": {"l": {"stat_prefix": "x"}}},
            f'{ROUTE}.typed_per_filter_config["l"]',
            "must be a type URL",
        ),
        (
            {"name": "a", "typedPerFilterConfig": {}, "typed_per_filter_config": {}},
            ROUTE,
            "are the same field",
        ),
    ],
)
def test_a_bad_document_is_refused_with_the_path(route: Any, path: str, reason: str) -> None:
    error = refusal(ROUTES, _routes({"match": {"prefix": "/"}}, route))
    assert error.path == path
    assert reason in error.reason
    assert str(error) == f"{path}: {error.reason}"


def test_a_document_that_is_no_object_is_refused_without_a_path() -> None:
    assert str(refusal(ROUTES, ["x"])).startswith("expected an object")


def test_a_document_nested_without_end_is_refused() -> None:
    document: dict[str, Any] = {}
    document["and_match"] = {"rules": [document]}
    error = refusal("envoy.config.common.matcher.v3.MatchPredicate", document)
    assert error.reason == "nested too deeply"


def test_a_value_in_an_any_stands_under_value_alone() -> None:
    duration = {"@type": "type.googleapis.com/google.protobuf.Duration"}
    for fields in ({"seconds": 1}, {}, {"value": "1s", "x": 1}):
        with pytest.raises(BadDocument, match="under 'value' alone"):
            pack(duration | fields)
    with pytest.raises(BadDocument, match=r"^value: expected a duration"):
        pack({**duration, "value": "1"})


def test_packing_nothing_is_refused() -> None:
    with pytest.raises(BadDocument, match="'@type' is missing"):
        pack({})


def test_null_means_absent_except_for_json_values() -> None:
    assert encode(ROUTES, {"name": None, "virtual_hosts": None}) == b""
    value = build("google.protobuf.Value", None)
    assert value.WhichOneof("kind") == "null_value"
