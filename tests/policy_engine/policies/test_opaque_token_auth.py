import json
import time
from typing import Any
from urllib.parse import parse_qs

import pytest

from policy_engine.errors import InvalidParameters
from policy_engine.hooks import Answer
from policy_engine.parameters.headers import APPLICATION_HEADER
from policy_engine.policies.opaque_token_auth import OpaqueTokenAuth
from tests.policy_engine.attached import basic
from tests.policy_engine.exchanges import exchange, reaching, result
from tests.policy_engine.opaque_tokens import LIVE, asking, challenge, made, provider, seen, status
from tests.policy_engine.python_gateway import python_gateway, ref
from tests.policy_engine.tokens import bearer
from tests.servers.http_backend import Answer as Said
from tests.servers.http_backend import http_backend


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "bEaReR"])
async def test_the_scheme_is_in_any_case(scheme: str) -> None:
    async with http_backend(provider()) as idp, reaching() as outside:
        given = exchange({"Authorization": f"{scheme} good"}, outside=outside, system=asking(idp))
        assert await result(made().on_request_headers(given)) is None


async def test_a_live_token_passes_and_tells_who_calls() -> None:
    auth = made(claimMappings={"username": "X-User", "missing": "X-Missing"})
    async with http_backend(provider()) as idp, reaching() as outside:
        spoofed = {APPLICATION_HEADER: "admin", "X-User": "root", "X-Missing": "root"}
        request, verdict = await seen(auth, outside, asking(idp), "good", **spoofed)
        assert verdict is None
        headers = request.request.headers
        assert headers.all(APPLICATION_HEADER) == ("ann",)
        assert headers.all("x-user") == ("Ann %C3%84",)
        assert "x-missing" not in headers
        assert "authorization" not in headers
        assert headers.get("x-forwarded-authorization") == "Bearer good"
        identity = request.published["identity"]
        assert (identity["type"], identity["provider"]) == ("opaque", "company")
        assert identity["claims"] == {key: one for key, one in LIVE.items() if key != "active"}
        assert "good" not in repr(request.published)
        asked = idp.last
        assert asked.header("authorization") == basic("gateway", "s%3Aecret")
        assert parse_qs(asked.body.decode()) == {
            "token": ["good"],
            "token_type_hint": ["access_token"],
        }


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        (None, "Bearer"),
        ("Basic Z29vZDo=", "Bearer"),
        ("good", "Bearer"),
        ("Bearer", 'Bearer error="invalid_token"'),
        ("Bearer dead", 'Bearer error="invalid_token"'),
        ("Bearer unknown", 'Bearer error="invalid_token"'),
        ("Bearer go od", 'Bearer error="invalid_token"'),
        ("Bearer göod", 'Bearer error="invalid_token"'),
        ("Bearer " + "x" * 9000, 'Bearer error="invalid_token"'),
    ],
)
async def test_anything_else_is_refused(authorization: str | None, expected: str) -> None:
    given = {} if authorization is None else {"Authorization": authorization}
    async with http_backend(provider()) as idp, reaching() as outside:
        _, verdict = await seen(made(), outside, asking(idp), **given)
        assert status(verdict) == 401
        assert challenge(verdict) == expected


async def test_two_tokens_are_refused() -> None:
    async with http_backend(provider()) as idp, reaching() as outside:
        request = exchange({"Authorization": "Bearer good"}, outside=outside, system=asking(idp))
        request.request.headers.append("authorization", "Bearer other")
        verdict = await result(made().on_request_headers(request))
        assert challenge(verdict) == 'Bearer error="invalid_request"'


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"audiences": ["orders", "x"]}, 200),
        ({"audiences": ["x"]}, 401),
        ({"requiredScopes": ["x", "orders:write"]}, 200),
        ({"requiredScopes": ["orders"]}, 401),
        ({"requiredClaims": {"tenant": "acme", "realm.roles": "clerk", "realm.level": "3"}}, 200),
        ({"requiredClaims": {"tenant": "acme", "realm.roles": "chief"}}, 401),
        ({"requiredClaims": {"missing": "x"}}, 401),
    ],
)
async def test_a_token_must_be_good_for_the_request(params: dict[str, Any], expected: int) -> None:
    async with http_backend(provider()) as idp, reaching() as outside:
        _, verdict = await seen(made(**params), outside, asking(idp), "good")
        assert status(verdict) == expected
        if "requiredScopes" in params and expected == 401:
            assert challenge(verdict) == 'Bearer error="insufficient_scope"'


