import httpx
import pytest

from policy_engine.attached import Attached
from policy_engine.policy import Policy
from tests.policy_engine.attached import credential, key_policy, limit, policy
from tests.policy_engine.gateway import Api, Gateway, gateway
from tests.servers.http_backend import Answer

ORIGIN = "https://app.example.com"
LIST = {
    "allowedOrigins": [ORIGIN, "https://*.example.org", "http://localhost:3000"],
    "allowedMethods": ["GET", "POST"],
    "allowedHeaders": ["Content-Type", "X-Tenant.Id"],
    "exposedHeaders": ["X-Request-Id"],
    "maxAge": 600,
}
UPSTREAMS_OWN = Answer(
    headers=(
        ("Access-Control-Allow-Origin", "https://evil.example"),
        ("Access-Control-Allow-Credentials", "true"),
        ("Access-Control-Expose-Headers", "X-Secret"),
        ("Vary", "Accept"),
    )
)


def cors(**params: object) -> Policy:
    return policy("cors", **{**LIST, **params})


def access_control(answer: httpx.Response) -> dict[str, str]:
    return {
        name.removeprefix("access-control-"): value
        for name, value in answer.headers.items()
        if name.startswith("access-control-")
    }


async def preflight(
    running: Gateway, origin: str = ORIGIN, method: str = "POST", headers: str | None = None
) -> httpx.Response:
    asked = {"Origin": origin, "Access-Control-Request-Method": method}
    if headers is not None:
        asked["Access-Control-Request-Headers"] = headers
    answer = await running.client.options("/", headers=asked)
    assert answer.status_code == 204
    assert answer.content == b""
    return answer


async def test_a_preflight_is_answered_by_the_gateway() -> None:
    async with gateway(Api((cors(allowCredentials=True),))) as running:
        answer = await preflight(running, headers="content-type, X-TENANT.ID")
        assert access_control(answer) == {
            "allow-origin": ORIGIN,
            "allow-methods": "GET, POST",
            "allow-headers": "Content-Type, X-Tenant.Id",
            "allow-credentials": "true",
            "max-age": "600",
        }
        assert answer.headers["vary"] == "Origin"
        assert not running.backend.requests


ALLOWED = (
    ORIGIN,
    "https://a.example.org",
    "https://a.b.example.org",
    "http://localhost:3000",
)
OTHERS = (
    "https://example.org",
    "https://evilexample.org",
    "https://a.example.org.evil.com",
    "https://a.exampleXorg",
    "https://evil.com/.example.org",
    "http://a.example.org",
    "https://app.example.com:8443",
    "https://appXexample.com",
    "http://localhost:3001",
    "null",
)


async def test_origins_are_told_apart_in_preflights_and_requests() -> None:
    async with gateway(Api((cors(),))) as running:
        for origin in (*ALLOWED, *OTHERS):
            allowed = origin in ALLOWED
            told = access_control(await preflight(running, origin))
            assert told.get("allow-origin") == (origin if allowed else None), origin
            assert bool(told) is allowed
            simple = await running.client.get("/", headers={"Origin": origin})
            assert simple.status_code == 200
            expected = {"allow-origin": origin, "expose-headers": "X-Request-Id"}
            assert access_control(simple) == (expected if allowed else {}), origin
            assert simple.headers["vary"] == "Origin"


async def test_a_preflight_for_another_method_or_header_is_told_nothing() -> None:
    async with gateway(Api((cors(),))) as running:
        for method, headers in (
            ("PUT", None),
            ("get", None),
            ("GETS", None),
            ("POST", "X-Other"),
            ("POST", "Content-Type, X-Other"),
            ("POST", "X-TenantxId"),
        ):
            assert access_control(await preflight(running, method=method, headers=headers)) == {}
        for headers in (None, "", "content-type", "X-Tenant.Id,Content-Type", "x-tenant.id ,,"):
            assert access_control(await preflight(running, headers=headers))


async def test_what_the_upstream_says_about_cors_is_taken_off() -> None:
    async with gateway(Api((cors(),))) as running:
        running.backend.answer = lambda _: UPSTREAMS_OWN
        for headers in ({}, {"Origin": "https://other.example"}):
            answer = await running.client.get("/", headers=headers)
            assert access_control(answer) == {}
            assert sorted(answer.headers["vary"].replace(" ", "").split(",")) == [
                "Accept",
                "Origin",
            ]
        answer = await running.client.get("/", headers={"Origin": ORIGIN})
        assert access_control(answer) == {"allow-origin": ORIGIN, "expose-headers": "X-Request-Id"}


async def test_anybody_is_one_answer_for_all() -> None:
    anybody = policy("cors", allowedOrigins=["*"], exposedHeaders=["X-Total"])
    async with gateway(Api((anybody,))) as running:
        running.backend.answer = lambda _: UPSTREAMS_OWN
        answer = await running.client.get("/", headers={"Origin": ORIGIN})
        assert access_control(answer) == {"allow-origin": "*", "expose-headers": "X-Total"}
        assert answer.headers["vary"] == "Accept"
        told = access_control(await preflight(running, method="DELETE"))
        assert told["allow-origin"] == "*"
        assert told["max-age"] == "3600"


