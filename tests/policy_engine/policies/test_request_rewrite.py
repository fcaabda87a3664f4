import json
from typing import Any

import pytest

from policy_engine.catalogue import load
from policy_engine.chain import compile_chain
from policy_engine.errors import PolicyNotCompiled
from policy_engine.policy import Scope
from tests.policy_engine.attached import UNAUTHORIZED, credential, key_policy, policy
from tests.policy_engine.gateway import Api, gateway
from tests.servers.http_backend import http_backend
from tests.xds.routing import api, router


def regex(pattern: str, substitution: str) -> dict[str, Any]:
    found = {"pattern": pattern, "substitution": substitution}
    return {"pathRewrite": {"type": "ReplaceRegexMatch", "replaceRegexMatch": found}}


def full(path: str) -> dict[str, Any]:
    return {"pathRewrite": {"type": "ReplaceFullPath", "replaceFullPath": path}}


def prefix(path: str) -> dict[str, Any]:
    return {"pathRewrite": {"type": "ReplacePrefixMatch", "replacePrefixMatch": path}}


def query(*rules: dict[str, str]) -> dict[str, Any]:
    return {"queryRewrite": {"rules": list(rules)}}


async def rewritten(params: dict[str, Any], *asked: str, **headers: str) -> list[str | int]:
    """The paths that the upstream sees, or the status of a refusal."""
    found: list[str | int] = []
    async with gateway(Api((policy("request-rewrite", **params),))) as running:
        for path in asked:
            answer = await running.client.get(path, headers=headers)
            found.append(answer.json()["path"] if answer.status_code == 200 else answer.status_code)
            if answer.status_code == 200:
                names = [name for name, _ in answer.json()["headers"]]
                assert not any(name.startswith("x-signalbox-rewrite") for name in names)
    return found


async def below_a_context(
    params: dict[str, Any],
    asked: dict[str, str],
    *,
    at: str,
    base: str = "/base",
    context: str = "/shop",
    above: dict[str, Any] | None = None,
) -> None:
    """Checks what the upstream sees of an API below a context, with a base path."""
    own = json.dumps([{"name": "request-rewrite", "params": params}])
    outer = json.dumps([{"name": "request-rewrite", "params": above}] if above else [])
    async with http_backend() as backend:
        spec = f"""
        context: {context}
        upstream: {{main: {{url: "{backend.url}{base}"}}}}
        policies: {outer}
        operations: [{{method: GET, path: "{at}", policies: {own}}}]
        """
        async with router(api(spec), catalogue=load(())) as running:
            assert {path: await running.upstream_path(path) for path in asked} == asked


@pytest.mark.parametrize("base", ["", "/base"])
async def test_the_full_path_is_replaced_below_the_context(base: str) -> None:
    expected = {"/shop/a/b?x=1": f"{base}/new?x=1", "/shop/a": f"{base}/new"}
    await below_a_context(full("/new"), expected, at="/a/*", base=base)
    await below_a_context(full("/new"), {"/shop/7?x": f"{base}/new?x"}, at="/{id}", base=base)
    for path in ("/shop/exact", "/shop/exact/"):
        await below_a_context(full("/new"), {path: f"{base}/new"}, at="/exact", base=base)


async def test_an_api_at_the_root_rewrites_too() -> None:
    await below_a_context(full("/new"), {"/a/b": "/base/new"}, at="/a/*", context="/")
    await below_a_context(prefix("/new"), {"/a/b": "/new/b"}, at="/a/*", context="/", base="")


async def test_the_prefix_of_an_operation_is_its_path_up_to_the_wildcard() -> None:
    expected = {
        "/shop/a/b/c?x=1": "/base/new/b/c?x=1",
        "/shop/a": "/base/new",
        "/shop/a/": ("/base/new/"),
    }
    await below_a_context(prefix("/new/"), expected, at="/a/*")
    await below_a_context(prefix("/"), {"/shop/a/b": "/base/b", "/shop/a": "/base/"}, at="/a/*")
    await below_a_context(prefix("/n"), {"/shop/7/p.d/x": "/base/n/x"}, at="/{id}/p.d/*")


async def test_the_prefix_of_an_api_is_what_follows_its_context() -> None:
    await below_a_context(full("/x"), {"/shop/a/b": "/base/x"}, at="/a/*", above=prefix("/v2"))
    nothing = {"methodRewrite": "GET"}
    await below_a_context(nothing, {"/shop/a/b": "/base/v2/a/b"}, at="/a/*", above=prefix("/v2"))