@pytest.mark.parametrize(
    ("scopes", "lacking"),
    [
        ({}, None),
        ({"allOf": ["orders:read", "orders:write"]}, None),
        ({"anyOf": ["admin", "orders:read"]}, None),
        ({"allOf": ["orders:read"], "anyOf": ["admin", "orders:write"]}, None),
        ({"allOf": ["orders:read", "admin"]}, "admin"),
        ({"allOf": ["orders"]}, "orders"),
        ({"anyOf": ["admin", "chief"]}, "admin chief"),
        ({"allOf": ["orders:read", "audit"], "anyOf": ["admin", "audit"]}, "audit admin"),
        ({"allOf": ["orders:read", "audit"], "anyOf": ["orders:write"]}, "audit"),
    ],
)
@pytest.mark.parametrize("named", ["scope", "scp"])
async def test_a_token_must_have_every_scope_of_all_and_one_of_any(
    scopes: dict[str, list[str]], lacking: str | None, named: str
) -> None:
    granted = LIVE["scope"] if named == "scope" else LIVE["scope"].split()
    bare = {key: value for key, value in LIVE.items() if key != "scope"}
    said = {"good": bare | {named: granted}}
    async with http_backend(provider(said)) as idp, reaching() as outside:
        auth = made(scopes=scopes, requiredScopes=["not looked at"])
        request, verdict = await seen(auth, outside, asking(idp), "good")
    if lacking is None:
        assert verdict is None
        return
    assert isinstance(verdict, Answer)
    assert verdict.status == 403
    assert json.loads(verdict.body) == {"error": "Forbidden", "message": "The token lacks a scope"}
    assert dict(verdict.headers)["www-authenticate"] == (
        f'Bearer error="insufficient_scope", scope="{lacking}"'
    )
    assert verdict.reason == f"the token lacks scope {lacking.replace(' ', ', ')}"
    assert "identity" not in request.published


async def test_a_scope_that_no_challenge_can_hold_is_not_named_in_it() -> None:
    async with http_backend(provider()) as idp, reaching() as outside:
        auth = made(scopes={"allOf": ['a"b', "c\r\nx: y", "ä"]})
        _, verdict = await seen(auth, outside, asking(idp), "good")
        assert isinstance(verdict, Answer)
        assert dict(verdict.headers)["www-authenticate"] == 'Bearer error="insufficient_scope"'


async def test_a_token_without_scopes_has_none() -> None:
    said = {"bare": {"active": True, "sub": "ann"}}
    async with http_backend(provider(said)) as idp, reaching() as outside:
        for scopes in ({"allOf": ["a"]}, {"anyOf": ["a"]}):
            _, verdict = await seen(made(scopes=scopes), outside, asking(idp), "bare")
            assert status(verdict) == 403


async def test_a_tokens_times_are_looked_at_again() -> None:
    now = int(time.time())
    said = {
        "expired": LIVE | {"exp": now - 31},
        "late": LIVE | {"exp": now - 20},
        "early": LIVE | {"nbf": now + 60},
        "soon": LIVE | {"nbf": now + 20},
        "odd": LIVE | {"exp": "tomorrow"},
    }
    async with http_backend(provider(said)) as idp, reaching() as outside:
        for token, expected in (
            ("expired", 401),
            ("late", 200),
            ("early", 401),
            ("soon", 200),
            ("odd", 200),
        ):
            _, verdict = await seen(made(), outside, asking(idp), token)
            assert status(verdict) == expected, token


