from typing import Any, ClassVar

import pytest

from bus.resources.rest_api import PolicyRef
from policy_engine.catalogue import Catalogue, load
from policy_engine.chain import compile_chain
from policy_engine.errors import InvalidParameters, PolicyNotCompiled, UnknownPolicy
from policy_engine.policy import Document, HttpFilter, Policy, Scope, Version
from tests.policy_engine.attached import SYSTEM

EXPECTED = {
    "advanced-ratelimit": "1.1.2",
    "analytics-header-filter": "1.0.1",
    "api-key-auth": "1.2.1",
    "aws-authentication": "0.11.0",
    "backend-jwt": "1.0.1",
    "bandwidth-limit": "1.0.0",
    "basic-auth": "1.1.0",
    "basic-ratelimit": "1.1.1",
    "circuit-breaker": "1.0.0",
    "compression": "1.0.0",
    "content-length-guardrail": "1.0.0",
    "cors": "1.0.3",
    "csrf": "1.1.0",
    "dynamic-endpoint": "1.0.1",
    "fault-injection": "1.0.0",
    "host-rewrite": "1.0.1",
    "interceptor-service": "1.1.0",
    "ip-filter": "1.0.0",
    "json-schema-guardrail": "1.0.0",
    "json-xml-mediator": "1.0.4",
    "jwt-auth": "1.3.1",
    "log-message": "1.0.3",
    "maintenance-mode": "1.0.0",
    "mirror": "1.0.0",
    "mtls-client-identity": "1.0.0",
    "oidc-login": "1.1.0",
    "opaque-token-auth": "1.1.0",
    "openapi-validation": "1.1.0",
    "pii-masking-regex": "1.0.3",
    "rbac": "1.0.0",
    "redirect": "0.9.2",
    "regex-guardrail": "1.0.0",
    "remove-headers": "1.0.1",
    "request-rewrite": "1.0.2",
    "request-size-limit": "1.0.0",
    "respond": "1.0.1",
    "response-cache": "1.0.0",
    "retry": "1.0.0",
    "sentence-count-guardrail": "1.0.0",
    "set-headers": "1.1.0",
    "subscription-validation": "1.0.4",
    "traffic-split": "1.0.0",
    "url-guardrail": "1.0.0",
    "word-count-guardrail": "1.0.0",
}


class Plain(Policy):
    """Does nothing."""

    name: ClassVar[str] = "plain"
    version: ClassVar[Version] = Version(1, 0, 0)
    example: ClassVar[Document] = {}

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        return ()


class Plain1x(Plain):
    version: ClassVar[Version] = Version(1, 10, 0)


class Plain12(Plain):
    version: ClassVar[Version] = Version(1, 2, 0)


class Plain2(Plain):
    version: ClassVar[Version] = Version(2, 0, 0)


def faults(name: str, **params: Any) -> dict[str, str]:
    """The messages by parameter."""
    with pytest.raises(InvalidParameters) as raised:
        load(()).parse(PolicyRef(name=name, params=params))
    assert raised.value.name == name
    return {fault.path: fault.message for fault in raised.value.faults}


def scope() -> Scope:
    return Scope(
        level="api", api_id="a", api_name="A", api_version="v1", context="/a", system=SYSTEM
    )


def test_the_first_policies_are_loaded_in_their_versions() -> None:
    assert {policy.name: str(policy.version) for policy in load(())} == EXPECTED


def test_a_major_version_is_the_newest_of_that_major() -> None:
    catalogue = Catalogue([Plain2, Plain, Plain1x, Plain12])
    assert catalogue.resolve("plain", "v1") is Plain1x
    assert catalogue.resolve("plain", "v2") is Plain2
    assert catalogue.resolve("plain") is Plain2


@pytest.mark.parametrize(
    ("name", "version"), [("nothing", ""), ("plain", "v3"), ("plain", "1"), ("plain", "v1.0")]
)
def test_an_unknown_name_or_version_is_told_in_the_contracts_words(name: str, version: str) -> None:
    with pytest.raises(UnknownPolicy, match="not found in loaded policy definitions") as raised:
        Catalogue([Plain]).resolve(name, version)
    assert name in str(raised.value)
    assert (raised.value.name, raised.value.version) == (name, version)


