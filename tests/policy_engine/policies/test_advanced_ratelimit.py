"""advanced-ratelimit in Envoy, counted by the router itself."""

from typing import Any

import httpx
import pytest
import yaml

from policy_engine.catalogue import load
from policy_engine.errors import InvalidParameters, PolicyNotCompiled
from policy_engine.system import SystemParameters
from tests.policy_engine.attached import COMPANY, SYSTEM, TOO_MANY, policy
from tests.policy_engine.gateway import Api, Gateway, gateway
from tests.policy_engine.tokens import bearer
from tests.servers.http_backend import Answer, http_backend
from tests.xds.routing import api, router

ONE = [{"limit": 1, "duration": "1h"}]


def limited(*key: dict[str, Any], limits: Any = None, **quota: Any) -> Any:
    quotas = [{"limits": limits or ONE, "keyExtraction": list(key), **quota}]
    return policy("advanced-ratelimit", quotas=quotas)


async def statuses(running: Gateway, *sent: dict[str, str]) -> list[int]:
    return [(await running.client.get("/", headers=one)).status_code for one in sent]


async def test_each_value_of_a_header_has_a_bucket_and_so_have_those_without() -> None:
    by_user = limited({"type": "header", "key": "X-User"})
    async with gateway(Api((by_user,))) as running:
        ann, bob = {"X-User": "ann"}, {"X-User": "bob"}
        assert await statuses(running, ann, ann, bob, {}, {}) == [200, 429, 200, 200, 429]


async def test_order_of_parts_matters_and_all_of_them_count() -> None:
    two = limited({"type": "header", "key": "x-a"}, {"type": "header", "key": "x-b"})
    async with gateway(Api((two,))) as running:
        one, other = {"x-a": "1", "x-b": "2"}, {"x-a": "2", "x-b": "1"}
        assert await statuses(running, one, other, one, other) == [200, 200, 429, 429]


@pytest.mark.parametrize(
    ("believed", "expected"),
    [("forwarded", [200, 200, 429, 200, 429, 429]), ("trusted", [200, 429, 429, 429, 429, 429])],
)
async def test_an_address_is_what_proxies_say_or_the_callers_own(
    believed: str, expected: list[int]
) -> None:
    trusting = load((), system=SYSTEM.model_copy(update={"ratelimit_ip": believed}))
    quota = {"limits": ONE, "keyExtraction": [{"type": "ip"}]}
    policies = [{"name": "advanced-ratelimit", "params": {"quotas": [quota]}}]
    async with http_backend() as backend:
        orders = api(
            yaml.safe_dump(
                {
                    "context": "/orders",
                    "policies": policies,
                    "upstream": {"main": {"url": f"http://127.0.0.1:{backend.port}"}},
                    "operations": [{"method": "GET", "path": "/*"}],
                }
            )
        )
        async with router(orders, catalogue=trusting) as running:
            first, second, real = (
                {name: f"192.0.2.{number}"}
                for number, name in enumerate(("X-Forwarded-For", "X-Forwarded-For", "X-Real-IP"))
            )
            sent = [first, second, first | real, real, real, second | real]
            found = [(await running.get("/orders/x", headers=one)).status_code for one in sent]
    assert found == expected


async def test_the_claims_of_a_token_tell_callers_apart() -> None:
    chain = (
        policy("jwt-auth", issuers=["company"]),
        limited({"type": "authproperty", "key": "tenant.id"}),
    )
    async with gateway(Api(chain)) as running:
        acme = bearer(COMPANY.token(tenant={"id": "acme"}))
        other = bearer(COMPANY.token(tenant={"id": "other"}))
        nobody = bearer(COMPANY.token())
        assert await statuses(running, acme, other, acme) == [200, 200, 429]
        assert await statuses(running, nobody, nobody) == [200, 429]


async def test_cel_computes_a_key_from_the_request_and_the_api() -> None:
    with pytest.raises(InvalidParameters, match="is no CEL"):
        limited({"type": "cel", "expression": "request.Headers['x-plan'"})
    key = {"type": "cel", "expression": "request.Headers['x-plan'][0] == 'gold' ? api.Name : 'o'"}
    async with gateway(Api((limited(key),))) as running:
        gold, iron, lead = ({"x-plan": one} for one in ("gold", "iron", "lead"))
        assert await statuses(running, gold, iron, lead, gold) == [200, 200, 429, 429]


