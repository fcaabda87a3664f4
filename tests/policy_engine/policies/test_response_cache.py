import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from time import time
from typing import Any

import httpx
import pytest

from policy_engine.chain import compile_chain
from policy_engine.errors import PolicyNotCompiled
from policy_engine.policy import Policy
from tests.policy_engine.attached import COMPANY, credential, key_policy, limit, policy
from tests.policy_engine.gateway import Api, Gateway, gateway
from tests.policy_engine.tokens import bearer
from tests.servers.http_backend import Answer, Received

TEXT = ("content-type", "text/plain")
BINARY = bytes(range(256)) * 400
ONE_AN_HOUR = {"limit": 1, "duration": "1h"}


def cache(**params: Any) -> Policy:
    return policy("response-cache", **params)


def fresh(*more: tuple[str, str], control: str | None = "max-age=60", status: int = 200) -> Any:
    """A backend whose answers tell how many there were."""
    count = 0

    def answer(request: Received) -> Answer:
        nonlocal count
        count += 1
        headers = [TEXT, *more, *([("cache-control", control)] if control else [])]
        return Answer(status, tuple(headers), f"{count} {request.path}".encode())

    return answer


@asynccontextmanager
async def cached(
    answer: Any = None, before: tuple[Policy, ...] = (), **params: Any
) -> AsyncIterator[Gateway]:
    api = Api((*before, cache(**params)), credentials=(credential("k"), credential("l", "Two")))
    async with gateway(api) as running:
        running.backend.answer = answer or fresh()
        yield running


async def got(running: Gateway, path: str = "/a", **more: Any) -> tuple[str | None, str]:
    """What the cache says, and the body."""
    answer = await running.client.request(more.pop("method", "GET"), path, **more)
    return answer.headers.get("x-cache-status"), answer.text


async def test_an_answer_is_given_again_while_it_is_good() -> None:
    async with cached(fresh(("etag", '"1"'), ("x-own", "a"), ("x-own", "b"))) as running:
        assert await got(running) == ("MISS", "1 /a")
        again = await running.client.get("/a")
        assert (again.status_code, again.text) == (200, "1 /a")
        assert again.headers["x-cache-status"] == "HIT"
        assert 0 <= int(again.headers["age"]) < 30
        assert again.headers["content-type"] == "text/plain"
        assert again.headers["cache-control"] == "max-age=60"
        assert again.headers.get_list("x-own") == ["a", "b"]
        assert await got(running, "/a?x=1") == ("MISS", "2 /a?x=1")
        assert await got(running, headers={"host": "other.example"}) == ("MISS", "3 /a")
        assert len(running.backend.requests) == 3


async def test_an_answer_is_not_given_after_its_time() -> None:
    async with cached(fresh(control="max-age=1")) as running:
        assert await got(running) == ("MISS", "1 /a")
        async with asyncio.timeout(20):
            while (await got(running)) == ("HIT", "1 /a"):
                await asyncio.sleep(0.05)
        assert await got(running) != ("HIT", "1 /a")


@pytest.mark.parametrize(
    "more",
    [
        ("cache-control", "s-maxage=60, max-age=0"),
        ("cache-control", 'Public, MAX-AGE="60"'),
        ("expires", formatdate(time() + 3600, usegmt=True)),
    ],
)
async def test_what_upstreams_say_of_time_is_understood(more: tuple[str, str]) -> None:
    async with cached(fresh(more, control=None)) as running:
        assert [(await got(running))[0] for _ in range(2)] == ["MISS", "HIT"]


@pytest.mark.parametrize(
    "more",
    [
        ("cache-control", "no-store, max-age=60"),
        ("cache-control", "private"),
        ("cache-control", 'private="x", max-age=60'),
        ("cache-control", "no-cache"),
        ("cache-control", "max-age=0"),
        ("cache-control", "s-maxage=0, max-age=60"),
        ("expires", "0"),
        ("expires", formatdate(time() - 10, usegmt=True)),
        ("vary", "*"),
        ("set-cookie", "session=1"),
        ("content-range", "bytes 0-3/9"),
    ],
)
async def test_what_must_not_be_kept_is_not(more: tuple[str, str]) -> None:
    async with cached(fresh(more, control=None), ttl="1h") as running:
        assert [(await got(running))[0] for _ in range(2)] == ["MISS", "MISS"]


