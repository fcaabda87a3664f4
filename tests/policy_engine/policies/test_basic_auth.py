import pytest

from policy_engine.parameters.headers import APPLICATION_HEADER
from policy_engine.policy import Policy
from tests.policy_engine.attached import basic, key_policy, limit, policy
from tests.policy_engine.gateway import Api, Gateway, gateway
from tests.servers.http_backend import Answer

REFUSED = {"error": "Unauthorized", "message": "Authentication required"}


def user(username: str = "shop", password: str = "secret", **params: object) -> Policy:
    return policy("basic-auth", username=username, password=password, **params)


async def status(running: Gateway, authorization: str | None, path: str = "/") -> int:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = await running.client.get(path, headers=headers)
    if answer.status_code == 401:
        assert answer.json() == REFUSED
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers.get_list("www-authenticate")
    return answer.status_code


async def test_only_the_user_passes_and_is_named() -> None:
    async with gateway(Api((user(),))) as running:
        claimed = {"Authorization": basic("shop", "secret"), APPLICATION_HEADER: "admin"}
        assert (await running.client.get("/", headers=claimed)).status_code == 200
        assert running.backend.last.all(APPLICATION_HEADER) == ["shop"]
        assert running.backend.last.header("authorization") == basic("shop", "secret")
        for wrong in (
            None,
            "",
            "Basic",
            "Basic !!",
            "Basic c2hvcA==",
            "Bearer secret",
            basic("shop", "Secret"),
            basic("shop", ""),
            basic("Shop", "secret"),
            basic("", "secret"),
            basic("shop", "secret") + "x",
        ):
            assert await status(running, wrong) == 401, wrong
        assert len(running.backend.requests) == 1


@pytest.mark.parametrize("scheme", ["basic", "BASIC", "bAsIc", "Basic  "])
async def test_the_scheme_is_in_any_case(scheme: str) -> None:
    right, wrong = (basic("shop", one).removeprefix("Basic") for one in ("secret", "Secret"))
    async with gateway(Api((user(),))) as running:
        assert await status(running, scheme + right) == 200
        assert running.backend.last.header(APPLICATION_HEADER) == "shop"
        assert await status(running, scheme + right.rstrip("=")) == 200
        assert await status(running, scheme + wrong) == 401
        assert await status(running, scheme + "X" + right) == 401


@pytest.mark.parametrize("password", ["a:b:c", "Grüße ♥", " spaces ", "%REQ(:path)%", "x" * 1024])
async def test_any_password_can_be_used(password: str) -> None:
    async with gateway(Api((user(password=password),))) as running:
        assert await status(running, basic("shop", password)) == 200
        assert await status(running, basic("shop", password + "x")) == 401


@pytest.mark.parametrize("name", ["a b", "!", "a#b", "shop@example.org", "{SHA}x"])
async def test_any_name_that_is_accepted_can_be_used(name: str) -> None:
    async with gateway(Api((user(name),))) as running:
        assert await status(running, basic(name, "secret")) == 200
        assert running.backend.last.header(APPLICATION_HEADER) == name


async def test_the_realm_is_told_at_each_level() -> None:
    operations = {"/": (), "/other": (user(realm="100% {other}"),)}
    open_below = Api((), {"/": (user(),), **operations, "/x": (user(),)})
    async with gateway(open_below) as running:
        for path, realm in (("/x", "Restricted"), ("/other", "100% {other}")):
            answer = await running.client.get(path)
            assert answer.headers.get_list("www-authenticate") == [f'Basic realm="{realm}"']


async def test_an_upstreams_own_challenge_stays() -> None:
    async with gateway(Api((user(),))) as running:
        running.backend.answer = lambda _: Answer(401, (("www-authenticate", "Mine"),), b"mine")
        answer = await running.client.get("/", headers={"Authorization": basic("shop", "secret")})
        assert (answer.text, answer.headers["www-authenticate"]) == ("mine", "Mine")


async def test_without_credentials_one_may_pass_but_not_with_wrong_ones() -> None:
    async with gateway(Api((user(allowUnauthenticated=True),))) as running:
        assert await status(running, None) == 200
        assert running.backend.last.header(APPLICATION_HEADER) is None
        assert await status(running, basic("shop", "secret")) == 200
        assert running.backend.last.header(APPLICATION_HEADER) == "shop"
        assert await status(running, basic("shop", "wrong")) == 401


async def test_both_levels_must_agree() -> None:
    same, other = user(), user("admin")
    async with gateway(Api((same,), {"/": (same,), "/admin": (other,)})) as running:
        assert await status(running, basic("shop", "secret")) == 200
        for name in ("shop", "admin"):
            assert await status(running, basic(name, "secret"), "/admin") == 401


async def test_the_password_can_be_taken_off_behind_it() -> None:
    drop = policy("remove-headers", request={"headers": [{"name": "Authorization"}]})
    async with gateway(Api((user(),), {"/": (drop,)})) as running:
        assert await status(running, basic("shop", "secret")) == 200
        assert running.backend.last.header("authorization") is None
    async with gateway(Api((drop, user()))) as running:
        assert await status(running, basic("shop", "secret")) == 401


async def test_a_limit_behind_it_counts_only_who_may_pass() -> None:
    right, wrong = basic("shop", "secret"), basic("shop", "wrong")
    async with gateway(Api((user(), limit(1)))) as running:
        assert [await status(running, one) for one in (wrong, wrong, right, right)] == [
            401,
            401,
            200,
            429,
        ]
    async with gateway(Api((limit(1), user()))) as running:
        assert [await status(running, one) for one in (wrong, right)] == [401, 429]


async def test_the_password_is_not_in_envoys_configuration() -> None:
    async with gateway(Api((user(password="correct-horse"), key_policy()))) as running:
        dumped = (await running.router.admin("/config_dump")).text
        assert "Authentication required" in dumped
        for told in ("correct-horse", basic("shop", "correct-horse").removeprefix("Basic ")):
            assert told not in dumped


def test_the_password_is_not_shown() -> None:
    assert "correct-horse" not in repr(user(password="correct-horse"))
