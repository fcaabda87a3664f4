from typing import Any

import pytest

from policy_engine.policy import Policy
from tests.policy_engine.attached import COMPANY, limit, policy
from tests.policy_engine.gateway import Api, Gateway, gateway
from tests.policy_engine.tokens import bearer

REFUSED = {"error": "Forbidden", "message": "The caller is not allowed to do this"}


def rbac(**params: Any) -> Policy:
    return policy("rbac", **params)


async def status(running: Gateway, path: str = "/", method: str = "GET", **headers: str) -> int:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await running.client.request(method, path, headers=named)
    if answer.status_code == 403:
        assert answer.json() == REFUSED
        assert answer.headers["content-type"] == "application/json"
    return answer.status_code


async def test_roles_are_in_a_claim_of_the_verified_token() -> None:
    rules = [{"roles": ["manager", "owner"]}, {"roles": ["clerk"], "methods": ["GET"]}]
    chain = (policy("jwt-auth"), rbac(rolesClaim="realm.roles", rules=rules))
    async with gateway(Api(chain)) as running:
        for roles, reads, writes in (
            (["x", "owner"], 200, 200),
            ("manager x", 200, 200),
            (["clerk"], 200, 403),
            (["clerks"], 403, 403),
            ([], 403, 403),
            (None, 403, 403),
        ):
            token = bearer(COMPANY.token(realm={"roles": roles}))
            assert await status(running, **token) == reads, roles
            assert await status(running, method="POST", **token) == writes, roles
        assert await status(running) == 401


async def test_without_a_verified_token_nobody_has_a_role() -> None:
    async with gateway(Api((rbac(rules=[{"roles": ["a"]}]),))) as running:
        assert await status(running, **bearer(COMPANY.token(roles=["a"]))) == 403


async def test_roles_may_be_in_a_header() -> None:
    async with gateway(Api((rbac(rolesHeader="X-Roles", rules=[{"roles": ["a.b"]}]),))) as running:
        for value in ("a.b", "x, a.b", "a.b ,x", "x,a.b,y"):
            assert await status(running, X_Roles=value) == 200, value
        for value in ("axb", "a.bc", "x a.b", ""):
            assert await status(running, X_Roles=value) == 403, value
        assert await status(running) == 403


async def test_paths_are_exact_or_all_below() -> None:
    rules = [{"paths": ["/orders/*"]}, {"paths": ["/health"], "methods": ["GET", "HEAD"]}]
    async with gateway(Api((rbac(rules=rules),))) as running:
        for path in ("/orders", "/orders/", "/orders/7/items?x=/", "/health", "/health?x"):
            assert await status(running, path) == 200, path
        for path in ("/", "/ordersx", "/health/", "/x?y=/orders/"):
            assert await status(running, path) == 403, path
        assert await status(running, "/health", "POST") == 403


@pytest.mark.parametrize(
    ("condition", "passes", "refused"),
    [
        ("request.headers['x-env'] == 'test'", {"X_Env": "test"}, {"X_Env": "live"}),
        ("request.headers['x-env'] == 'test'", {"X_Env": "test"}, {}),
        ("!('x-env' in request.headers)", {}, {"X_Env": "live"}),
        ("request.method in ['PUT', 'GET']", {}, {"method": "POST"}),
        ("request.url_path.startsWith('/a')", {"path": "/a?b"}, {"path": "/b?/a"}),
        ("request.query == 'x=1' || request.path == '/q'", {"path": "/?x=1"}, {"path": "/?x=2"}),
        ("source.address.startsWith('127.0.0.1:')", {}, None),
        ("request.path.matches('^/[0-9]+$') && true", {"path": "/42"}, {"path": "/4x"}),
    ],
)
async def test_a_condition_must_hold(
    condition: str, passes: dict[str, str], refused: dict[str, str] | None
) -> None:
    async with gateway(Api((rbac(condition=condition),))) as running:
        assert await status(running, **passes) == 200
        if refused is not None:
            assert await status(running, **refused) == 403


async def test_a_condition_comes_on_top_of_the_rules() -> None:
    both = rbac(rules=[{"methods": ["GET"]}], condition="request.headers['x-a'] == '1'")
    async with gateway(Api((both,))) as running:
        assert await status(running, X_A="1") == 200
        assert await status(running, X_A="2") == 403
        assert await status(running, method="POST", X_A="1") == 403


async def test_both_levels_must_agree_and_a_limit_behind_counts_only_who_may_pass() -> None:
    above, below = rbac(rules=[{"methods": ["GET"]}]), rbac(condition="'x-a' in request.headers")
    async with gateway(Api((above,), {"/": (below, limit(1))})) as running:
        assert await status(running, method="POST", X_A="1") == 403
        assert [await status(running), await status(running)] == [403, 403]
        assert [await status(running, X_A="1") for _ in range(2)] == [200, 429]