async def test_an_age_from_behind_counts() -> None:
    async with cached(fresh(("age", "50"))) as running:
        assert (await got(running))[0] == "MISS"
        answer = await running.client.get("/a")
        assert answer.headers["x-cache-status"] == "HIT"
        assert 50 <= int(answer.headers["age"]) < 60
    async with cached(fresh(("age", "60"))) as running:
        assert [(await got(running))[0] for _ in range(2)] == ["MISS", "MISS"]


async def test_silent_upstreams_need_a_ttl() -> None:
    async with cached(fresh(control=None)) as running:
        assert [(await got(running))[0] for _ in range(2)] == ["MISS", "MISS"]
    async with cached(fresh(control=None), ttl="1m") as running:
        assert [(await got(running))[0] for _ in range(2)] == ["MISS", "HIT"]


async def test_only_the_statuses_that_are_named_are_kept() -> None:
    async with cached(fresh(status=404)) as running:
        assert [(await got(running))[0] for _ in range(2)] == ["MISS", "MISS"]
    async with cached(fresh(status=404), statuses=[200, 404]) as running:
        await got(running)
        answer = await running.client.get("/a")
        assert (answer.status_code, answer.text) == (404, "1 /a")
        assert answer.headers["x-cache-status"] == "HIT"


async def test_head_is_answered_from_what_get_has_left() -> None:
    async with cached() as running:
        assert (await got(running, method="HEAD"))[0] == "BYPASS"
        assert (await got(running))[0] == "MISS"
        answer = await running.client.head("/a")
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["x-cache-status"] == "HIT"
        assert answer.headers["content-length"] == str(len("2 /a"))


async def test_other_methods_and_requests_with_a_body_go_through() -> None:
    async with cached() as running:
        await got(running)
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            assert (await got(running, method=method))[0] is None
        assert (await got(running, content=b"x"))[0] == "BYPASS"

        async def chunks() -> AsyncIterator[bytes]:
            yield b"x"

        for _ in range(2):  # what a body has brought about is not kept for others
            assert (await got(running, "/b", content=chunks()))[0] == "BYPASS"
        assert (await got(running, headers={"range": "bytes=0-1"}))[0] == "BYPASS"
        assert await got(running) == ("HIT", "1 /a")


async def test_conditions_of_callers_are_answered_from_memory() -> None:
    modified = formatdate(time() - 1000, usegmt=True)
    tags = (("etag", 'W/"1"'), ("last-modified", modified))
    async with cached(fresh(*tags)) as running:
        await got(running)
        for name, value, status in (
            ("if-none-match", '"1"', 304),
            ("if-none-match", '"0", W/"1"', 304),
            ("if-none-match", "*", 304),
            ("if-none-match", '"2"', 200),
            ("if-modified-since", modified, 304),
            ("if-modified-since", formatdate(time() - 9999, usegmt=True), 200),
        ):
            answer = await running.client.get("/a", headers={name: value})
            assert answer.status_code == status, (name, value)
            assert (answer.content == b"") == (status == 304)
            assert answer.headers["etag"] == 'W/"1"'
        assert await got(running) == ("HIT", "1 /a")
        assert len(running.backend.requests) == 1


async def test_callers_may_ask_for_a_new_answer() -> None:
    async with cached() as running:
        await got(running)
        for control, body in (
            ("no-cache", "2 /a"),
            ("max-age=0", "3 /a"),
            ("min-fresh=90", "4 /a"),
        ):
            assert await got(running, headers={"cache-control": control}) == ("MISS", body)
            assert await got(running) == ("HIT", body)
        assert await got(running, headers={"pragma": "no-cache"}) == ("MISS", "5 /a")
        assert await got(running, headers={"cache-control": "no-store"}) == ("BYPASS", "6 /a")
        assert await got(running) == ("HIT", "5 /a")
        only = {"cache-control": "only-if-cached"}
        assert await got(running, headers=only) == ("HIT", "5 /a")
        answer = await running.client.get("/b", headers=only)
        assert (answer.status_code, answer.json()["error"]) == (504, "Gateway Timeout")
    async with cached(ignoreRequestDirectives=True) as running:
        await got(running)
        for control in ("no-cache", "no-store", "max-age=0"):
            assert (await got(running, headers={"cache-control": control}))[0] == "HIT"


