"""Rules between fields, and policies through the catalogue."""

from typing import Any

import pytest

from controller.errors import Invalid
from controller.validation import accepted, rest_api
from policy_engine import catalogue
from policy_engine.conditions.gates import CONDITIONS_MAX
from policy_engine.system import SystemParameters
from tests.controller.samples import document

CATALOGUE = catalogue.load()


def faults(found: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(Invalid, match=r"^Configuration validation failed$") as caught:
        rest_api(accepted(found), CATALOGUE)
    return [(one.field, one.message) for one in caught.value.faults]


def test_a_reference_to_no_definition_is_refused() -> None:
    found = document(upstream={"main": {"ref": "nowhere"}, "sandbox": {"ref": "neither"}})
    assert faults(found) == [
        ("spec.upstream.main.ref", "Referenced upstream definition 'nowhere' not found"),
        ("spec.upstream.sandbox.ref", "Referenced upstream definition 'neither' not found"),
    ]


def test_two_definitions_of_one_name_are_refused() -> None:
    pool = {"name": "pool", "upstreams": [{"url": "http://one.example.com"}]}
    found = document(upstreamDefinitions=[pool, pool])
    assert faults(found) == [
        ("spec.upstreamDefinitions[1].name", "Duplicate upstream definition name 'pool'")
    ]


@pytest.mark.parametrize(
    "operation",
    [
        {"method": "GET", "path": "/today"},
        {"method": "GET", "path": "/today/"},
        {"match": {"method": "GET", "path": {"value": "/today"}}},
    ],
)
def test_an_operation_that_another_hides_is_refused(operation: dict[str, Any]) -> None:
    found = document(operations=[{"method": "GET", "path": "/today"}, operation])
    ((field, message),) = faults(found)
    assert field == "spec.operations[1]"
    assert "spec.operations[0]" in message


def prefix(value: str, *headers: dict[str, str]) -> dict[str, Any]:
    path = {"value": value, "type": "PathPrefix"}
    return {"match": {"method": "GET", "path": path, "headers": [*headers]}}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (prefix("/admin"), {"method": "GET", "path": "/admin/*"}),
        (prefix("/admin/"), prefix("/admin/*")),
        (prefix("/"), {"method": "GET", "path": "/*"}),
        (prefix("/{a}/x"), {"method": "GET", "path": "/{b}/x/*"}),
        (
            prefix("/x", {"name": "A", "value": "1"}, {"name": "b", "value": "2"}),
            prefix("/x/*", {"name": "B", "value": "2"}, {"name": "a", "value": "1"}),
        ),
    ],
)
def test_two_spellings_of_one_operation_are_refused(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    guard = {"name": "respond", "params": {"statusCode": 403}}
    for pair in ([one, {**other, "policies": [guard]}], [other, {**one, "policies": [guard]}]):
        ((field, message),) = faults(document(operations=pair))
        assert field == "spec.operations[1]"
        assert "spec.operations[0] matches the same requests" in message


def test_parameters_of_another_name_match_the_same() -> None:
    found = document(
        operations=[{"method": "GET", "path": "/{city}/x"}, {"method": "GET", "path": "/{town}/x"}]
    )
    assert [field for field, _ in faults(found)] == ["spec.operations[1]"]


@pytest.mark.parametrize(
    "operation",
    [
        {"method": "POST", "path": "/today"},
        {"method": "GET", "path": "/today/*"},
        {"method": "GET", "path": "/{day}"},
        prefix("/today"),
        {
            "match": {
                "method": "GET",
                "path": {"value": "/today"},
                "headers": [{"name": "x-beta", "value": "1"}],
            }
        },
    ],
)
def test_operations_that_differ_are_accepted(operation: dict[str, Any]) -> None:
    rest_api(document(operations=[{"method": "GET", "path": "/today"}, operation]), CATALOGUE)


def test_an_unknown_policy_is_named_at_its_version() -> None:
    found = document(policies=[{"name": "teleport", "version": "v1"}])
    ((field, message),) = faults(found)
    assert field == "spec.policies[0].version"
    assert "teleport" in message
    assert "not found in loaded policy definitions" in message


def test_an_unknown_major_version_is_refused() -> None:
    found = document(policies=[{"name": "respond", "version": "v99"}])
    ((field, message),) = faults(found)
    assert field == "spec.policies[0].version"
    assert "not found in loaded policy definitions" in message


def test_a_parameter_of_the_wrong_type_is_named() -> None:
    policy = {"name": "respond", "version": "v1", "params": {"statusCode": "two hundred"}}
    found = document(operations=[{"method": "GET", "path": "/x", "policies": [policy]}])
    ((field, message),) = faults(found)
    assert field == "spec.operations[0].policies[0].params.statusCode"
    assert "Invalid type" in message
    ((field, _),) = faults(document(policies=[policy]))
    assert field == "spec.policies[0].params.statusCode"


def test_an_unknown_parameter_is_named() -> None:
    policy = {"name": "respond", "version": "v1", "params": {"colour": "red"}}
    assert [field for field, _ in faults(document(policies=[policy]))] == [
        "spec.policies[0].params.colour"
    ]


def test_an_upstream_definition_that_a_policy_names_must_exist() -> None:
    policy = {"name": "dynamic-endpoint", "params": {"targetUpstream": "pool"}}
    found = document(policies=[policy])
    ((field, message),) = faults(found)
    assert field == "spec.policies[0].params.targetUpstream"
    assert message == "targetUpstream: Referenced upstream definition 'pool' not found"
    pool = {"name": "pool", "upstreams": [{"url": "http://127.0.0.1:1"}]}
    api = rest_api(document(policies=[policy], upstreamDefinitions=[pool]), CATALOGUE)
    assert api.spec.policies[0].name == "dynamic-endpoint"


def attached(name: str, /, params: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "version": "v1", "params": params or {}, **more}


KEY = {"key": "API-Key", "in": "header"}


@pytest.mark.parametrize(
    ("policy", "field", "words"),
    [
        (
            attached("respond", executionCondition="request.Method =="),
            "executionCondition",
            "executionCondition is no CEL: 1:18: Syntax error",
        ),
        (
            attached("respond", executionCondition="request.Verb == 'GET'"),
            "executionCondition",
            "1:8: undeclared reference to 'request.Verb'; there is request.Headers, ",
        ),
        (
            attached("respond", executionCondition="request.Headers['x'] == 'a'"),
            "executionCondition",
            "1:22: found no matching overload",
        ),
        (
            attached("respond", executionCondition="request.Method"),
            "executionCondition",
            "is no condition: it gives STRING, not bool",
        ),
        (
            attached("respond", executionCondition="request.Headers['X-A'][0] == 'a'"),
            "executionCondition",
            "header names are lower-case in conditions: 'x-a'",
        ),
        (
            attached("respond", executionCondition="request.method == request.Body.method"),
            "executionCondition",
            "the engine does not know request.method",
        ),
        (
            attached("api-key-auth", KEY, executionCondition="response.ResponseStatus == 200"),
            "executionCondition",
            "the policy decides about requests",
        ),
        (attached("api-key-auth", KEY, failureMode="open"), "failureMode", "runs in Envoy"),
        (attached("api-key-auth", KEY, timeout="1s"), "timeout", "runs in Envoy"),
    ],
)
def test_what_an_attachment_cannot_mean_is_told_by_its_field(
    policy: dict[str, Any], field: str, words: str
) -> None:
    ((found, message),) = faults(document(policies=[policy]))
    assert found == f"spec.policies[0].{field}"
    assert words in message


LIMITS = {"limits": [{"requests": 1, "duration": "1s"}]}
SHARED = attached("basic-ratelimit", {**LIMITS, "backend": "redis"})
DAILY = {"limit": 1, "calendar": "day"}
CACHE = attached("response-cache", {"ttl": "1m"})


@pytest.mark.parametrize(
    ("policy", "field", "words"),
    [
        (attached("jwt-auth"), "", "jwt-auth: the gateway has no key manager: set key_managers"),
        (attached("mtls-client-identity"), "", "set client_authorities_file"),
        (attached("opaque-token-auth"), "", "no introspection provider"),
        (attached("backend-jwt"), "", "set backend_jwt_key_path"),
        (attached("respond", {"statusCode": 102}), ".params.statusCode", "102 is interim"),
        (attached("request-rewrite", {"methodRewrite": "HEAD"}), ".params.methodRewrite", "HEAD"),
        (
            attached("advanced-ratelimit", {"quotas": [{"limits": [DAILY]}]}),
            ".params.quotas[0].limits",
            "calendar needs the backend redis",
        ),
        (SHARED, ".params.backend", "this gateway has no rate limiter, only memory"),
    ],
)
def test_what_this_gateway_cannot_do_is_told_at_once_by_its_field(
    policy: dict[str, Any], field: str, words: str
) -> None:
    headers = {"headers": [{"name": "X-A", "value": "1"}]}
    fine = attached("set-headers", {"request": headers})
    ((found, message),) = faults(document(policies=[fine, policy]))
    assert found == f"spec.policies[1]{field}"
    assert words in message
    below = document(policies=[fine])
    below["spec"]["operations"][0]["policies"] = [fine, fine, policy]
    ((found, message),) = faults(below)
    assert found == f"spec.operations[0].policies[2]{field}"
    assert words in message
    below["spec"]["deploymentState"] = "undeployed"
    assert rest_api(below, CATALOGUE)


def test_a_name_that_the_gateway_does_not_know_is_told_where_it_stands() -> None:
    keys = {"remote": {"uri": "https://login.example.com/keys"}}
    system = SystemParameters(key_managers=({"name": "known", "jwks": keys},))
    knowing = catalogue.load(system=system)
    policy = attached("jwt-auth", {"issuers": ["known", "nobody"]})
    with pytest.raises(Invalid) as caught:
        rest_api(document(policies=[policy]), knowing)
    (fault,) = caught.value.faults
    assert fault.field == "spec.policies[0].params.issuers[1]"
    assert "no key manager 'nobody'; it has known" in fault.message
    assert rest_api(document(policies=[attached("jwt-auth")]), knowing)


def test_every_policy_that_is_out_of_place_is_told() -> None:
    key = attached("api-key-auth", {"key": "K", "in": "header"})
    found = faults(document(policies=[SHARED, CACHE, key, SHARED]))
    assert [field for field, _ in found] == [
        "spec.policies[0].params.backend",
        "spec.policies[1]",
        "spec.policies[3].params.backend",
    ]
    assert "would not pass api-key-auth" in found[1][1]
    ((field, message),) = faults(document(policies=[key, CACHE, CACHE]))
    assert field == "spec.policies[2]"
    assert "twice" in message


def test_a_policy_of_an_operation_can_be_why_one_of_the_api_is_out_of_place() -> None:
    found = document(policies=[CACHE])
    found["spec"]["operations"][0]["policies"] = [attached("csrf")]
    ((field, message),) = faults(found)
    assert field == "spec.policies[0]"
    assert "would not pass csrf" in message


def test_authentication_in_python_fails_closed() -> None:
    policy = attached("opaque-token-auth", {"issuers": []}, failureMode="open")
    assert (
        "must not be open"
        in dict(faults(document(policies=[policy])))["spec.policies[0].failureMode"]
    )


def test_a_condition_is_kept_as_it_was_written() -> None:
    text = '  request.Method=="GET"&&request.Body.size()>0 '
    api = rest_api(document(policies=[attached("respond", executionCondition=text)]), CATALOGUE)
    assert api.spec.policies[0].execution_condition == text


def test_more_conditions_than_a_request_can_meet_are_told_with_the_limit() -> None:
    def conditional(number: int) -> dict[str, Any]:
        headers = {"headers": [{"name": "X-A", "value": "1"}]}
        condition = f"'x-{number}' in request.Headers"
        return attached("set-headers", {"request": headers}, executionCondition=condition)

    many = [conditional(number) for number in range(CONDITIONS_MAX + 1)]
    ((field, message),) = faults(document(policies=many))
    assert field == "spec.policies"
    assert f"{CONDITIONS_MAX} executionConditions at most, here are {len(many)}" in message
    found = document(policies=many[:-1])
    assert rest_api(found, CATALOGUE)
    found["spec"]["operations"][0]["policies"] = many[-1:]
    ((field, message),) = faults(found)
    assert field == "spec.operations[0].policies"
    same = [conditional(1) for _ in range(30)]
    assert rest_api(document(policies=same), CATALOGUE)


def test_an_empty_document_lacks_every_required_field() -> None:
    fields = [field for field, _ in faults({})]
    assert {"apiVersion", "kind", "metadata.name", "spec.context", "spec.operations"} <= {*fields}
    messages = dict(faults({}))
    assert messages["metadata.name"] == "Metadata name is required"
    assert messages["spec.context"] == "Context is required"
    assert messages["spec.operations"] == "At least one operation is required"


def test_null_means_absent_but_not_in_parameters() -> None:
    found = document(vhosts={"main": "a.example.com", "sandbox": "b.example.com"})
    found["spec"]["vhosts"]["sandbox"] = None
    found["spec"]["policies"] = None
    found["spec"]["operations"][0]["policies"] = [{"name": "x", "params": {"keep": None}}]
    kept = accepted(found)
    assert "policies" not in kept["spec"]
    assert kept["spec"]["vhosts"] == {"main": "a.example.com"}
    assert kept["spec"]["operations"][0]["policies"][0]["params"] == {"keep": None}


def test_the_status_of_an_answer_can_be_sent_back() -> None:
    found = {**document(), "status": {"id": "weather", "state": "deployed"}}
    assert accepted(found) == document()
