"""Who is asked about opaque tokens, how often, and what is remembered."""

import asyncio
import json
import time
from urllib.parse import parse_qs

import pytest
from pydantic import ValidationError

from policy_engine.errors import PolicyNotCompiled
from policy_engine.hooks import Answer
from policy_engine.system import SystemParameters
from tests.policy_engine.exchanges import reaching
from tests.policy_engine.opaque_tokens import (
    LIVE,
    asking,
    made,
    provider,
    scope,
    seen,
    status,
)
from tests.servers.http_backend import Answer as Said
from tests.servers.http_backend import HttpBackend, Received, http_backend


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