async def test_answers_that_vary_are_told_apart() -> None:
    async with cached(fresh(("vary", "Accept-Language, X-Colour"))) as running:
        german, french = {"accept-language": "de"}, {"accept-language": "fr"}
        assert await got(running, headers=german) == ("MISS", "1 /a")  # what it varies by is learnt
        assert await got(running, headers=german) == ("MISS", "2 /a")
        assert await got(running, headers=german) == ("HIT", "2 /a")
        assert await got(running, headers=french) == ("MISS", "3 /a")
        assert await got(running, headers=french) == ("HIT", "3 /a")
        assert await got(running, headers=german | {"x-colour": "red"}) == ("MISS", "4 /a")
        assert await got(running) == ("MISS", "5 /a")
        assert await got(running, headers=german) == ("HIT", "2 /a")
    async with cached(varyBy=["Accept-Language"]) as running:
        assert await got(running, headers={"accept-language": "de"}) == ("MISS", "1 /a")
        assert await got(running, headers={"accept-language": ""}) == ("MISS", "2 /a")
        assert await got(running) == ("MISS", "3 /a")
        assert await got(running, headers={"accept-language": "de"}) == ("HIT", "1 /a")


async def test_upstreams_that_vary_by_too_much_are_not_kept() -> None:
    names = ", ".join(f"x-{number}" for number in range(17))
    async with cached(fresh(("vary", names))) as running:
        assert [(await got(running))[0] for _ in range(4)] == ["MISS"] * 4


@pytest.mark.parametrize(
    "who", [{"authorization": "Bearer one"}, {"cookie": "session=1"}, {"API-Key": "k"}]
)
async def test_the_answer_of_one_caller_is_not_given_to_another(who: dict[str, str]) -> None:
    optional = (policy("basic-auth", username="u", password="p", allowUnauthenticated=True),)
    if "API-Key" in who:
        optional = (key_policy(),)
    elif "authorization" in who:
        optional = ()
    async with cached(before=optional) as running:
        assert [(await got(running, headers=who))[0] for _ in range(2)] == ["MISS", "MISS"]
        if "API-Key" not in who:
            assert (await got(running))[0] == "MISS"
            assert (await got(running))[0] == "HIT"
            assert (await got(running, headers=who))[0] == "MISS"  # nor the anonymous one


async def test_what_the_upstream_calls_public_is_shared_by_all_callers() -> None:
    for control in ("public, max-age=60", "s-maxage=60"):
        async with cached(fresh(control=control), (key_policy(),)) as running:
            assert await got(running, headers={"API-Key": "k"}) == ("MISS", "1 /a")
            assert await got(running, headers={"API-Key": "l"}) == ("HIT", "1 /a")
            assert (await running.client.get("/a")).status_code == 401
            assert len(running.backend.requests) == 1


async def test_callers_may_have_answers_of_their_own() -> None:
    async with cached(before=(key_policy(),), perCaller=True) as running:
        one, two = {"API-Key": "k"}, {"API-Key": "l"}
        assert await got(running, headers=one) == ("MISS", "1 /a")
        assert await got(running, headers=two) == ("MISS", "2 /a")
        assert await got(running, headers=one) == ("HIT", "1 /a")
        assert await got(running, headers=two) == ("HIT", "2 /a")
        assert (await got(running, headers=one | {"cookie": "a=b"}))[0] == "MISS"
    async with cached(before=(policy("jwt-auth"),), perCaller=True) as running:
        ann, bob = bearer(COMPANY.token(sub="ann")), bearer(COMPANY.token(sub="bob"))
        assert await got(running, headers=ann) == ("MISS", "1 /a")
        assert await got(running, headers=ann) == ("HIT", "1 /a")
        assert await got(running, headers=bob) == ("MISS", "2 /a")


async def test_bodies_come_back_as_they_were() -> None:
    async with cached(maxBodyBytes=200_000, maxMemoryBytes=1 << 20) as running:
        head = (("content-type", "image/png"), ("cache-control", "max-age=60"))
        running.backend.answer = lambda request: Answer(200, head, BINARY)
        for expected in ("MISS", "HIT"):
            answer = await running.client.get("/a")
            assert answer.headers["x-cache-status"] == expected
            assert answer.content == BINARY
        running.backend.answer = lambda request: Answer(200, head, b"")
        for expected in ("MISS", "HIT"):
            answer = await running.client.get("/empty")
            assert (answer.headers["x-cache-status"], answer.content) == (expected, b"")


