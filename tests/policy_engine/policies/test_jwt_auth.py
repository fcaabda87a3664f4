import time
from typing import Any

import pytest

from policy_engine.catalogue import load
from policy_engine.chain import compile_chain
from policy_engine.errors import PolicyNotCompiled
from policy_engine.parameters.headers import APPLICATION_HEADER
from policy_engine.refusals import local_reply_config
from policy_engine.system import SystemParameters
from tests.policy_engine.attached import COMPANY, SYSTEM, limit, policy
from tests.policy_engine.gateway import Api, gateway
from tests.policy_engine.jwts import FORWARDED, jwt, opened, status, trusting
from tests.policy_engine.tokens import Algorithm, Signer, bearer, key_manager


async def test_only_valid_tokens_pass_and_say_who_calls() -> None:
    now = int(time.time())
    stranger = Signer("stranger")
    stranger.kid, stranger.issuer = COMPANY.kid, COMPANY.issuer
    async with gateway(Api((jwt(),))) as running:
        claimed = bearer(COMPANY.token()) | {APPLICATION_HEADER: "admin"}
        for _ in range(2):  # verified, then remembered
            assert await status(running, claimed) == 200
            assert running.backend.last.all(APPLICATION_HEADER) == ["ann"]
        assert await opened(running, exp=now - 20) == 200  # clocks differ
        head, payload, signature = COMPANY.token().split(".")
        for wrong in (
            {},
            {"Authorization": "Bearer"},
            {"Authorization": "Bearer x.y.z"},
            {"Authorization": f"Basic {COMPANY.token()}"},
            {"Authorization": COMPANY.token()},
            bearer(f"{head}.{payload}."),
            bearer(f"{head}.{payload}.{signature[:-8]}AAAAAAAA"),
            bearer(stranger.token()),
            bearer(COMPANY.token("none")),
            bearer(COMPANY.token(exp=now - 100)),
            bearer(COMPANY.token(nbf=now + 100)),
            bearer(COMPANY.token(iss="https://other.example")),
        ):
            assert await status(running, wrong) == 401, wrong
        query = await running.client.get(f"/?access_token={COMPANY.token()}")
        assert query.status_code == 401
        assert len(running.backend.requests) == 3


async def test_why_a_token_is_refused_is_told_in_the_words_of_oauth() -> None:
    async with gateway(Api((jwt(scopes={"allOf": ["a"]}),))) as running:
        for headers, challenge in (
            ({}, "Bearer"),
            (bearer("x.y.z"), 'Bearer error="invalid_token"'),
            (bearer(COMPANY.token()), 'Bearer error="insufficient_scope"'),
        ):
            answer = await running.client.get("/", headers=headers)
            assert answer.status_code == 401
            assert answer.headers.get_list("www-authenticate") == [challenge]


@pytest.mark.parametrize("algorithm", ["RS256", "PS256", "ES256"])
async def test_the_three_algorithms_are_accepted(algorithm: Algorithm) -> None:
    signer = Signer("one", algorithm)
    async with gateway(Api((jwt(),), system=trusting(signer))) as running:
        assert await status(running, bearer(signer.token())) == 200


async def test_other_algorithms_are_refused() -> None:
    signer = Signer("one", "RS256")
    async with gateway(Api((jwt(),), system=trusting(signer))) as running:
        assert await status(running, bearer(signer.token("PS256"))) == 200
        assert await status(running, bearer(signer.token("RS512"))) == 401


async def test_only_the_named_key_managers_are_trusted() -> None:
    one, two = Signer("one"), Signer("two", "RS256")
    operations = {"/one": (jwt(issuers=["one"]),), "/both": (jwt(),)}
    async with gateway(Api((), operations, system=trusting(one, two))) as running:
        assert await status(running, bearer(one.token()), "/one") == 200
        assert await status(running, bearer(two.token()), "/one") == 401
        assert await status(running, bearer(one.token()), "/both") == 200
        assert await status(running, bearer(two.token()), "/both") == 200
        assert await status(running, bearer(two.token(iss=one.issuer)), "/both") == 401


def test_a_key_manager_that_is_not_there_is_told() -> None:
    api = Api(system=SYSTEM)
    with pytest.raises(PolicyNotCompiled, match="no key manager 'bank'; it has company"):
        compile_chain((jwt(issuers=["bank"]),), api.scope("api"))
    with pytest.raises(PolicyNotCompiled, match=r"set key_managers in \[policies\]"):
        compile_chain((jwt(),), Api(system=SystemParameters()).scope("api"))


async def test_issuers_need_not_be_checked() -> None:
    system = trusting(COMPANY, jwt_validate_issuer=False)
    async with gateway(Api((jwt(),), system=system)) as running:
        assert await opened(running, iss="anybody") == 200
        assert await opened(running, iss=None) == 200