@pytest.mark.parametrize(
    ("params", "left"),
    [
        ({"forwardToken": False}, {}),
        ({"forwardedTokenHeader": "Authorization"}, {"authorization": "Bearer good"}),
        ({"forwardedTokenHeader": "X-Token"}, {"x-token": "Bearer good"}),
    ],
)
async def test_the_upstream_gets_the_token_where_it_should(
    params: dict[str, Any], left: dict[str, str]
) -> None:
    names = ("authorization", "x-token", "x-forwarded-authorization")
    spoofed = {"X-Token": "mine"} if "X-Token" in repr(params) else {}
    if params == {"forwardToken": False}:
        spoofed = {"X-Forwarded-Authorization": "mine"}
    async with http_backend(provider()) as idp, reaching() as outside:
        request, _ = await seen(made(**params), outside, asking(idp), "good", **spoofed)
        headers = dict(request.request.headers.items())
        assert {name: headers[name] for name in names if name in headers} == left


async def test_a_token_may_be_elsewhere_and_stand_alone() -> None:
    auth = made(headerName="X-Token", authHeaderPrefix="")
    async with http_backend(provider()) as idp, reaching() as outside:
        _, verdict = await seen(auth, outside, asking(idp), **{"X-Token": "good"})
        assert verdict is None


async def test_at_both_levels_the_second_judges_what_the_first_has_learned() -> None:
    async with http_backend(provider()) as idp, reaching() as outside:
        system = asking(idp)
        first, _ = await seen(made(), outside, system, "good")
        later = exchange(
            dict(first.request.headers.items()),
            system=system,
            metadata={"signalbox": first.published},
        )
        assert await result(made(audiences=["orders"]).on_request_headers(later)) is None
        assert later.request.headers.get(APPLICATION_HEADER) == "ann"
        assert later.request.headers.get("x-forwarded-authorization") == "Bearer good"
        strict = made(audiences=["other"])
        assert status(await result(strict.on_request_headers(later))) == 401
        away = made(forwardToken=False)
        assert await result(away.on_request_headers(later)) is None
        assert "x-forwarded-authorization" not in later.request.headers


async def test_without_a_subject_the_client_calls() -> None:
    said = {"good": {"active": True, "client_id": "shop"}, "nobody": {"active": True}}
    async with http_backend(provider(said)) as idp, reaching() as outside:
        for token, who in (("good", "shop"), ("nobody", "-")):
            request, _ = await seen(made(), outside, asking(idp), token)
            assert request.request.headers.get(APPLICATION_HEADER) == who


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"headerName": "Host"}, "headerName"),
        ({"claimMappings": {"sub": "x-signalbox-application"}}, "claimMappings.sub"),
        ({"audiences": [""]}, "audiences[0]"),
        ({"scopes": {"allOf": [""]}}, "scopes.allOf[0]"),
        ({"scopes": {"noneOf": ["a"]}}, "scopes.noneOf"),
        ({"introspectionUri": "http://x"}, "introspectionUri"),
    ],
)
def test_wrong_parameters_are_told_by_their_path(params: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidParameters) as caught:
        made(**params)
    assert [fault.path for fault in caught.value.faults] == [path]


async def test_through_envoy_only_live_tokens_pass_and_tell_who_calls() -> None:
    one = ref("opaque-token-auth", claimMappings={"username": "X-User"})
    async with http_backend(provider()) as idp, python_gateway([one], system=asking(idp)) as gw:
        spoofed = {APPLICATION_HEADER: "admin", "X-User": "root"}
        answer = await gw.client.get("/items", headers=bearer("good") | spoofed)
        assert answer.status_code == 200
        got = gw.backend.last
        assert got.all("x-user") == ["Ann %C3%84"]
        assert got.header("authorization") is None
        assert got.header("x-forwarded-authorization") == "Bearer good"
        for headers, expected in (
            ({}, "Bearer"),
            (bearer("dead"), 'Bearer error="invalid_token"'),
            (bearer("unknown"), 'Bearer error="invalid_token"'),
        ):
            answer = await gw.client.get("/items", headers=headers)
            assert answer.status_code == 401
            assert answer.json()["message"] == "Authentication failed"
            assert answer.headers.get_list("www-authenticate") == [expected]
            assert answer.headers["content-type"] == "application/json"
        assert len(gw.backend.requests) == 1
        idp.answer = lambda _: Said(500)
        assert (await gw.client.get("/items", headers=bearer("good"))).status_code == 200
        assert (await gw.client.get("/items", headers=bearer("new"))).status_code == 503
        logged = await gw.logged(6)
        assert logged[0]["metadata"]["identity"]["claims"]["sub"] == "ann"
        assert "good" not in repr(logged[0]["metadata"])