async def test_requests_that_do_not_match_are_neither_counted_nor_refused() -> None:
    guests = {"type": "header", "key": "x-app", "match": {"type": "regex", "value": "^guest-"}}
    async with gateway(Api((limited(guests),))) as running:
        guest, app = {"x-app": "guest-1"}, {"x-app": "app"}
        assert await statuses(running, guest, app, app, {}, {}) == [200, 200, 200, 200, 200]
        assert await statuses(running, guest, {"x-app": "guest-2"}) == [429, 200]
        told = await running.client.get("/", headers=app)
        assert "ratelimit" not in told.headers
        assert "x-ratelimit-limit" not in told.headers


async def test_all_quotas_and_all_their_limits_must_hold_and_callers_are_told() -> None:
    several = policy(
        "advanced-ratelimit",
        quotas=[
            {
                "name": "user",
                "limits": [{"limit": 2, "duration": "1m"}, {"limit": 9, "duration": "1h"}],
                "keyExtraction": [{"type": "header", "key": "x-user"}],
            },
            {"name": "all", "limits": [{"limit": 3, "duration": "1h"}]},
        ],
    )
    async with gateway(Api((), {"/": (several,)})) as running:
        ann, bob = {"x-user": "ann"}, {"x-user": "bob"}
        answers = [await running.client.get("/", headers=one) for one in (ann, ann, ann, bob, bob)]
    assert [one.status_code for one in answers] == [200, 200, 429, 200, 429]
    policies = '"user-60s";q=2;w=60, "user-3600s";q=9;w=3600, "all";q=3;w=3600'
    assert {one.headers["ratelimit-policy"] for one in answers} == {policies}
    assert answers[2].json() == TOO_MANY
    assert 0 < int(answers[2].headers["retry-after"]) <= 60


async def test_one_limit_is_told_in_every_header() -> None:
    async with gateway(Api((limited(limits=[{"limit": 2, "duration": "1h"}]),))) as running:
        answer = await running.client.get("/")
        assert answer.headers["x-ratelimit-limit"] == "2"
        assert answer.headers["x-ratelimit-remaining"] == "1"
        assert answer.headers["ratelimit-policy"] == '"quota-1";q=2;w=3600'
        assert answer.headers["ratelimit"].startswith('"quota-1";r=1;t=')
    silent = {f"ratelimit_{one}": False for one in ("x_headers", "ietf_headers", "retry_after")}
    quiet = SYSTEM.model_copy(update=silent)
    async with gateway(Api((limited(),), system=quiet)) as running:
        for expected in (200, 429):
            answer = await running.client.get("/")
            assert answer.status_code == expected
            assert not [name for name in answer.headers if "rate" in name or name == "retry-after"]


@pytest.mark.parametrize(
    ("sent", "left"),
    [
        ({"x-cost": "2"}, 5),  # 2 times 2.5
        ({"x-cost": "0.2"}, 9),  # rounded
        ({}, 7),
        ({"x-cost": "-5"}, 7),  # no number: the default
        ({"x-cost": "much"}, 7),
    ],
)
async def test_a_cost_is_read_from_a_header(sent: dict[str, str], left: int) -> None:
    cost = {"enabled": True, "default": 3, "sources": [source("request_header", key="X-Cost")]}
    async with gateway(Api((counted(cost),))) as running:
        answer = await running.client.get("/", headers=sent)
        assert answer.headers["x-ratelimit-remaining"] == str(left)


async def test_what_costs_nothing_passes_even_when_nothing_is_left() -> None:
    cost = {"enabled": True, "sources": [source("request_header", key="x-cost")]}
    async with gateway(Api((counted(cost),))) as running:
        sent = [{"x-cost": one} for one in ("4", "4", "0", "0.1")]
        assert await statuses(running, *sent) == [200, 429, 200, 200]


async def test_costs_of_body_and_cel_add_up() -> None:
    cost = {
        "enabled": True,
        "default": 9,
        "sources": [
            {"type": "request_body", "jsonPath": "$.order.items"},
            {"type": "request_cel", "expression": "request.Method == 'POST' ? 2 : 1"},
        ],
    }
    async with gateway(Api((counted(cost),))) as running:
        body = {"order": {"items": 3}}
        assert await left_after(running, json=body) == 5
        assert await left_after(running, json={"order": {}}) == 3
        assert await left_after(running, content=b"{", headers={"content-type": "text/x"}) == 1


async def left_after(running: Gateway, **sent: Any) -> int:
    answer = await running.client.post("/", **sent)
    return int(answer.headers["x-ratelimit-remaining"])


def source(kind: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "multiplier": 2.5, **fields}