async def test_all_matches_of_a_regular_expression_are_replaced() -> None:
    assert await rewritten(regex("o+", "0"), "/foo/boo?q=oo", "/x") == ["/f0/b0?q=oo", "/x"]
    swapped = regex("^/([^/]+)/([^/]+)", r"/\2/\1")
    assert await rewritten(swapped, "/a/b/c", "/a") == ["/b/a/c", "/a"]
    assert await rewritten(regex("/x", r"[\0\\]"), "/x/y") == ["/[/x\\]/y"]


async def test_a_path_that_becomes_empty_is_the_root_and_a_slash_is_put_in_front() -> None:
    assert await rewritten(regex("^/old", ""), "/old", "/old/a?b", "/new") == ["/", "/a?b", "/new"]
    assert await rewritten(regex("^/", "new/"), "/old") == ["/new/old"]


async def test_a_regular_expression_of_the_path_sees_only_what_is_below_the_context() -> None:
    expected = {"/shop/shop?shop=1": "/base/store?shop=1"}
    await below_a_context(regex("shop", "store"), expected, at="/shop")


async def test_what_is_too_long_for_a_regular_expression_is_refused() -> None:
    assert await rewritten(regex("b", ""), "/" + "a" * 9000) == [414]
    assert await rewritten(regex("a", "a" * 1000), "/" + "a" * 100) == [414]


@pytest.mark.parametrize(
    ("rule", "asked", "expected"),
    [
        (
            {"action": "Replace", "value": "new & old"},
            "/?a=1&q=2&b&q=3",
            "/?a=1&q=new%20%26%20old&b",
        ),
        ({"action": "Replace", "value": "1"}, "/", "/?q=1"),
        ({"action": "Remove"}, "/?q=1&a&q", "/?a"),
        ({"action": "Remove"}, "/?q=1", "/"),
        ({"action": "Remove"}, "/?%71=1&qq=2&a%20+b=%2f", "/?qq=2&a%20+b=%2f"),
        ({"action": "Add", "value": "1"}, "/?q=1", "/?q=1&q=1"),
        ({"action": "Append", "value": "b", "separator": ","}, "/?q=a+%2B", "/?q=a%20%2B,b"),
        ({"action": "Append", "value": "b"}, "/?q=a", "/?q=ab"),
        ({"action": "Append", "value": "b", "separator": ","}, "/?a", "/?a&q=b"),
        (
            {"action": "ReplaceRegexMatch", "pattern": "(.)b", "substitution": r"<\1>"},
            "/?q=xb%20yb&a",
            "/?q=%3Cx%3E%20%3Cy%3E&a",
        ),
        (
            {"action": "ReplaceRegexMatch", "pattern": "^$", "substitution": "none"},
            "/?q=",
            "/?q=none",
        ),
        ({"action": "ReplaceRegexMatch", "pattern": "a", "substitution": ""}, "/?q=aa", "/?q="),
        ({"action": "ReplaceRegexMatch", "pattern": "a", "substitution": ""}, "/?b=aa", "/?b=aa"),
        ({"action": "ReplaceRegexMatch", "pattern": "a", "substitution": ""}, "/?q=1&q=a", 400),
        ({"action": "ReplaceRegexMatch", "pattern": "a", "substitution": ""}, "/?q=%0d%0aa", 400),
    ],
)
async def test_a_query_rule_does_what_it_says(
    rule: dict[str, str], asked: str, expected: str | int
) -> None:
    assert await rewritten(query({"name": "q", **rule}), asked) == [expected]


async def test_query_rules_run_in_order_each_on_what_the_one_before_has_left() -> None:
    append = {"action": "Append", "name": "q", "value": "b"}
    change = {"action": "ReplaceRegexMatch", "name": "q", "pattern": "ab", "substitution": "c"}
    assert await rewritten(query(append, change), "/?q=a") == ["/?q=c"]
    assert await rewritten(query(change, append), "/?q=a") == ["/?q=ab"]
    assert await rewritten(query(append, change, append, change), "/?q=a") == ["/?q=cb"]


