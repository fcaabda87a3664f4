"""Conditions of policies that run in Envoy, in a real one: order, phases, levels, both outcomes."""

from typing import Any

import httpx
import pytest

from policy_engine.attached import Attached
from policy_engine.chain import compile_chain
from policy_engine.conditions.gates import CONDITIONS_MAX
from policy_engine.errors import PolicyNotCompiled
from policy_engine.policy import Policy
from tests.policy_engine.attached import basic, credential, key_policy, policy
from tests.policy_engine.gateway import Api, Gateway, gateway


def when(condition: str, one: Policy) -> Attached:
    params = one.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return Attached(one, params, condition=condition)


def told(name: str, value: str = "yes") -> Policy:
    """set-headers on request and answer alike."""
    headers = {"headers": [{"name": name, "value": value}]}
    return policy("set-headers", request=headers, response=headers)


def trail(value: str) -> Policy:
    """What the upstream sees of `X-Trail` tells which one was last."""
    return told("X-Trail", value)


async def seen(running: Gateway, *, path: str = "/", **more: Any) -> tuple[str | None, str | None]:
    """What the upstream and the caller see of `X-Trail`."""
    answer = await running.client.request(more.pop("method", "GET"), path, **more)
    return running.backend.last.header("x-trail"), answer.headers.get("x-trail")


HOLDS = [
    ('request.Method == "GET"', {}, {"method": "POST"}),
    ('request.Path.startsWith("/a")', {"path": "/a/b?x=1"}, {"path": "/b"}),
    ('request.Path == "/a?x=1"', {"path": "/a?x=1"}, {"path": "/a"}),
    (
        'request.Headers["x-plan"][0] == "gold"',
        {"headers": {"X-Plan": "gold"}},
        {"headers": {"X-Plan": "silver"}},
    ),
    (
        'request.Headers["x-plan"][0] == "gold"',
        {"headers": [("X-Plan", "gold"), ("X-Plan", "silver")]},
        {"headers": [("X-Plan", "silver"), ("X-Plan", "gold")]},
    ),
    (
        'request.Headers["x-plan"][0] != "gold"',
        {"headers": {"X-Plan": "golden"}},
        {"headers": {"X-Plan": "gold"}},
    ),
    (
        '"gold" in request.Headers["x-plan"]',
        {"headers": [("X-Plan", "silver"), ("X-Plan", "gold")]},
        {"headers": {"X-Plan": "golden"}},
    ),
    ('"x-plan" in request.Headers', {"headers": {"X-Plan": ""}}, {}),
    ("has(request.Headers.host)", {}, None),
    ('!("x-plan" in request.Headers)', {}, {"headers": {"X-Plan": "a"}}),
    ('request.Headers["x-plan"][0] == "gold"', {"headers": {"X-Plan": "gold"}}, {}),
    (
        'request.Method == "POST" || request.Headers["x-a"][0].matches("^[0-9]+$")',
        {"method": "POST"},
        {"headers": {"X-A": "12x"}},
    ),
    ('request.Method in ["PUT", "PATCH"]', {"method": "PUT"}, {"method": "POST"}),
    ('request.method == "GET" && request.url_path == "/q"', {"path": "/q?x"}, {"path": "/r"}),
    ('source.address.startsWith("127.0.0.1")', {}, None),
    ("has(request.Metadata.plan)", None, {}),
]


@pytest.mark.parametrize(("condition", "met", "unmet"), HOLDS)
async def test_a_condition_decides_about_requests_and_their_answers(
    condition: str, met: dict[str, Any] | None, unmet: dict[str, Any] | None
) -> None:
    async with gateway(Api((when(condition, trail("met")),))) as running:
        if met is not None:
            assert await seen(running, **met) == ("met", "met")
        if unmet is not None:
            assert await seen(running, **unmet) == (None, None)


async def test_phases_are_told_apart() -> None:
    chain = (
        when('processing.phase == "request"', told("X-Trail", "asked")),
        when('processing.phase == "response"', told("X-Answer", "answered")),
    )
    async with gateway(Api(chain)) as running:
        answer = await running.client.get("/")
        assert running.backend.last.header("x-trail") == "asked"
        assert running.backend.last.header("x-answer") is None
        assert answer.headers.get("x-trail") is None
        assert answer.headers["x-answer"] == "answered"