def test_a_parameter_of_the_wrong_type_is_told_as_such() -> None:
    message = faults("respond", statusCode="two hundred")["statusCode"]
    assert message.startswith("Invalid type")


def test_nothing_is_coerced() -> None:
    assert "Invalid type" in faults("respond", statusCode="200")["statusCode"]
    assert "Invalid type" in faults("cors", allowedOrigins="*")["allowedOrigins"]
    assert "Invalid type" in faults("cors", allowedOrigins=["*"], maxAge=True)["maxAge"]


def test_a_missing_parameter_is_named() -> None:
    assert faults("api-key-auth") == {"key": "key is required", "in": "in is required"}
    limits = faults("basic-ratelimit", limits=[{"duration": "1s"}])
    assert limits == {"limits[0].requests": "requests is required"}


def test_an_unknown_parameter_is_named() -> None:
    found = faults("respond", status_code=200)
    assert found == {"status_code": "Unknown parameter 'status_code'"}
    assert "request.headers[0].nmae" in faults(
        "set-headers", request={"headers": [{"nmae": "X-A", "value": "1"}]}
    )


def test_all_faults_are_told_at_once_with_their_paths() -> None:
    found = faults(
        "set-headers",
        request={"headers": [{"name": "Host", "value": "x"}, {"name": "X-A", "value": "a\r\nb"}]},
        response={"headers": [{"name": ":status", "value": "200"}]},
    )
    assert set(found) == {
        "request.headers[0].name",
        "request.headers[1].value",
        "response.headers[0].name",
    }


