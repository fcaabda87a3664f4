import asyncio
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

import pytest
from pydantic import ValidationError

from policy_engine.errors import InvalidParameters, PolicyNotCompiled
from policy_engine.headers import APPLICATION_HEADER
from policy_engine.hooks import Answer, BodyVerdict, Exchange, Outside, PythonPolicy
from policy_engine.policies.opaque_token_auth import OpaqueTokenAuth
from policy_engine.policy import Scope
from policy_engine.system import SystemParameters
from tests.policy_engine.attached import basic, policy
from tests.policy_engine.exchanges import exchange, reaching, result
from tests.policy_engine.python_gateway import python_gateway, ref
from tests.policy_engine.tokens import bearer
from tests.servers.http_backend import Answer as Said
from tests.servers.http_backend import HttpBackend, Received, http_backend

LIVE: dict[str, Any] = {
    "active": True,
    "sub": "ann",
    "client_id": "shop",
    "username": "Ann Ä",
    "scope": "orders:read orders:write",
    "aud": ["orders", "billing"],
    "tenant": "acme",
    "realm": {"roles": ["clerk"], "level": 3},
}
TOKENS = {"good": LIVE, "dead": {"active": False}, "other": LIVE | {"sub": "bob"}}


def provider(said: dict[str, dict[str, Any]] = TOKENS) -> Callable[[Received], Said]:
    """An introspection server that knows these tokens."""

    def answer(request: Received) -> Said:
        assert (request.method, request.path) == ("POST", "/introspect")
        (token,) = parse_qs(request.body.decode())["token"]
        return Said(body=json.dumps(said.get(token, {"active": False})).encode())

    return answer


def asking(*backends: HttpBackend, **fields: Any) -> SystemParameters:
    """A gateway that trusts them, as `company`, `company-2`, ..."""
    providers = [
        {
            "name": "company" if not number else f"company-{number + 1}",
            "issuer": f"https://idp-{number + 1}.example",
            "introspection": {
                "uri": f"{one.url}/introspect",
                "client_id": "gateway",
                "client_secret": "s:ecret",
            },
        }
        for number, one in enumerate(backends)
    ]
    quick = {"introspection_retry_interval_s": 0.01}
    return SystemParameters.model_validate(quick | {"introspection_providers": providers} | fields)


def made(**params: Any) -> OpaqueTokenAuth:
    found = policy("opaque-token-auth", **params)
    assert isinstance(found, OpaqueTokenAuth)
    return found


async def seen(
    by: PythonPolicy, outside: Outside, system: SystemParameters, *tokens: str, **headers: str
) -> tuple[Exchange, BodyVerdict]:
    """The request with this token after the policy, and what the policy said."""
    given = {"Authorization": f"Bearer {tokens[0]}"} if tokens else {}
    request = exchange(given | headers, outside=outside, system=system)
    return request, await result(by.on_request_headers(request))


def status(verdict: BodyVerdict) -> int:
    return verdict.status if isinstance(verdict, Answer) else 200


def challenge(verdict: BodyVerdict) -> str:
    assert isinstance(verdict, Answer)
    assert json.loads(verdict.body) == {
        "error": "Unauthorized",
        "message": "Authentication failed",
    }
    return dict(verdict.headers)["www-authenticate"]


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


async def test_what_was_said_is_remembered_by_all_uses_of_the_policy() -> None:
    async with http_backend(provider()) as idp, reaching() as outside:
        system = asking(idp)
        for token, expected in (("good", 200), ("dead", 401)):
            for auth in (made(), made(), made(audiences=["orders"])):
                _, verdict = await seen(auth, outside, system, token)
                assert status(verdict) == expected
        assert len(idp.requests) == 2


async def test_it_is_not_remembered_longer_than_the_token_lives() -> None:
    said = {"short": LIVE | {"exp": time.time() - 5}}  # live by the leeway only
    async with http_backend(provider(said)) as idp, reaching() as outside:
        system = asking(idp)
        for _ in range(2):
            assert status((await seen(made(), outside, system, "short"))[1]) == 200
        assert len(idp.requests) == 2


async def test_without_a_time_to_live_every_request_asks() -> None:
    off = {"introspection_cache_ttl_s": 0, "introspection_negative_cache_ttl_s": 0}
    async with http_backend(provider()) as idp, reaching() as outside:
        system = asking(idp, **off)
        for token in ("good", "good", "dead", "dead"):
            await seen(made(), outside, system, token)
        assert len(idp.requests) == 4


async def test_no_more_is_remembered_than_allowed() -> None:
    async with http_backend(provider()) as idp, reaching() as outside:
        system = asking(idp, introspection_cache_entries=1)
        for token in ("good", "other", "good", "good"):
            assert status((await seen(made(), outside, system, token))[1]) == 200
        assert len(idp.requests) == 3


async def test_requests_with_the_same_token_ask_once() -> None:
    def slow(request: Received) -> Said:
        return Said(body=provider()(request).body, delay_s=0.2)

    async with http_backend(slow) as idp, reaching() as outside:
        system = asking(idp)
        every = await asyncio.gather(*(seen(made(), outside, system, "good") for _ in range(50)))
        assert [status(verdict) for _, verdict in every] == [200] * 50
        assert len(idp.requests) == 1