async def test_a_condition_on_the_answer_waits_for_it() -> None:
    chain = (
        when("response.ResponseStatus == 200", told("X-Good")),
        when("response.ResponseStatus >= 400", told("X-Bad")),
        when('response.ResponseHeaders["content-type"][0].startsWith("application/")', told("X-J")),
        when('response.RequestMethod == "GET" && response.ResponseStatus == 200', told("X-Get")),
        key_policy(),
    )
    async with gateway(Api(chain, credentials=(credential("k"),))) as running:
        good = await running.client.get("/", headers={"API-Key": "k"})
        assert {"x-good", "x-j", "x-get"} <= set(good.headers)
        assert "x-bad" not in good.headers
        assert running.backend.last.header("x-good") is None
        bad = await running.client.get("/")
        assert (bad.status_code, bad.headers["x-bad"]) == (401, "yes")
        assert "x-good" not in bad.headers


async def test_levels_and_neighbours_keep_the_written_order() -> None:
    gold = 'request.Headers["x-plan"][0] == "gold"'
    above = (
        trail("1"),
        when(gold, trail("2")),
        when(gold, told("X-Twice")),
        when('request.Headers["x-trail"][0] == "2"', told("X-Saw", "2")),
    )
    below = (
        when('request.Headers["x-trail"][0] == "2"', trail("3")),
        when('request.Headers["x-trail"][0] == "1"', trail("4")),
    )
    async with gateway(Api(above, {"/": below})) as running:
        # answers meet them the other way round: the API's first has the last word
        assert await seen(running, headers={"X-Plan": "gold"}) == ("3", "1")
        assert running.backend.last.header("x-twice") == "yes"
        assert running.backend.last.header("x-saw") == "2"
        assert await seen(running) == ("4", "1")
        assert running.backend.last.header("x-twice") is None


async def test_the_same_policy_on_both_levels_runs_twice() -> None:
    twice = when('request.Method == "GET"', policy("basic-auth", username="a", password="p"))
    api = Api((twice,), {"/": (twice,)})
    async with gateway(api) as running:
        assert (await running.client.get("/")).status_code == 401
        good = {"Authorization": basic("a", "p")}
        assert (await running.client.get("/", headers=good)).status_code == 200
        assert (await running.client.post("/")).status_code == 200


async def test_a_policy_of_several_filters_stands_behind_one_condition() -> None:
    guarded = when('request.Path.startsWith("/private")', key_policy())
    async with gateway(Api((guarded,), credentials=(credential("k"),))) as running:

        async def status(path: str, **headers: str) -> int:
            return (await running.client.get(path, headers=headers)).status_code

        assert await status("/public") == 200
        assert await status("/private") == 401
        assert await status("/private", **{"API-Key": "k"}) == 200
        assert running.backend.last.header("x-signalbox-application") == "Shop"
        assert running.backend.last.header("api-key") is None


async def test_a_guard_whose_condition_cannot_be_decided_guards() -> None:
    plan = 'request.Headers["x-plan"][0] == "gold"'
    guard = when(plan, policy("basic-auth", username="a", password="p"))
    async with gateway(Api((guard, when(plan, trail("met"))))) as running:
        assert (await running.client.get("/")).status_code == 401
        assert (await running.client.get("/", headers={"X-Plan": "gold"})).status_code == 401
        other = {"X-Plan": "silver"}
        assert (await running.client.get("/", headers=other)).status_code == 200
        credentials = {"Authorization": basic("a", "p")}
        assert await seen(running, headers=credentials) == (None, None)


ANSWERS: list[tuple[Policy, int, dict[str, str], str]] = [
    (
        policy(
            "respond",
            statusCode=418,
            body="100 % tea",
            headers=[{"name": "X-A", "value": "5%"}],
        ),
        418,
        {"x-a": "5%", "content-type": "text/plain"},
        "100 % tea",
    ),
    (policy("respond", statusCode=204, body="x"), 204, {}, ""),
    (
        policy("redirect", statusCode=308, path={"mode": "full", "value": "/new"}),
        308,
        {"location": "/new?q=1"},
        "",
    ),
    (
        policy("redirect", hostname="b.example", scheme="https"),
        302,
        {"location": "https://b.example/x?q=1"},
        "",
    ),
    (
        policy("redirect", port=99, path={"mode": "prefix", "value": "/v2/"}),
        302,
        {"location": "http://127.0.0.1:99/v2/x?q=1"},
        "",
    ),
    (
        policy("maintenance-mode", message="later", retryAfter="90s"),
        503,
        {"retry-after": "90", "content-type": "application/json"},
        '{"error": "Service Unavailable", "message": "later"}',
    ),
]