async def test_wildcards_are_spelled_out_where_credentials_are_allowed() -> None:
    anything = policy(
        "cors",
        allowedOrigins=["*"],
        allowedMethods=["*"],
        allowedHeaders=["*"],
        allowCredentials=True,
    )
    async with gateway(Api((anything,))) as running:
        told = access_control(await preflight(running, method="PATCH", headers="x-a,x-b"))
        assert told == {
            "allow-origin": ORIGIN,
            "allow-methods": "PATCH",
            "allow-headers": "x-a,x-b",
            "allow-credentials": "true",
            "max-age": "3600",
        }
        answer = await running.client.get("/", headers={"Origin": ORIGIN})
        assert access_control(answer) == {"allow-origin": ORIGIN, "allow-credentials": "true"}


async def test_forwarded_preflights_are_answered_by_the_upstream() -> None:
    async with gateway(Api((cors(forwardPreflight=True),))) as running:
        running.backend.answer = lambda _: Answer(
            202, (*UPSTREAMS_OWN.headers, ("Access-Control-Allow-Methods", "PURGE"))
        )
        asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "PURGE"}
        answer = await running.client.options("/", headers=asked)
        assert answer.status_code == 202
        assert access_control(answer) == {
            "allow-origin": ORIGIN,
            "allow-methods": "PURGE",
            "expose-headers": "X-Request-Id",
        }
        received = running.backend.last
        assert received.header("access-control-request-method") == "PURGE"
        assert received.header("x-signalbox-cors-method") is None

        asked["Origin"] = "https://other.example"
        refused = await running.client.options("/", headers=asked)
        assert "allow-origin" not in access_control(refused)

        await running.client.get("/")
        assert running.backend.last.header("access-control-request-method") is None


async def test_options_that_is_no_preflight_goes_to_the_operation() -> None:
    async with gateway(Api((cors(),))) as running:
        answer = await running.client.options("/", headers={"Origin": ORIGIN})
        assert answer.status_code == 200
        assert running.backend.last.method == "OPTIONS"
        assert access_control(answer)["allow-origin"] == ORIGIN


async def test_preflights_pass_what_stands_behind_cors_and_meet_what_stands_before() -> None:
    key = key_policy()
    for policies, expected in (((cors(), key), 204), ((key, cors()), 401)):
        async with gateway(Api(policies, credentials=(credential("k"),))) as running:
            asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
            answer = await running.client.options("/", headers=asked)
            assert answer.status_code == expected


async def test_refusals_behind_cors_can_be_read_by_the_page() -> None:
    async with gateway(Api((cors(), key_policy(), limit(1)))) as running:
        refused = await running.client.get("/", headers={"Origin": ORIGIN})
        assert refused.status_code == 401
        assert access_control(refused)["allow-origin"] == ORIGIN


async def test_cors_of_one_operation_leaves_the_others_alone() -> None:
    async with gateway(Api((), {"/": (), "/open": (cors(),)})) as running:
        asked = {"Origin": ORIGIN, "Access-Control-Request-Method": "GET"}
        answer = await running.client.options("/open", headers=asked)
        assert (answer.status_code, access_control(answer)["allow-origin"]) == (204, ORIGIN)
        answer = await running.client.options("/", headers=asked)
        assert (answer.status_code, access_control(answer)) == (200, {})
        simple = await running.client.get("/open", headers={"Origin": ORIGIN})
        assert access_control(simple)["allow-origin"] == ORIGIN


@pytest.mark.parametrize("conditional", [False, True])
@pytest.mark.parametrize("said", ["Accept", "accept, ORIGIN", "Origin", "X-Origin, Original", None])
async def test_of_two_the_first_decides_and_nothing_is_said_twice(
    said: str | None, *, conditional: bool
) -> None:
    mine, other = "https://a.example", "https://b.example"
    above: Policy | Attached = policy("cors", allowedOrigins=[mine], exposedHeaders=["X-A"])
    below = policy("cors", allowedOrigins=[mine, other], exposedHeaders=["X-B"])
    if conditional:
        above = Attached(policy("cors", allowedOrigins=[mine]), condition='request.Path == "/"')
    async with gateway(Api((above,), {"/": (below,)})) as running:
        vary = () if said is None else (("vary", said),)
        running.backend.answer = lambda _: Answer(headers=vary)
        for origin, allowed in ((mine, [mine]), (other, []), (None, [])):
            answer = await running.client.get("/", headers={"Origin": origin} if origin else {})
            names = [one.strip().lower() for one in answer.headers["vary"].split(",")]
            assert names.count("origin") == 1
            assert names[0] == (said or "origin").split(",")[0].lower()
            assert answer.headers.get_list("access-control-allow-origin") == allowed