@pytest.mark.parametrize(
    ("conditions", "asked", "headers", "holds"),
    [
        ({"headers": [{"name": "X-A", "type": "Exact", "value": "1"}]}, "/", {"x-a": "1"}, True),
        ({"headers": [{"name": "X-A", "type": "Exact", "value": "1"}]}, "/", {"x-a": "11"}, False),
        ({"headers": [{"name": "X-A", "type": "Present"}]}, "/", {"x-a": ""}, True),
        ({"headers": [{"name": "X-A", "type": "Present"}]}, "/", {}, False),
        (
            {"headers": [{"name": "X-A", "type": "Regex", "value": "o+b"}]},
            "/",
            {"x-a": "aoobc"},
            True,
        ),
        ({"headers": [{"name": "X-A", "type": "Regex", "value": "^o"}]}, "/", {"x-a": "ao"}, False),
        ({"headers": [{"name": "X-A", "type": "Regex", "value": "^$"}]}, "/", {"x-a": ""}, True),
        ({"headers": [{"name": "X-A", "type": "Regex", "value": ".*"}]}, "/", {}, False),
        (
            {"queryParams": [{"name": "a b", "type": "Exact", "value": "x&"}]},
            "/?a+b=x%26",
            {},
            True,
        ),
        ({"queryParams": [{"name": "q", "type": "Present"}]}, "/?q", {}, True),
        ({"queryParams": [{"name": "q", "type": "Present"}]}, "/q?a=q", {}, False),
        (
            {"queryParams": [{"name": "q", "type": "Regex", "value": "^a.c$"}]},
            "/?q=a%20c",
            {},
            True,
        ),
        (
            {
                "headers": [{"name": "X-A", "type": "Regex", "value": "1"}],
                "queryParams": [{"name": "q", "type": "Regex", "value": "2"}],
            },
            "/?q=2",
            {"x-a": "2"},
            False,
        ),
    ],
)
async def test_only_requests_for_which_all_conditions_hold_are_rewritten(
    conditions: dict[str, Any], asked: str, headers: dict[str, str], holds: bool
) -> None:
    for rewrite in (full("/new"), regex("^/.*$", "/new")):
        (seen,) = await rewritten({"match": conditions, **rewrite}, asked, **headers)
        assert isinstance(seen, str)
        assert seen.startswith("/new") == holds
        assert seen.partition("?")[2] == asked.partition("?")[2]


async def test_the_method_is_rewritten_but_that_of_a_head_request() -> None:
    async with gateway(Api((policy("request-rewrite", methodRewrite="PUT"),))) as running:
        assert (await running.client.post("/", content=b"body")).json()["method"] == "PUT"
        assert running.backend.last.body == b"body"
        assert (await running.client.head("/")).status_code == 200
        assert running.backend.last.method == "HEAD"


def test_a_rewrite_to_head_is_not_compiled() -> None:
    scope = Scope(level="api", api_id="a", api_name="A", api_version="v1", context="/a")
    with pytest.raises(PolicyNotCompiled, match="methodRewrite HEAD"):
        compile_chain([policy("request-rewrite", methodRewrite="HEAD")], scope)


async def test_a_policy_before_it_decides_and_headers_it_set_are_seen() -> None:
    marked = policy("set-headers", request={"headers": [{"name": "X-A", "value": "1"}]})
    condition = {"headers": [{"name": "X-A", "type": "Exact", "value": "1"}]}
    moved = policy("request-rewrite", match=condition, **full("/new"))
    for order, expected in (((marked, moved), "/new"), ((moved, marked), "/old")):
        known = (credential("k"),)
        async with gateway(Api((key_policy(), *order), credentials=known)) as running:
            refused = await running.client.get("/old")
            assert (refused.status_code, refused.json()) == (401, UNAUTHORIZED)
            answer = await running.client.get("/old", headers={"API-Key": "k"})
            assert answer.json()["path"] == expected


async def test_that_of_the_operation_sees_what_that_of_the_api_has_left() -> None:
    above, below = (
        policy("request-rewrite", **regex("a", "b")),
        policy("request-rewrite", **regex("b", "c")),
    )
    async with gateway(Api((above,), {"/": (below,)})) as running:
        assert (await running.client.get("/ab")).json()["path"] == "/cc"
    async with gateway(Api((below, above))) as running:
        assert (await running.client.get("/ab")).json()["path"] == "/bc"