@pytest.mark.parametrize(
    ("name", "params", "path"),
    [
        ("api-key-auth", {"key": "", "in": "header"}, "key"),
        ("api-key-auth", {"key": "a b", "in": "header"}, ""),
        ("api-key-auth", {"key": "Host", "in": "header"}, ""),
        ("api-key-auth", {"key": "k\x00", "in": "query"}, ""),
        ("api-key-auth", {"key": "k", "in": "cookie"}, "in"),
        ("api-key-auth", {"key": "k", "in": "header", "valuePrefix": "é"}, "valuePrefix"),
        ("basic-auth", {"username": "a:b", "password": "p"}, "username"),
        ("basic-auth", {"username": "#a", "password": "p"}, "username"),
        ("basic-auth", {"username": "a\nb", "password": "p"}, "username"),
        ("basic-auth", {"username": "a", "password": ""}, "password"),
        ("basic-auth", {"username": "a", "password": "p\n"}, "password"),
        ("basic-auth", {"username": "a", "password": "p", "realm": 'a"b'}, "realm"),
        ("basic-ratelimit", {"limits": []}, "limits"),
        ("basic-ratelimit", {"limits": [{"requests": 1, "duration": "1s"}] * 11}, "limits"),
        ("basic-ratelimit", {"limits": [{"requests": 0, "duration": "1s"}]}, "limits[0].requests"),
        ("basic-ratelimit", {"limits": [{"requests": 1, "duration": "1"}]}, "limits[0].duration"),
        ("basic-ratelimit", {"limits": [{"requests": 1, "duration": "0s"}]}, "limits[0].duration"),
        (
            "basic-ratelimit",
            {"limits": [{"requests": 1, "duration": "49ms"}]},
            "limits[0].duration",
        ),
        ("cors", {"allowedOrigins": []}, "allowedOrigins"),
        ("cors", {"allowedOrigins": ["https://a.example/path"]}, "allowedOrigins[0]"),
        ("cors", {"allowedOrigins": ["https://a.*.example"]}, "allowedOrigins[0]"),
        ("cors", {"allowedOrigins": ["a.example"]}, "allowedOrigins[0]"),
        ("cors", {"allowedOrigins": ["*"], "allowedMethods": ["FETCH"]}, "allowedMethods[0]"),
        ("cors", {"allowedOrigins": ["*"], "allowedHeaders": ["a b"]}, "allowedHeaders[0]"),
        ("cors", {"allowedOrigins": ["*"], "maxAge": -1}, "maxAge"),
        ("csrf", {"additionalOrigins": ["https://a.example"]}, "additionalOrigins[0]"),
        ("csrf", {"additionalOrigins": ["a.*.example"]}, "additionalOrigins[0]"),
        ("dynamic-endpoint", {"targetUpstream": ""}, "targetUpstream"),
        ("host-rewrite", {"host": ""}, "host"),
        ("host-rewrite", {"host": "x" * 256}, "host"),
        ("host-rewrite", {"host": "a/b"}, "host"),
        ("host-rewrite", {"host": "https://a.example"}, "host"),
        ("redirect", {}, ""),
        ("redirect", {"statusCode": 200, "scheme": "https"}, "statusCode"),
        ("redirect", {"scheme": "ftp"}, "scheme"),
        ("redirect", {"hostname": "a.example:80"}, "hostname"),
        ("redirect", {"port": 0}, "port"),
        ("redirect", {"path": {"mode": "full", "value": "x"}}, "path.value"),
        ("redirect", {"path": {"mode": "full", "value": "/x?y"}}, "path.value"),
        ("redirect", {"path": {"mode": "exact", "value": "/x"}}, "path.mode"),
        ("request-rewrite", {}, ""),
        ("request-rewrite", {"methodRewrite": "FETCH"}, "methodRewrite"),
        ("request-rewrite", {"pathRewrite": {"type": "ReplaceFullPath"}}, "pathRewrite"),
        (
            "request-rewrite",
            {"pathRewrite": {"type": "ReplaceFullPath", "replaceFullPath": "/a?b"}},
            "pathRewrite.replaceFullPath",
        ),
        (
            "request-rewrite",
            {
                "pathRewrite": {
                    "type": "ReplaceRegexMatch",
                    "replaceRegexMatch": {"pattern": "(", "substitution": ""},
                }
            },
            "pathRewrite.replaceRegexMatch.pattern",
        ),
        (
            "request-rewrite",
            {
                "pathRewrite": {
                    "type": "ReplaceRegexMatch",
                    "replaceRegexMatch": {"pattern": "a", "substitution": r"\1"},
                }
            },
            "pathRewrite.replaceRegexMatch",
        ),
        (
            "request-rewrite",
            {"queryRewrite": {"rules": [{"action": "Add", "name": "a"}]}},
            "queryRewrite.rules[0]",
        ),
        (
            "request-rewrite",
            {"queryRewrite": {"rules": [{"action": "Remove", "name": "a", "value": "b"}]}},
            "queryRewrite.rules[0]",
        ),
        (
            "request-rewrite",
            {"methodRewrite": "PUT", "match": {"headers": [{"name": "a", "type": "Exact"}]}},
            "match.headers[0]",
        ),
        (
            "request-rewrite",
            {
                "methodRewrite": "PUT",
                "match": {"queryParams": [{"name": "a", "type": "Regex", "value": "(?=a)"}]},
            },
            "match.queryParams[0]",
        ),
        ("ip-filter", {}, ""),
        ("ip-filter", {"allow": ["10.0.0.1/8"]}, "allow[0]"),
        ("ip-filter", {"allow": ["::1"], "deny": ["10.0.0"]}, "deny[0]"),
        ("jwt-auth", {"issuers": [""]}, "issuers[0]"),
        (
            "jwt-auth",
            {"claims": {"allOf": [{"claim": "a", "values": []}]}},
            "claims.allOf[0].values",
        ),
        ("jwt-auth", {"claimMappings": {"sub": "Host"}}, "claimMappings.sub"),
        ("jwt-auth", {"forwardedTokenHeader": "a b"}, "forwardedTokenHeader"),
        ("bandwidth-limit", {"kibibytesPerSecond": 0}, "kibibytesPerSecond"),
        ("bandwidth-limit", {"kibibytesPerSecond": 1, "direction": "up"}, "direction"),
        ("compression", {"algorithms": []}, "algorithms"),
        ("compression", {"algorithms": ["gzip", "gzip"]}, "algorithms"),
        ("compression", {"algorithms": ["lzma"]}, "algorithms[0]"),
        ("compression", {"contentTypes": ["text/html; charset=utf-8"]}, "contentTypes[0]"),
        ("compression", {"minBytes": 29}, "minBytes"),
        ("fault-injection", {}, ""),
        ("fault-injection", {"abort": {"statusCode": 200}}, "abort.statusCode"),
        ("fault-injection", {"delay": {"duration": "6m"}}, "delay.duration"),
        (
            "fault-injection",
            {"delay": {"duration": "1s", "percentage": 101.0}},
            "delay.percentage",
        ),
        ("request-size-limit", {"maxBytes": 0}, "maxBytes"),
        ("retry", {"attempts": 11}, "attempts"),
        ("retry", {"retryOn": ["4xx"]}, "retryOn[0]"),
        ("retry", {"retryOn": []}, ""),
        ("retry", {"statuses": [200]}, "statuses[0]"),
        ("retry", {"backOff": {"base": "1s"}}, "backOff"),
        ("maintenance-mode", {"allow": ["10.0.0.1/8"]}, "allow[0]"),
        ("maintenance-mode", {"allow": ["office"]}, "allow[0]"),
        ("maintenance-mode", {"retryAfter": "0s"}, "retryAfter"),
        ("mirror", {"targetUpstream": "a", "percentage": 0.0}, "percentage"),
        ("traffic-split", {"targets": []}, "targets"),
        ("traffic-split", {"targets": [{"upstream": "a", "weight": 0}]}, ""),
        (
            "traffic-split",
            {
                "targets": [{"upstream": "a", "weight": 1}],
                "sticky": {"header": "X-A", "cookie": "a"},
            },
            "sticky",
        ),
        ("rbac", {}, ""),
        ("rbac", {"rules": [{}]}, "rules[0]"),
        ("rbac", {"rules": [{"paths": ["orders"]}]}, "rules[0].paths[0]"),
        ("rbac", {"rules": [{"methods": ["FETCH"]}]}, "rules[0].methods[0]"),
        ("rbac", {"condition": "request.method =="}, "condition"),
        ("rbac", {"condition": "request.metod == 'GET'"}, "condition"),
        ("rbac", {"condition": "unknown == 1"}, "condition"),
        ("rbac", {"condition": "'text'"}, "condition"),
        ("remove-headers", {}, ""),
        ("remove-headers", {"request": {"headers": []}}, "request.headers"),
        (
            "remove-headers",
            {"response": {"headers": [{"name": "Content-Length"}]}},
            "response.headers[0].name",
        ),
        (
            "set-headers",
            {"request": {"headers": [{"name": "x-signalbox-application", "value": "me"}]}},
            "request.headers[0].name",
        ),
        ("respond", {"statusCode": 99}, "statusCode"),
        ("respond", {"statusCode": 600}, "statusCode"),
        ("respond", {"body": "x" * ((1 << 20) + 1)}, "body"),
    ],
)
def test_parameters_outside_the_contract_are_refused(
    name: str, params: dict[str, Any], path: str
) -> None:
    assert list(faults(name, **params)) == [path]


@pytest.mark.parametrize("policy", tuple(load(())), ids=lambda policy: policy.name)
def test_the_example_of_every_policy_is_valid(policy: type[Policy]) -> None:
    version = f"v{policy.version.major}"
    parsed = load(()).parse(PolicyRef(name=policy.name, version=version, params=policy.example))
    assert isinstance(parsed, policy)
    compile_chain([parsed], scope())


def test_refusals_cover_every_policys() -> None:
    told = {refusal.details: refusal.status for refusal in load(()).refusals()}
    assert told["missing_api_key"] == 401
    assert told["local_rate_limited"] == 429


def test_an_interim_status_is_accepted_and_then_not_compiled_with_the_reason() -> None:
    parsed = load(()).parse(PolicyRef(name="respond", params={"statusCode": 102}))
    with pytest.raises(PolicyNotCompiled, match="102 is interim"):
        compile_chain([parsed], scope())