def counted(cost: dict[str, Any]) -> Any:
    return limited(limits=[{"limit": 10, "duration": "24h"}], costExtraction=cost)


async def test_the_answer_to_what_is_refused_can_be_worded() -> None:
    worded = policy(
        "advanced-ratelimit",
        quotas=[{"limits": ONE}],
        onRateLimitExceeded={"statusCode": 503, "body": 'slow "down" %', "bodyFormat": "plain"},
    )
    async with gateway(Api((worded,))) as running:
        assert (await running.client.get("/")).json() is not None
        refused = await running.client.get("/")
    assert refused.status_code == httpx.codes.SERVICE_UNAVAILABLE
    assert refused.text == 'slow "down" %'
    assert refused.headers["content-type"] == "text/plain"
    assert int(refused.headers["retry-after"]) > 0
    assert not [name for name in refused.headers if name.startswith("x-signalbox")]


async def test_an_upstream_cannot_word_a_refusal_or_tell_of_limits() -> None:
    worded = policy(
        "advanced-ratelimit", quotas=[{"limits": ONE}], onRateLimitExceeded={"body": "slow"}
    )
    async with gateway(Api((worded,))) as running:
        running.backend.answer = lambda _: answer_of_upstream()
        answer = await running.client.get("/")
    assert answer.text != "slow"
    assert answer.headers.get_list("x-ratelimit-limit") == ["1"]


def answer_of_upstream() -> Any:
    headers = (("x-ratelimit-limit", "77"), ("ratelimit", "ours"))
    return Answer(headers=headers, body=b"ours")


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"quotas": []}, "quotas"),
        ({"quotas": [{"limits": []}]}, "quotas[0].limits"),
        ({"quotas": [{"limits": [{"limit": 1}]}]}, "quotas[0].limits[0].duration"),
        (
            {"quotas": [{"limits": ONE, "keyExtraction": [{"type": "header"}]}]},
            "quotas[0].keyExtraction[0].key",
        ),
        (
            {"quotas": [{"limits": ONE, "keyExtraction": [{"type": "cel"}]}]},
            "quotas[0].keyExtraction[0].expression",
        ),
        (
            {"quotas": [{"limits": ONE, "costExtraction": {"enabled": True}}]},
            "quotas[0].costExtraction.sources",
        ),
        (
            {"quotas": [{"limits": ONE}], "onRateLimitExceeded": {"statusCode": 200}},
            "onRateLimitExceeded.statusCode",
        ),
        (
            {"quotas": [{"limits": [{"limit": 1, "calendar": "day", "timeZone": "Mars"}]}]},
            "quotas[0].limits[0].timeZone",
        ),
    ],
)
def test_a_wrong_parameter_is_named(params: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParameters) as caught:
        policy("advanced-ratelimit", **params)
    assert field in [fault.path for fault in caught.value.faults]


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"quotas": [{"limits": ONE}], "backend": "redis"}, "no rate limiter"),
        ({"quotas": [{"limits": [{"limit": 1, "calendar": "day"}]}]}, "calendar needs"),
        (
            {
                "quotas": [
                    {
                        "limits": ONE,
                        "costExtraction": {
                            "enabled": True,
                            "sources": [{"type": "response_header", "key": "x-cost"}],
                        },
                    }
                ]
            },
            "that the response tells",
        ),
    ],
)
def test_what_cannot_be_counted_there_is_refused(params: dict[str, Any], reason: str) -> None:
    api = Api(system=SystemParameters())
    with pytest.raises(PolicyNotCompiled, match=reason):
        policy("advanced-ratelimit", **params).filters(api.scope("api"))


async def test_a_name_with_quotes_and_percent_signs_is_told_as_it_is() -> None:
    name = 'the "50%" \\ tier'
    one = {"name": name, "limits": [{"limit": 1, "duration": "1h"}]}
    two = {"name": name, "limits": [{"limit": 1, "duration": "1h"}, {"limit": 9, "duration": "2h"}]}
    for quota, told in (
        (one, '"the \\"50%\\" \\\\ tier"'),
        (two, '"the \\"50%\\" \\\\ tier-3600s"'),
    ):
        async with gateway(Api((policy("advanced-ratelimit", quotas=[quota]),))) as running:
            await running.client.get("/")
            refused = await running.client.get("/")
            assert refused.status_code == 429
            assert refused.headers["x-ratelimit-quota"] == name
            assert f"{told};r=0;t=" in refused.headers["ratelimit"]
            assert f"{told};q=1;w=3600" in refused.headers["ratelimit-policy"]