async def test_a_token_must_be_meant_for_one_of_the_audiences() -> None:
    async with gateway(Api((jwt(audiences=["a", "b"]),))) as running:
        assert await opened(running, aud="b") == 200
        assert await opened(running, aud=["x", "a"]) == 200
        for audience in (None, "x", ["ab"]):
            assert await opened(running, aud=audience) == 401


async def test_scopes_are_looked_for_in_text_and_in_lists() -> None:
    operations = {
        "/all": (jwt(scopes={"allOf": ["a.b", "c"]}, requiredScopes=["ignored"]),),
        "/any": (jwt(scopes={"anyOf": ["a.b", "c"]}),),
        "/old": (jwt(requiredScopes=["a.b", "c"]),),
    }
    async with gateway(Api((), operations)) as running:
        for scope, every, some in (
            ("a.b c", 200, 200),
            (["c", "a.b"], 200, 200),
            ("x c", 401, 200),
            (["a.b"], 401, 200),
            ("axb cc", 401, 401),
            ("", 401, 401),
            (None, 401, 401),
            ({"c": "c"}, 401, 401),
        ):
            assert await opened(running, "/all", scope=scope) == every, scope
            assert await opened(running, "/any", scope=scope) == some, scope
            assert await opened(running, "/old", scope=scope) == some, scope


async def test_each_key_manager_has_its_own_claim_for_scopes() -> None:
    one, two = Signer("one"), Signer("two")
    managers = (
        key_manager("one", one),
        key_manager("two", two, scope_claim="scp", scope_claim_separator=","),
    )
    system = SystemParameters(key_managers=managers)
    async with gateway(Api((jwt(scopes={"anyOf": ["b"]}),), system=system)) as running:
        assert await status(running, bearer(one.token(scope="a b"))) == 200
        assert await status(running, bearer(two.token(scp="a,b"))) == 200
        assert await status(running, bearer(two.token(scope="a b"))) == 401
        assert await status(running, bearer(one.token(scp="a,b"))) == 401


async def test_claims_may_be_inside_others_and_of_any_type() -> None:
    wanted = {
        "allOf": [
            {"claim": "realm_access.roles", "values": ["clerk", "manager"]},
            {"claim": "https://example.com/tier", "values": ["gold"]},
        ],
        "anyOf": [
            {"claim": "verified", "values": ["true"]},
            {"claim": "level", "values": ["7"]},
        ],
    }
    good = {
        "realm_access": {"roles": ["x", "manager"]},
        "https://example.com/tier": "gold",
        "verified": True,
    }
    async with gateway(Api((jwt(claims=wanted),))) as running:
        assert await opened(running, **good) == 200
        assert await opened(running, **good | {"verified": False, "level": 7}) == 200
        for bad in (
            {"verified": False},
            {"verified": None},
            {"realm_access": {"roles": []}},
            {"realm_access": "manager"},
            {"https://example.com/tier": "golden"},
        ):
            assert await opened(running, **good | bad) == 401, bad


async def test_required_claims_must_all_be_equal() -> None:
    async with gateway(Api((jwt(requiredClaims={"tenant": "acme", "env": "live"}),))) as running:
        assert await opened(running, tenant="acme", env="live") == 200
        assert await opened(running, tenant="acme") == 401
        assert await opened(running, tenant="acme", env="test") == 401


async def test_claims_go_to_headers_that_callers_cannot_set() -> None:
    mappings = {"email": "X-Email", "realm.team": "X-Team"}
    async with gateway(Api((jwt(claimMappings=mappings, userIdClaim="azp"),))) as running:
        token = bearer(COMPANY.token(email="a@b.c", realm={"team": "blue"}, azp="shop"))
        assert await status(running, token | {"X-Email": "forged"}) == 200
        assert running.backend.last.all("x-email") == ["a@b.c"]
        assert running.backend.last.all("x-team") == ["blue"]
        assert running.backend.last.all(APPLICATION_HEADER) == ["shop"]
        assert await status(running, bearer(COMPANY.token()) | {"X-Email": "forged"}) == 200
        assert running.backend.last.all("x-email") == []


async def test_a_claim_with_a_line_break_adds_no_header() -> None:
    async with gateway(Api((jwt(claimMappings={"email": "X-Email"}),))) as running:
        token = bearer(COMPANY.token(email="a\r\nX-Admin: 1", sub="x\r\ny"))
        assert await status(running, token) == 503  # the router sends no such request
        assert not running.backend.requests


