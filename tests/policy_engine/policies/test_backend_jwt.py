import json
import time
from base64 import urlsafe_b64decode
from typing import Any

import jwt
import pytest

from policy_engine.errors import InvalidParameters, PolicyNotCompiled
from policy_engine.hooks import Answer, Exchange
from policy_engine.identity import claims
from policy_engine.identity.signing import jwks, new_key
from policy_engine.parameters.headers import APPLICATION_HEADER
from policy_engine.policies import backend_jwt
from policy_engine.policies.backend_jwt import BackendJwt
from policy_engine.policy import Scope
from policy_engine.system import SystemParameters
from tests.policy_engine.attached import COMPANY, basic, policy
from tests.policy_engine.exchanges import exchange
from tests.policy_engine.python_gateway import PythonGateway, python_gateway, ref
from tests.policy_engine.tokens import bearer, key_manager
from tests.servers.http_backend import Answer as Said
from tests.servers.http_backend import http_backend

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
    (token,) = request.request.headers.all(header)
    return verified(token)


def verified(token: str) -> dict[str, Any]:
    (key,) = jwt.PyJWKSet.from_json(json.dumps(jwks(SYSTEM))).keys
    return dict(jwt.decode(token, key, algorithms=["ES256"], options={"verify_aud": False}))


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


def test_integers_stay_integers() -> None:
    payload = {"sub": "ann", "n": 42.0, "part": 1.5, "many": [{"n": 7.0}], "large": 1e300}
    asked = request(metadata={claims.JWT_FILTER: {claims.PAYLOAD: payload}})
    made(claimMappings={name: f"my_{name}" for name in payload}).on_request_headers(asked)
    token = asked.request.headers.get("x-jwt-assertion") or ""
    said = json.loads(urlsafe_b64decode(token.split(".")[1] + "=="))
    assert repr(said["my_n"]) == "42"
    assert repr(said["my_many"]) == "[{'n': 7}]"
    assert (said["my_part"], said["my_large"]) == (1.5, 1e300)


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


BY_JWT = ref("jwt-auth")
SIGNED = ref("backend-jwt", requireAuthentication=True, claimMappings={"org.id": "tenant"})


async def received(running: PythonGateway, headers: dict[str, str]) -> dict[str, Any]:
    """What the upstream is told about a caller with these headers."""
    answer = await running.client.get("/items", headers={"X-JWT-Assertion": "mine"} | headers)
    assert answer.status_code == 200
    (token,) = running.backend.last.all("x-jwt-assertion")
    return verified(token)


async def test_through_envoy_callers_with_a_json_web_token_are_told() -> None:
    system = SYSTEM.model_copy(update={"key_managers": (key_manager("company", COMPANY),)})
    async with python_gateway([BY_JWT, SIGNED], system=system) as running:
        token = COMPANY.token(aud="orders", client_id="shop", org={"id": 7})
        claims = await received(running, bearer(token))
        assert claims.pop("exp") - claims.pop("iat") == 900
        assert claims == {
            "iss": "https://gateway.example",
            "sub": "ann",
            "auth_type": "jwt",
            "original_iss": COMPANY.issuer,
            "aud": "orders",
            "credential_id": "shop",
            "tenant": 7,
        }
        refused = await running.client.get("/items", headers={"X-JWT-Assertion": "mine"})
        assert refused.status_code == 401


async def test_through_envoy_nobody_is_told_without_authentication() -> None:
    async with python_gateway([ref("backend-jwt")], system=SYSTEM) as running:
        answer = await running.client.get("/items", headers={"X-JWT-Assertion": "mine"})
        assert answer.status_code == 200
        assert running.backend.last.header("x-jwt-assertion") is None
    async with python_gateway([SIGNED], system=SYSTEM) as running:
        answer = await running.client.get("/items", headers={"X-JWT-Assertion": "mine"})
        assert answer.status_code == 401
        assert answer.json()["error"] == "Unauthorized"


@pytest.mark.parametrize("same_hop", [True, False])
async def test_through_envoy_callers_with_an_opaque_token_are_told(same_hop: bool) -> None:
    live = json.dumps({"active": True, "sub": "bob", "client_id": "app", "org": {"id": 7}})
    between = (
        [] if same_hop else [ref("set-headers", request={"headers": [{"name": "a", "value": "b"}]})]
    )
    chain = [ref("opaque-token-auth"), *between, SIGNED]
    async with http_backend(lambda _: Said(body=live.encode())) as idp:
        provider = {"name": "company", "introspection": {"uri": f"{idp.url}/introspect"}}
        system = SystemParameters.model_validate(
            {
                "introspection_providers": [provider],
                "backend_jwt_key": SYSTEM.backend_jwt_key,
                "backend_jwt_algorithm": "ES256",
            }
        )
        async with python_gateway(chain, system=system) as running:
            claims = await received(running, bearer("opaque"))
            assert (claims["sub"], claims["auth_type"]) == ("bob", "opaque")
            assert (claims["credential_id"], claims["tenant"]) == ("app", 7)


async def test_through_envoy_users_with_a_password_are_told_by_name() -> None:
    chain = [ref("basic-auth", username="shop", password="s"), SIGNED]
    async with python_gateway(chain, system=SYSTEM) as running:
        claims = await received(running, {"Authorization": basic("shop", "s")})
        assert set(claims) == {"iss", "sub", "iat", "exp"}
        assert claims["sub"] == "shop"


async def test_the_example_does_what_it_says() -> None:
    system = SYSTEM.model_copy(update={"key_managers": (key_manager("company", COMPANY),)})
    chain = [BY_JWT, ref("backend-jwt", **BackendJwt.example)]
    async with python_gateway(chain, system=system) as running:
        claims = await received(running, bearer(COMPANY.token(tenant="acme")))
        assert (claims["organization"], claims["env"]) == ("acme", "production")