@pytest.mark.parametrize("level", ["api", "operation"])
@pytest.mark.parametrize(("answering", "status", "headers", "body"), ANSWERS)
async def test_policies_that_answer_may_have_a_condition(
    answering: Policy, status: int, headers: dict[str, str], body: str, level: str
) -> None:
    chain = (when('"x-closed" in request.Headers', answering), key_policy())
    known = (credential("k"),)
    api = Api(chain, credentials=known) if level == "api" else Api((), {"/": chain}, known)
    async with gateway(api) as running:
        closed = await running.client.get("/x?q=1", headers={"X-Closed": "1"})
        assert closed.status_code == status
        assert {name: closed.headers[name] for name in headers} == headers
        assert closed.text == body
        assert (await running.client.get("/x")).status_code == 401
        assert (await running.client.get("/x", headers={"API-Key": "k"})).status_code == 200


PAGES = {"allowedOrigins": ["https://app.example", "https://*.shop.example"]}


async def test_cors_may_have_a_condition() -> None:
    pages = policy(
        "cors", **PAGES, allowedHeaders=["X-A"], exposedHeaders=["X-B"], allowCredentials=True
    )
    async with gateway(Api((when('request.Path.startsWith("/p")', pages),))) as running:

        async def ask(path: str, **headers: str) -> httpx.Response:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            method = "OPTIONS" if "access-control-request-method" in named else "GET"
            return await running.client.request(method, path, headers=named)

        simple = await ask("/p", origin="https://a.shop.example")
        assert simple.headers["access-control-allow-origin"] == "https://a.shop.example"
        assert simple.headers["access-control-allow-credentials"] == "true"
        assert simple.headers["access-control-expose-headers"] == "X-B"
        assert simple.headers["vary"] == "Origin"
        for other in ("https://shop.example", "https://evil.example", "https://-.shop.example.x"):
            assert "access-control-allow-origin" not in (await ask("/p", origin=other)).headers
        assert "vary" not in (await ask("/q", origin="https://app.example")).headers
        preflight = {
            "origin": "https://app.example",
            "access_control_request_method": "POST",
            "access_control_request_headers": "x-a",
        }
        before = len(running.backend.requests)
        good = await ask("/p", **preflight)
        assert good.status_code == 204
        assert good.headers["access-control-allow-origin"] == "https://app.example"
        assert "POST" in good.headers["access-control-allow-methods"]
        assert good.headers["access-control-max-age"] == "3600"
        bad = await ask("/p", **preflight | {"access_control_request_headers": "x-c"})
        assert (bad.status_code, bad.headers["vary"]) == (204, "Origin")
        assert "access-control-allow-origin" not in bad.headers
        assert (await ask("/q", **preflight)).status_code == 404
        assert len(running.backend.requests) == before


@pytest.mark.parametrize(
    "condition", ["response.ResponseStatus == 200", 'processing.phase == "response"']
)
@pytest.mark.parametrize(
    "one",
    [
        key_policy(),
        policy("respond"),
        policy("compression"),
        policy("host-rewrite", host="a.example"),
        policy("basic-ratelimit", limits=[{"requests": 1, "duration": "1s"}]),
    ],
    ids=lambda one: one.name,
)
def test_what_decides_about_requests_cannot_wait_for_the_answer(
    one: Policy, condition: str
) -> None:
    with pytest.raises(PolicyNotCompiled, match="the policy decides about requests"):
        compile_chain((when(condition, one),), Api().scope("api"))


async def test_compression_may_have_a_condition_on_the_request() -> None:
    small = policy("compression", minBytes=30)
    async with gateway(Api((when('request.Path == "/a"', small),))) as running:
        for path, coding in (("/a", "gzip"), ("/b", None)):
            answer = await running.client.get(path, headers={"Accept-Encoding": "gzip"})
            assert answer.headers.get("content-encoding") == coding


async def test_a_condition_that_never_holds_leaves_nothing() -> None:
    async with gateway(Api((when("false", key_policy()),))) as running:
        assert (await running.client.get("/")).status_code == 200


async def test_as_many_conditions_as_there_are_slots_run_and_no_more() -> None:
    def chain(count: int) -> tuple[Policy | Attached, ...]:
        pairs = [
            (when(f'"x-{number}" in request.Headers', told(f"X-Seen-{number}")), told("X-Between"))
            for number in range(count)
        ]
        return tuple(one for pair in pairs for one in pair)

    above, below = chain(CONDITIONS_MAX - 1), chain(1)
    async with gateway(Api(above, {"/": below})) as running:
        names = {f"X-{number}": "1" for number in range(CONDITIONS_MAX)}
        answer = await running.client.get("/", headers=names)
        assert {f"x-seen-{number}" for number in range(CONDITIONS_MAX - 1)} <= set(answer.headers)
    with pytest.raises(ValueError, match=f"{CONDITIONS_MAX} executionConditions at most"):
        async with gateway(Api(chain(CONDITIONS_MAX + 1))):
            pass
