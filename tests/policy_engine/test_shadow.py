"""Shadow mode of every policy that runs in Envoy: what would be refused is told, and passes."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from policy_engine.attached import Attached
from policy_engine.hooks import PythonPolicy
from policy_engine.policy import Credential, Policy, typed
from policy_engine.shadow import RBAC_NAMESPACE, SHADOW_NAMESPACE, reports
from policy_engine.subscriptions import Quota, Subscriber
from tests.policy_engine.attached import CATALOGUE, COMPANY, basic, credential, policy
from tests.policy_engine.gateway import Api, Gateway, gateway
from tests.policy_engine.tokens import Signer, bearer

_DEADLINE_S = 30
Reported = dict[str, str]


def shadowed(one: Policy, condition: str | None = None) -> Attached:
    return Attached(one, condition=condition, mode="shadow")


@asynccontextmanager
async def reported(api: Api, folder: Path) -> AsyncIterator[tuple[Gateway, list[Reported]]]:
    """`api`, and what its access log tells of each request once the context ends."""
    log, told = folder / "access.log", list[Reported]()
    namespaces = {"shadow": SHADOW_NAMESPACE, "rbac": RBAC_NAMESPACE}
    config = typed(
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        {
            "path": str(log),
            "log_format": {
                "json_format": {
                    key: f"%DYNAMIC_METADATA({name})%" for key, name in namespaces.items()
                }
            },
        },
    )
    async with gateway(api, [{"name": "file", "typed_config": config}]) as running:
        yield running, told
        count = len(running.backend.requests)
        async with asyncio.timeout(_DEADLINE_S):
            while len(log.read_text().splitlines()) < count:
                await asyncio.sleep(0.02)
        for line in log.read_text().splitlines():
            entry = json.loads(line)
            metadata = {name: entry[key] for key, name in namespaces.items() if entry[key]}
            told.append(dict(reports(metadata)))


ANYBODY: dict[str, Any] = {"rules": [{"methods": ["GET"]}]}
TOKEN = {"Authorization": basic("shop", "secret")}
GOOD = bearer(COMPANY.token(scope="read", aud="orders"))
CASES: dict[str, list[tuple[Policy, dict[str, Any], str | None]]] = {
    "api-key-auth": [
        (key, request, reason)
        for key in (policy("api-key-auth", key="API-Key", **{"in": "header"}),)
        for request, reason in (
            ({"headers": {"API-Key": "k"}}, None),
            ({"headers": {"API-Key": "bad"}}, "unknown_api_key"),
            ({}, "missing_api_key"),
        )
    ]
    + [
        (key, {"url": path}, reason)
        for key in (policy("api-key-auth", key="key", **{"in": "query"}),)
        for path, reason in (("/?key=k", None), ("/?key=x", "unknown_api_key"))
    ],
    "basic-auth": [
        (auth, {"headers": headers}, reason)
        for auth in (policy("basic-auth", username="shop", password="secret"),)
        for headers, reason in (
            (TOKEN, None),
            ({"Authorization": basic("shop", "wrong")}, "invalid_credential"),
            ({"Authorization": "Bearer x"}, "invalid_scheme"),
            ({}, "no_credential"),
        )
    ],
    "jwt-auth": [
        (auth, {"headers": headers}, reason)
        for auth in (
            policy("jwt-auth", scopes={"allOf": ["read"]}, claimMappings={"sub": "X-User"}),
        )
        for headers, reason in (
            (GOOD, None),
            (bearer(COMPANY.token(scope="write")), "claims"),
            (bearer(Signer("company-1").token(scope="read")), "token"),
            ({}, "token"),
        )
    ],
    "ip-filter": [
        (policy("ip-filter", deny=["127.0.0.1"]), {}, "ip-filter"),
        (policy("ip-filter", allow=["127.0.0.1"]), {}, None),
    ],
    "rbac": [
        (policy("rbac", rules=[{"methods": ["POST"]}]), {}, "rbac"),
        (policy("rbac", rules=[{"methods": ["GET"]}]), {}, None),
        (policy("rbac", condition="request.method == 'POST'"), {}, "rbac"),
    ],
    "csrf": [
        (csrf, {"method": method, "headers": headers}, reason)
        for csrf in (policy("csrf", additionalOrigins=["App.example", "*.shop.example"]),)
        for method, headers, reason in (
            ("GET", {}, None),
            ("POST", {}, "no origin"),
            ("POST", {"Origin": "https://evil.example"}, "origin mismatch"),
            ("POST", {"Origin": "https://app.example"}, None),
            ("POST", {"Origin": "https://a.b.shop.example"}, None),
            ("POST", {"Referer": "http://own.example/x", "Host": "own.example"}, None),
        )
    ],
    "request-size-limit": [
        (policy("request-size-limit", maxBytes=4), {"method": "POST", "content": body}, reason)
        for body, reason in ((b"1234", None), (b"12345", "too large"))
    ],
    "maintenance-mode": [
        (policy("maintenance-mode"), {}, "under maintenance"),
        (policy("maintenance-mode", allow=["10.0.0.0/8"]), {}, "denied"),
        (policy("maintenance-mode", allow=["127.0.0.1"]), {}, None),
    ],
    "respond": [(policy("respond", statusCode=418), {}, "answers 418")],
    "redirect": [(policy("redirect", hostname="b.example"), {}, "redirects with 302")],
    "fault-injection": [
        (policy("fault-injection", abort={"statusCode": 503}), {}, "fails with 503"),
        (policy("fault-injection", delay={"duration": "5m"}), {}, None),
    ],
    "basic-ratelimit": [
        (limit, {}, reason)
        for limit in (policy("basic-ratelimit", limits=[{"requests": 1, "duration": "1h"}]),)
        for reason in (None, "rate limit exceeded")
    ],
    "subscription-validation": [
        (policy("subscription-validation"), {"headers": headers}, reason)
        for headers, reason in (
            ({"Subscription-Key": "one"}, None),
            ({"Subscription-Key": "two"}, "no active subscription"),
            ({}, "no active subscription"),
        )
    ],
}


def of(*policies: Policy | Attached) -> Api:
    digest = sha256(b"one").hexdigest()
    known: tuple[Credential, ...] = (credential("k"),)
    return Api(policies, credentials=known, subscriptions=(Subscriber("s1", digest),))


@pytest.mark.parametrize("name", CASES)
async def test_what_would_be_refused_is_reported_and_passes_unchanged(
    name: str, tmp_path: Path
) -> None:
    cases = CASES[name]
    for number, one in enumerate({id(case[0]): case[0] for case in cases}.values()):
        mine = [case for case in cases if case[0] is one]
        folder = tmp_path / str(number)
        folder.mkdir()
        async with reported(of(shadowed(one)), folder) as (running, told):
            for _, request, _ in mine:
                sent = {"method": "GET", "url": "/", **request}
                answer = await running.client.request(**sent)
                assert answer.status_code == 200
                received = running.backend.last
                assert received.path == sent["url"]
                for header, value in sent.get("headers", {}).items():
                    assert received.header(header.lower()) == value
                private = [key for key, _ in received.headers if key.startswith("x-signalbox-")]
                assert private == []
                assert not {"www-authenticate", "x-ratelimit-limit"} & set(answer.headers)
                assert received.header("x-user") is None
        assert told == [{} if reason is None else {name: reason} for _, _, reason in mine]


async def test_what_the_limits_of_plans_would_refuse_is_reported(tmp_path: Path) -> None:
    def subscriber(name: str, **quota: Any) -> Subscriber:
        digest = sha256(name.encode()).hexdigest()
        return Subscriber(name, digest, quota=Quota(**quota) if quota else None)

    subscriptions = (
        subscriber("small", plan="small", limit=2, unit="Day"),
        subscriber("other", plan="small", limit=2, unit="Day"),
        subscriber("counted", plan="counted", limit=1, unit="Day", stop=False),
        subscriber("unlimited"),
    )
    asked = ("small", "small", "small", "other", "counted", "counted", "unlimited", "nobody")
    beyond, nobody = "rate limit exceeded", "no active subscription"
    watched, enforced = shadowed(policy("subscription-validation")), policy("rbac", **ANYBODY)
    async with reported(Api((watched, enforced), subscriptions=subscriptions), tmp_path) as given:
        running, told = given
        for token in asked:
            answer = await running.client.get("/", headers={"Subscription-Key": token})
            assert answer.status_code == 200
            received = running.backend.last
            assert received.header("subscription-key") == token
            assert not [key for key, _ in received.headers if key.startswith("x-signalbox-")]
            assert not {"retry-after", "x-ratelimit-limit", "ratelimit"} & set(answer.headers)
    reasons = (None, None, beyond, None, None, None, None, nobody)
    assert told == [{} if one is None else {"subscription-validation": one} for one in reasons]


async def test_policies_that_refuse_nothing_do_nothing_in_shadow_mode(tmp_path: Path) -> None:
    headers = {"headers": [{"name": "X-A", "value": "1"}]}
    quiet = (
        shadowed(policy("set-headers", request=headers, response=headers)),
        shadowed(policy("cors", allowedOrigins=["*"])),
        shadowed(policy("request-rewrite", methodRewrite="PUT")),
    )
    async with reported(of(*quiet), tmp_path) as (running, told):
        answer = await running.client.get("/", headers={"Origin": "https://a.example"})
        assert answer.status_code == 200
        assert not {"x-a", "access-control-allow-origin"} & set(answer.headers)
        assert running.backend.last.method == "GET"
        assert running.backend.last.header("x-a") is None
    assert told == [{}]


async def test_a_shadow_has_its_condition_and_stands_in_its_place(tmp_path: Path) -> None:
    chain = (
        shadowed(policy("ip-filter", deny=["127.0.0.1"]), 'request.Path == "/a"'),
        policy("rbac", rules=[{"methods": ["GET"]}]),
        shadowed(policy("maintenance-mode")),
    )
    async with reported(of(*chain), tmp_path) as (running, told):
        for path in ("/a", "/b"):
            assert (await running.client.get(path)).status_code == 200
    assert told == [
        {"ip-filter": "ip-filter", "maintenance-mode": "under maintenance"},
        {"maintenance-mode": "under maintenance"},
    ]


async def test_what_a_shadow_verifies_opens_nothing(tmp_path: Path) -> None:
    roles = policy("rbac", rolesClaim="roles", rules=[{"roles": ["admin"]}])
    token = bearer(COMPANY.token(roles=["admin"]))
    async with reported(of(shadowed(policy("jwt-auth")), roles), tmp_path) as (running, _):
        assert (await running.client.get("/", headers=token)).status_code == 403
    async with gateway(of(policy("jwt-auth"), roles)) as running:
        assert (await running.client.get("/", headers=token)).status_code == 200


def test_every_policy_of_envoys_that_refuses_has_a_shadow() -> None:
    without = {
        one.name
        for one in CATALOGUE
        if not issubclass(one, PythonPolicy)
        and one.purpose != "changes"
        and one.shadow is Policy.shadow
    }
    assert without == set()
    guarding = {
        one.name
        for one in CATALOGUE
        if not issubclass(one, PythonPolicy) and one.shadow is not Policy.shadow
    }
    elsewhere = {"advanced-ratelimit", "mtls-client-identity", "oidc-login"}
    assert guarding <= {*CASES, *elsewhere}  # the others' tests