async def test_large_answers_and_those_without_a_type_are_not_kept() -> None:
    async with cached(maxBodyBytes=4) as running:
        assert [(await got(running, "/"))[0] for _ in range(2)] == ["MISS", "HIT"]  # `1 /`
        assert [(await got(running, "/ab"))[0] for _ in range(2)] == ["MISS", "MISS"]
    async with cached() as running:
        head = (("cache-control", "max-age=60"),)
        running.backend.answer = lambda request: Answer(200, head, b"x")
        assert [(await got(running))[0] for _ in range(2)] == ["MISS", "MISS"]


async def test_when_memory_is_full_the_least_used_go_first() -> None:
    async with cached(maxMemoryBytes=64 << 10, maxBodyBytes=20_000) as running:
        head = (TEXT, ("cache-control", "max-age=60"))
        running.backend.answer = lambda request: Answer(200, head, b"x" * 15_000)
        for path in ("/1", "/2", "/3", "/1", "/4"):
            await got(running, path)
        assert (await got(running, "/1"))[0] == "HIT"
        assert (await got(running, "/5"))[0] == "MISS"
        statuses = {path: (await got(running, path))[0] for path in ("/1", "/4", "/5")}
        assert statuses == {"/1": "HIT", "/4": "HIT", "/5": "HIT"}
        assert (await got(running, "/2"))[0] == "MISS"


async def test_many_at_once_get_what_they_asked_for() -> None:
    async with cached() as running:
        head = (TEXT, ("cache-control", "max-age=60"))
        running.backend.answer = lambda one: Answer(200, head, one.path.encode(), delay_s=0.01)
        paths = [f"/{number % 7}" for number in range(200)]
        answers = await asyncio.gather(*(running.client.get(path) for path in paths))
        assert [one.text for one in answers] == paths
        answers = await asyncio.gather(*(running.client.get(path) for path in paths))
        assert {one.headers["x-cache-status"] for one in answers} == {"HIT"}


async def test_a_caller_that_goes_away_leaves_nothing_behind() -> None:
    async with cached() as running:
        head = (TEXT, ("cache-control", "max-age=60"))
        running.backend.answer = lambda one: Answer(200, head, b"x", delay_s=5)
        with pytest.raises(httpx.ReadTimeout):
            await running.client.get("/a", timeout=0.2)
        running.backend.answer = fresh()
        assert await got(running) == ("MISS", "1 /a")


async def test_what_stands_before_meets_answers_from_memory_too() -> None:
    before = (
        policy("set-headers", response={"headers": [{"name": "X-A", "value": "1"}]}),
        limit(2),
    )
    async with cached(before=before) as running:
        answers = [await running.client.get("/a") for _ in range(3)]
        assert [one.status_code for one in answers] == [200, 200, 429]
        assert [one.headers["x-a"] for one in answers] == ["1", "1", "1"]


@pytest.mark.parametrize(
    "behind", [limit(1), policy("advanced-ratelimit", quotas=[{"limits": [ONE_AN_HOUR]}])]
)
async def test_a_limit_behind_it_counts_only_what_reaches_the_upstream(behind: Policy) -> None:
    put = policy("set-headers", response={"headers": [{"name": "X-A", "value": "1"}]})
    api = Api((), {"/": (cache(), put, behind)})
    async with gateway(api) as running:
        running.backend.answer = fresh()
        answers = [await running.client.get("/a") for _ in range(3)]
        assert [one.text for one in answers] == ["1 /a"] * 3
        assert [one.headers.get_list("x-a") for one in answers] == [["1"]] * 3
        assert "x-ratelimit-remaining" in answers[0].headers
        told = {name for name in answers[1].headers if "ratelimit" in name}
        assert told == set()  # what was left then is not what is left now
        refused = await running.client.get("/b")
        assert (refused.status_code, refused.headers["x-cache-status"]) == (429, "MISS")
        assert (await running.client.get("/b")).status_code == 429  # refusals are not kept


@pytest.mark.parametrize(
    ("attached", "below", "told"),
    [
        ((cache(), key_policy()), (), "would not pass api-key-auth"),
        ((cache(), policy("ip-filter", allow=["10.0.0.1"])), (), "would not pass ip-filter"),
        ((cache(),), (policy("jwt-auth"),), "would not pass jwt-auth"),
        ((cache(), cache()), (), "twice"),
        ((cache(),), (cache(),), "twice"),
    ],
)
def test_what_may_refuse_must_stand_before_it(
    attached: tuple[Policy, ...], below: tuple[Policy, ...], told: str
) -> None:
    with pytest.raises(PolicyNotCompiled, match=told):
        compile_chain(attached, Api(attached, {"/": below}).scope("api"))