async def test_whoever_asks_may_leave_and_the_others_are_answered_all_the_same() -> None:
    arrived = asyncio.Event()

    def slow(request: Received) -> Said:
        arrived.set()
        return Said(body=provider()(request).body, delay_s=0.2)

    async with http_backend(slow) as idp, reaching() as outside, asyncio.TaskGroup() as group:
        system = asking(idp)
        first = group.create_task(seen(made(), outside, system, "good"))
        async with asyncio.timeout(20):
            await arrived.wait()
        second = group.create_task(seen(made(), outside, system, "good"))
        await asyncio.sleep(0)
        first.cancel()
        assert status((await second)[1]) == 200


@pytest.mark.parametrize(
    "said",
    [
        Said(500),
        Said(401),
        Said(body=b"nonsense"),
        Said(body=b"[]"),
        Said(body=b'{"active":"yes"}'),
        Said(body=b'{"active":true,"x":"' + b"x" * 70_000 + b'"}'),
        Said(body=b'{"active":true}', delay_s=5),
    ],
)
async def test_while_no_provider_answers_nobody_passes(said: Said) -> None:
    async with http_backend(lambda _: said) as idp, reaching() as outside:
        system = asking(idp, introspection_timeout_s=0.3)
        _, verdict = await seen(made(), outside, system, "good")
        assert isinstance(verdict, Answer)
        assert verdict.status == 503
        assert json.loads(verdict.body)["error"] == "Service Unavailable"
        idp.answer = provider()  # nothing of it is remembered
        assert status((await seen(made(), outside, asking(idp), "good"))[1]) == 200


async def test_a_provider_that_fails_is_asked_again() -> None:
    answers = [Said(503), Said(503)]

    def at_last(request: Received) -> Said:
        return answers.pop() if answers else provider()(request)

    async with http_backend(at_last) as idp, reaching() as outside:
        assert status((await seen(made(), outside, asking(idp), "good"))[1]) == 200
        assert len(idp.requests) == 3


async def test_providers_are_asked_in_their_order_until_one_knows_the_token() -> None:
    async with (
        http_backend(provider({})) as first,
        http_backend(provider()) as second,
        reaching() as outside,
    ):
        system = asking(first, second)
        assert status((await seen(made(), outside, system, "good"))[1]) == 200
        assert (len(first.requests), len(second.requests)) == (1, 1)
        only = made(issuers=["https://idp-1.example"])
        assert status((await seen(only, outside, system, "good"))[1]) == 401
        first.answer = lambda _: Said(500)
        assert status((await seen(made(), outside, asking(first, second), "good"))[1]) == 200
        assert status((await seen(made(), outside, asking(first, second), "dead"))[1]) == 503


async def test_a_provider_is_asked_about_its_own_tokens_only() -> None:
    async with http_backend(provider()) as idp, reaching() as outside:
        (only,) = asking(idp).introspection_providers
        marked = only.model_copy(update={"token_pattern": "^go"})
        system = SystemParameters(introspection_providers=(marked,))
        assert status((await seen(made(), outside, system, "good"))[1]) == 200
        assert status((await seen(made(), outside, system, "other"))[1]) == 401
        assert len(idp.requests) == 1


@pytest.mark.parametrize(
    ("how", "authorization", "form"),
    [
        ({}, None, {}),
        ({"bearer_token": "mine"}, "Bearer mine", {}),
        (
            {"client_id": "gw", "client_secret": "s", "auth_style": "post", "token_type_hint": ""},
            None,
            {"client_id": ["gw"], "client_secret": ["s"]},
        ),
    ],
)
async def test_the_gateway_says_who_it_is_as_it_is_told(
    how: dict[str, str], authorization: str | None, form: dict[str, list[str]]
) -> None:
    async with http_backend(provider()) as idp, reaching() as outside:
        introspection = {"uri": f"{idp.url}/introspect"} | how
        system = SystemParameters.model_validate(
            {"introspection_providers": [{"name": "a", "introspection": introspection}]}
        )
        await seen(made(), outside, system, "good")
        assert idp.last.header("authorization") == authorization
        sent = parse_qs(idp.last.body.decode())
        assert sent.pop("token") == ["good"]
        assert ("token_type_hint" in sent) is ("token_type_hint" not in how)
        sent.pop("token_type_hint", None)
        assert sent == form


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


def scope(system: SystemParameters) -> Scope:
    return Scope("api", "orders", "Orders", "v1", "/orders", system=system)


def test_a_gateway_without_the_provider_refuses_the_api() -> None:
    with pytest.raises(PolicyNotCompiled, match="set introspection_providers in"):
        made().check(scope(SystemParameters()))
    known = asking(HttpBackend(port=1))
    made(issuers=["company"]).check(scope(known))
    made(issuers=["https://idp-1.example"]).check(scope(known))
    with pytest.raises(PolicyNotCompiled, match="no introspection provider 'x'; it has company"):
        made(issuers=["x"]).check(scope(known))


def test_it_may_take_as_long_as_its_providers() -> None:
    two = asking(HttpBackend(port=1), HttpBackend(port=2), introspection_timeout_s=2)
    assert made().patience_s(two) == 4.5
    assert made(issuers=["company"]).patience_s(two) == 2.5


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


@pytest.mark.parametrize(
    ("introspection", "reason"),
    [
        ({"uri": "idp"}, "must be an http or https URL"),
        ({"uri": "http://a", "client_id": "a", "bearer_token": "b"}, "only one of"),
        ({"uri": "http://a", "certificate_path": "/nowhere.pem"}, "cannot be read"),
    ],
)
def test_wrong_settings_are_refused(introspection: dict[str, str], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        SystemParameters.model_validate(
            {"introspection_providers": [{"name": "a", "introspection": introspection}]}
        )


def test_secrets_are_not_shown() -> None:
    assert "s:ecret" not in repr(asking(HttpBackend(port=1)))


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