async def test_through_envoy_both_levels_must_agree() -> None:
    api = [ref("opaque-token-auth")]
    operations = {
        "GET /plain": (),
        "GET /same": (ref("opaque-token-auth", requiredScopes=["orders:read"]),),
        "GET /strict": (ref("opaque-token-auth", requiredScopes=["admin"]),),
        "GET /scoped": (ref("opaque-token-auth", scopes={"anyOf": ["admin", "orders:read"]}),),
        "GET /forbidden": (ref("opaque-token-auth", scopes={"allOf": ["admin"]}),),
    }
    async with (
        http_backend(provider()) as idp,
        python_gateway(api, operations, system=asking(idp)) as gw,
    ):
        for path, expected in (
            ("/plain", 200),
            ("/same", 200),
            ("/strict", 401),
            ("/scoped", 200),
            ("/forbidden", 403),
        ):
            answer = await gw.client.get(path, headers=bearer("good"))
            assert answer.status_code == expected
            assert (await gw.client.get(path, headers=bearer("dead"))).status_code == 401
        assert [parse_qs(one.body.decode())["token"] for one in idp.requests] == [
            ["good"],
            ["dead"],
        ]


async def test_through_envoy_a_token_that_lacks_a_scope_is_forbidden_or_only_reported() -> None:
    params: dict[str, Any] = {"scopes": {"allOf": ["orders:read", "admin"]}}
    operations = {
        "GET /enforced": (ref("opaque-token-auth", **params),),
        "GET /shadowed": (ref("opaque-token-auth", mode="shadow", **params),),
    }
    async with (
        http_backend(provider()) as idp,
        python_gateway((), operations, system=asking(idp)) as gw,
    ):
        answer = await gw.client.get("/enforced", headers=bearer("good"))
        assert answer.status_code == 403
        assert answer.json() == {"error": "Forbidden", "message": "The token lacks a scope"}
        assert answer.headers.get_list("www-authenticate") == [
            'Bearer error="insufficient_scope", scope="admin"'
        ]
        assert not gw.backend.requests
        assert (await gw.client.get("/enforced")).status_code == 401
        answer = await gw.client.get("/shadowed", headers=bearer("good"))
        assert answer.status_code == 200
        assert gw.backend.last.header("authorization") == "Bearer good"
        logged = await gw.logged(3)
        assert logged[2]["shadow"] == {"opaque-token-auth": "the token lacks scope admin"}
        assert not logged[2]["metadata"]


async def test_the_example_does_what_it_says() -> None:
    example = ref("opaque-token-auth", **OpaqueTokenAuth.example)
    async with http_backend(provider()) as idp, python_gateway([example], system=asking(idp)) as gw:
        assert (await gw.client.get("/items", headers=bearer("good"))).status_code == 200
        assert gw.backend.last.header("x-user") == "Ann %C3%84"
        assert gw.backend.last.header("x-forwarded-authorization") is None
        idp.answer = provider({"bad": LIVE | {"tenant": "other"}})
        assert (await gw.client.get("/items", headers=bearer("bad"))).status_code == 401
        idp.answer = provider({"less": LIVE | {"scope": "orders:write"}})
        assert (await gw.client.get("/items", headers=bearer("less"))).status_code == 403
