import json
import time
from typing import Any

import jwt
import pytest

from policy_engine.errors import InvalidParameters, PolicyNotCompiled
from policy_engine.headers import APPLICATION_HEADER
from policy_engine.hooks import Answer, Exchange
from policy_engine.policies import backend_jwt
from policy_engine.policies.backend_jwt import BackendJwt
from policy_engine.policy import Scope
from policy_engine.signing import jwks, new_key
from policy_engine.system import SystemParameters
from tests.policy_engine.attached import policy
from tests.policy_engine.exchanges import exchange

SYSTEM = SystemParameters(
    backend_jwt_key=new_key("ES256"),
    backend_jwt_algorithm="ES256",
    backend_jwt_issuer="https://gateway.example",
)
CLAIMS = {
    "iss": "https://idp.example",
    "sub": "ann",
    "aud": "orders",
    "azp": "shop",
    "org": {"id": 7},
}
JWT = {"envoy.filters.http.jwt_authn": {"payload": CLAIMS}}
OPAQUE = {"type": "opaque", "provider": "company", "claims": {"sub": "bob", "client_id": "app"}}


def made(**params: Any) -> BackendJwt:
    found = policy("backend-jwt", **params)
    assert isinstance(found, BackendJwt)
    return found


def told(request: Exchange, header: str = "x-jwt-assertion") -> dict[str, Any]:
    """What the upstream reads, verified as it would."""
    (key,) = jwt.PyJWKSet.from_json(json.dumps(jwks(request.system))).keys
    (token,) = request.request.headers.all(header)
    return dict(
        jwt.decode(token, key, algorithms=["ES256"], options={"verify_aud": False}),
    )


def request(headers: dict[str, str] | None = None, **fields: Any) -> Exchange:
    return exchange(headers, system=fields.pop("system", SYSTEM), **fields)


def test_a_token_caller_is_told_with_what_the_token_says() -> None:
    asked = request(metadata=JWT)
    assert made(claimMappings={"org.id": "tenant"}).on_request_headers(asked) is None
    claims = told(asked)
    assert claims.pop("exp") - claims.pop("iat") == 900
    assert claims == {
        "iss": "https://gateway.example",
        "sub": "ann",
        "auth_type": "jwt",
        "original_iss": "https://idp.example",
        "aud": "orders",
        "credential_id": "shop",
        "tenant": 7,
    }


@pytest.mark.parametrize("same_hop", [True, False])
def test_an_opaque_token_caller_is_told(same_hop: bool) -> None:
    asked = request(metadata={} if same_hop else {"signalbox": {"identity": OPAQUE}})
    if same_hop:
        asked.published["identity"] = OPAQUE
    made().on_request_headers(asked)
    claims = told(asked)
    assert (claims["sub"], claims["auth_type"], claims["credential_id"]) == ("bob", "opaque", "app")


def test_an_application_is_told_by_its_name() -> None:
    asked = request({APPLICATION_HEADER: "Sh%C3%B6p"})
    made().on_request_headers(asked)
    assert set(told(asked)) == {"iss", "sub", "iat", "exp"}
    assert told(asked)["sub"] == "Shöp"


def test_what_the_caller_sends_is_removed() -> None:
    for asked in (
        request({"X-JWT-Assertion": "mine"}),
        request({"X-JWT-Assertion": "mine"}, metadata=JWT),
    ):
        made().on_request_headers(asked)
        assert "mine" not in asked.request.headers.all("x-jwt-assertion")
    assert "x-jwt-assertion" in asked.request.headers


def test_unknown_callers_are_refused_where_they_must_be_known() -> None:
    asked = request({"X-JWT-Assertion": "mine"})
    assert made().on_request_headers(asked) is None
    assert "x-jwt-assertion" not in asked.request.headers
    refusal = made(requireAuthentication=True).on_request_headers(asked)
    assert isinstance(refusal, Answer)
    assert refusal.status == 401
    assert json.loads(refusal.body)["error"] == "Unauthorized"


def test_every_token_says_what_the_api_wants() -> None:
    signer = made(
        header="X-Who",
        customClaims={"env": "production", "levels": [1, 2]},
        audiences=["billing"],
    )
    asked = request(metadata=JWT)
    signer.on_request_headers(asked)
    claims = told(asked, "x-who")
    assert (claims["env"], claims["levels"], claims["aud"]) == ("production", [1, 2], "billing")


def test_a_token_is_signed_once_for_each_caller_and_again_before_it_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signer, now = made(), time.time()

    def token(sub: str, at_s: float) -> str:
        monkeypatch.setattr(backend_jwt.time, "time", lambda: now + at_s)
        asked = request(metadata={"envoy.filters.http.jwt_authn": {"payload": {"sub": sub}}})
        signer.on_request_headers(asked)
        return asked.request.headers.get("x-jwt-assertion") or ""

    first = token("ann", 0)
    assert token("ann", 700) == first
    assert token("bob", 0) != first
    assert token("ann", 725) != first


def test_no_more_tokens_are_kept_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_jwt, "_TOKENS_MAX", 2)
    signer = made()
    for number in range(5):
        signer.on_request_headers(request({APPLICATION_HEADER: f"app-{number}"}))
    assert len(signer._tokens) == 2


def test_a_new_key_is_used_at_once() -> None:
    signer, other = made(), SYSTEM.model_copy(update={"backend_jwt_issuer": "https://other"})
    for system, issuer in ((SYSTEM, "https://gateway.example"), (other, "https://other")):
        asked = request(metadata=JWT, system=system)
        signer.on_request_headers(asked)
        assert told(asked)["iss"] == issuer


def test_a_gateway_without_a_key_refuses_the_api() -> None:
    def scope(system: SystemParameters) -> Scope:
        return Scope("api", "orders", "Orders", "v1", "/orders", system=system)

    made().check(scope(SYSTEM))
    with pytest.raises(PolicyNotCompiled, match="no key to sign with"):
        made().check(scope(SystemParameters()))


@pytest.mark.parametrize(
    ("params", "path", "reason"),
    [
        ({"customClaims": {"sub": "root"}}, "customClaims", "the gateway itself says 'sub'"),
        ({"claimMappings": {"x": "iss"}}, "claimMappings", "the gateway itself says 'iss'"),
        ({"header": "x-signalbox-application"}, "header", "gateway's own"),
        ({"ttl": 5}, "ttl", "Unknown parameter"),
    ],
)
def test_wrong_parameters_are_told_by_their_path(
    params: dict[str, Any], path: str, reason: str
) -> None:
    with pytest.raises(InvalidParameters, match=reason) as caught:
        made(**params)
    assert [fault.path for fault in caught.value.faults] == [path]