@pytest.mark.parametrize(
    ("params", "headers"),
    [
        ({}, {FORWARDED: "Bearer {}"}),
        ({"forwardTokenStripScheme": True}, {FORWARDED: "{}"}),
        ({"forwardToken": False}, {}),
        ({"forwardedTokenHeader": "Authorization"}, {"authorization": "Bearer {}"}),
        (
            {"forwardedTokenHeader": "Authorization", "forwardTokenStripScheme": True},
            {"authorization": "{}"},
        ),
        ({"forwardedTokenHeader": "X-Token"}, {"x-token": "Bearer {}"}),
    ],
)
async def test_the_token_is_forwarded_as_it_is_said(
    params: dict[str, Any], headers: dict[str, str]
) -> None:
    token = COMPANY.token()
    async with gateway(Api((jwt(**params),))) as running:
        assert await status(running, bearer(token) | {FORWARDED: "forged"}) == 200
        sent = {
            one: running.backend.last.all(one) for one in ("authorization", FORWARDED, "x-token")
        }
        expected = {name: [value.format(token)] for name, value in headers.items()}
        if params.get("forwardedTokenHeader"):
            expected[FORWARDED] = ["forged"]  # nobody has said that it is special
        assert {name: values for name, values in sent.items() if values} == expected


async def test_a_token_may_be_in_another_header_with_another_scheme() -> None:
    operations = {
        "/plain": (jwt(headerName="X-Token", authHeaderPrefix=""),),
        "/scheme": (jwt(authHeaderPrefix="DPoP"),),
        "/": (jwt(),),
    }
    async with gateway(Api((), operations)) as running:
        token = COMPANY.token()
        assert await status(running, {"X-Token": token}, "/plain") == 200
        assert running.backend.last.header("x-token") is None
        assert await status(running, bearer(token), "/plain") == 401
        assert await status(running, {"Authorization": f"dpop {token}"}, "/scheme") == 200
        assert await status(running, bearer(token), "/scheme") == 401
        assert await status(running, {"Authorization": f"dPoP {token}"}, "/scheme") == 200
        for scheme in ("bearer", "BEARER", "bEaReR", "Bearer  "):
            assert await status(running, {"Authorization": f"{scheme} {token}"}) == 200, scheme
        for wrong in ("Bearers", "Basic", "x Bearer", "Bearer\t"):
            answer = await running.client.get("/", headers={"Authorization": f"{wrong} {token}"})
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_both_levels_look_at_the_same_token() -> None:
    api = Api((jwt(),), {"/": (), "/admin": (jwt(scopes={"anyOf": ["admin"]}),)})
    async with gateway(api) as running:
        assert await opened(running, "/") == 200
        assert await opened(running, "/admin") == 401
        assert await opened(running, "/admin", scope="admin") == 200
        assert running.backend.last.header("authorization") is None


async def test_a_limit_behind_it_counts_only_who_may_pass() -> None:
    async with gateway(Api((jwt(), limit(1)))) as running:
        assert [await status(running, {}) for _ in range(2)] == [401, 401]
        assert [await opened(running) for _ in range(2)] == [200, 429]
    async with gateway(Api((limit(1), jwt()))) as running:
        assert [await status(running, {}), await opened(running)] == [401, 429]


async def test_without_caching_every_token_is_verified() -> None:
    system = trusting(COMPANY, jwt_token_caching=False)
    async with gateway(Api((jwt(),), system=system)) as running:
        assert [await opened(running) for _ in range(2)] == [200, 200]
        assert await status(running, bearer("x.y.z")) == 401


@pytest.mark.parametrize(
    ("words", "content_type", "body"),
    [
        (
            {"jwt_failure_status": 403, "jwt_error_message": "100% no"},
            "application/json",
            '{"error":"Unauthorized","message":"100% no"}',
        ),
        (
            {"jwt_error_format": "plain", "jwt_error_message": "100% {no}"},
            "text/plain",
            "100% {no}",
        ),
        ({"jwt_error_format": "minimal"}, "text/plain", "Unauthorized"),
    ],
)
async def test_refusals_look_as_the_gateway_is_set_to(
    words: dict[str, Any], content_type: str, body: str
) -> None:
    system = trusting(COMPANY, **words)
    reply = local_reply_config(load((), system=system).refusals())
    chain = (jwt(scopes={"allOf": ["a"]}),)
    async with gateway(Api(chain, system=system, local_reply=reply)) as running:
        for headers, challenge in (
            ({}, "Bearer"),
            (bearer("x.y.z"), 'Bearer error="invalid_token"'),
            (bearer(COMPANY.token()), 'Bearer error="insufficient_scope"'),
        ):
            answer = await running.client.get("/", headers=headers)
            assert answer.status_code == words.get("jwt_failure_status", 401)
            assert (answer.headers["content-type"], answer.text) == (content_type, body)
            assert answer.headers.get_list("www-authenticate") == [challenge]


async def test_who_has_a_token_that_names_nobody_is_known_all_the_same() -> None:
    async with gateway(Api((jwt(forwardToken=False),))) as running:
        assert await opened(running, sub=None) == 200
        assert running.backend.last.all(APPLICATION_HEADER) == ["-"]
    cached = policy("response-cache", ttl="1m", perCaller=True)
    async with gateway(Api((jwt(forwardToken=False), cached))) as running:
        for _ in range(2):
            answer = await running.client.get("/", headers=bearer(COMPANY.token(sub=None)))
            assert answer.headers["x-cache-status"] == "BYPASS"
