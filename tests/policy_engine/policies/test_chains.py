"""Policies together in both orders, and the example of every native one.

The examples of Python policies run in the tests of each, with an engine.
"""

from hashlib import sha256

import pytest

from policy_engine.chain import compile_chain
from policy_engine.policy import Level, Policy
from policy_engine.subscriptions import Subscriber
from tests.policy_engine.attached import (
    CATALOGUE,
    COMPANY,
    basic,
    credential,
    key_policy,
    limit,
    policy,
)
from tests.policy_engine.gateway import Api, Gateway, gateway
from tests.policy_engine.tokens import bearer

# what a caller presents to the example of a policy that asks for something
PRESENTED = {
    "subscription-validation": {"Subscription-Key": "one"},
    "api-key-auth": {"API-Key": "k"},
    "basic-auth": {"Authorization": basic("shop", "correct horse battery staple")},
    "jwt-auth": bearer(
        COMPANY.token(aud="orders", scope="orders:read", realm_access={"roles": ["clerk"]})
    ),
}

# what callers get where nobody can present anything here; their own tests let somebody pass
TURNED_AWAY = {"mtls-client-identity": 401, "oidc-login": 302}


async def statuses(running: Gateway, *keys: str | None) -> list[int]:
    return [
        (await running.client.get("/", headers={"API-Key": key} if key else {})).status_code
        for key in keys
    ]


@pytest.mark.parametrize("levels", ["api", "operation", "api, then operation"])
async def test_key_then_limit_counts_only_who_may_pass(levels: str) -> None:
    pair = (key_policy(), limit(2))
    async with gateway(attached(levels, *pair)) as running:
        assert await statuses(running, None, "bad", None) == [401, 401, 401]
        assert await statuses(running, "k", "k", "k", None) == [200, 200, 429, 401]


@pytest.mark.parametrize("levels", ["api", "operation", "api, then operation"])
async def test_limit_then_key_counts_everybody(levels: str) -> None:
    pair = (limit(2), key_policy())
    async with gateway(attached(levels, *pair)) as running:
        assert await statuses(running, None, "bad", "k", None) == [401, 401, 429, 429]


def attached(levels: str, first: Policy, second: Policy) -> Api:
    known = (credential("k"),)
    match levels:
        case "api":
            return Api((first, second), credentials=known)
        case "operation":
            return Api((), {"/": (first, second)}, known)
        case _:
            return Api((first,), {"/": (second,)}, known)


@pytest.mark.parametrize("level", ["api", "operation"])
@pytest.mark.parametrize("name", [one.name for one in CATALOGUE if one.runs == "envoy"])
async def test_the_example_of_every_native_policy_runs(name: str, level: Level) -> None:
    example = policy(name, **CATALOGUE.resolve(name).example)
    known = (credential("k"),)
    subscribed = (Subscriber("s1", sha256(b"one").hexdigest()),)
    api = (
        Api((example,), credentials=known, subscriptions=subscribed)
        if level == "api"
        else Api((), {"/": (example,)}, known, subscriptions=subscribed)
    )
    async with gateway(api) as running:
        answer = await running.client.get("/", headers=PRESENTED.get(name, {}))
        answered = compile_chain((example,), api.scope(level)).answer
        expected = answered.status if answered else TURNED_AWAY.get(name, 200)
        assert answer.status_code == expected
        assert len(running.backend.requests) == (0 if answered or name in TURNED_AWAY else 1)


async def test_the_typical_chain_works_as_one() -> None:
    chain = (
        policy("cors", allowedOrigins=["https://app.example.com"]),
        key_policy(),
        limit(2),
        policy("set-headers", request={"headers": [{"name": "X-Tenant", "value": "acme"}]}),
        policy("remove-headers", response={"headers": [{"name": "X-Powered-By"}]}),
    )
    async with gateway(Api(chain, credentials=(credential("k", "Shop"),))) as running:
        origin = {"Origin": "https://app.example.com"}
        assert (await running.client.get("/", headers=origin)).status_code == 401
        for expected in (200, 200, 429):
            answer = await running.client.get("/", headers=origin | {"API-Key": "k"})
            assert answer.status_code == expected
            assert answer.headers["access-control-allow-origin"] == origin["Origin"]
        assert running.backend.last.header("x-tenant") == "acme"
        assert running.backend.last.header("x-signalbox-application") == "Shop"
