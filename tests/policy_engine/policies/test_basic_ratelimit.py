import asyncio
import re

from tests.policy_engine.attached import SYSTEM, TOO_MANY, limit, policy
from tests.policy_engine.gateway import Api, Gateway, gateway
from tests.servers.http_backend import Answer

TOLD = ("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset")


async def statuses(running: Gateway, count: int, path: str = "/") -> list[int]:
    return [(await running.client.get(path)).status_code for _ in range(count)]


async def test_requests_beyond_the_limit_are_refused_in_the_contracts_words() -> None:
    async with gateway(Api((limit(2),))) as running:
        first = await running.client.get("/")
        assert first.status_code == 200
        assert [first.headers[name] for name in TOLD[:2]] == ["2", "1"]
        assert await statuses(running, 1) == [200]
        refused = await running.client.get("/")
        assert refused.status_code == 429
        assert refused.json() == TOO_MANY
        assert refused.headers["content-type"] == "application/json"
        assert [refused.headers[name] for name in TOLD[:2]] == ["2", "0"]
        assert 1 <= int(refused.headers["retry-after"]) <= 1800
        assert int(refused.headers["x-ratelimit-reset"]) >= 1
        assert len(running.backend.requests) == 2


async def test_on_the_api_all_operations_share_one_count() -> None:
    async with gateway(Api((limit(3),), {"/a": (), "/b": (), "/c": (limit(100),)})) as running:
        assert await statuses(running, 1, "/a") == [200]
        assert await statuses(running, 1, "/b") == [200]
        assert await statuses(running, 1, "/c") == [200]
        for path in ("/a", "/b", "/c"):
            assert await statuses(running, 1, path) == [429]


async def test_on_operations_each_has_its_own_count() -> None:
    one = limit(1)
    async with gateway(Api((), {"/a": (one,), "/b": (one,), "/c": ()})) as running:
        assert await statuses(running, 2, "/a") == [200, 429]
        assert await statuses(running, 2, "/b") == [200, 429]
        assert await statuses(running, 3, "/c") == [200, 200, 200]


async def test_on_both_levels_the_lower_count_wins_and_headers_come_once() -> None:
    async with gateway(Api((limit(4),), {"/": (), "/few": (limit(2),)})) as running:
        answers = [await running.client.get("/few") for _ in range(3)]
        assert [one.status_code for one in answers] == [200, 200, 429]
        for answer, remaining in zip(answers, ("1", "0", "0"), strict=True):
            assert answer.headers.get_list("x-ratelimit-limit") == ["2"]
            assert answer.headers.get_list("x-ratelimit-remaining") == [remaining]
        rest = [await running.client.get("/") for _ in range(2)]
        assert [one.status_code for one in rest] == [200, 429]
        assert rest[0].headers.get_list("x-ratelimit-limit") == ["4"]


async def test_a_limit_fills_again() -> None:
    async with gateway(Api((limit(2, "2s"),))) as running:
        assert 429 in await statuses(running, 10)
        async with asyncio.timeout(20):
            while await statuses(running, 1) != [200]:
                await asyncio.sleep(0.02)


async def test_all_limits_hold_and_a_fast_refusal_takes_nothing_from_a_slow_limit() -> None:
    both = policy(
        "basic-ratelimit",
        limits=[{"requests": 6, "duration": "1h"}, {"requests": 3, "duration": "2s"}],
    )
    async with gateway(Api((both,))) as running:
        burst = await statuses(running, 40)
        assert burst[:3] == [200, 200, 200]
        assert 429 in burst
        passed = burst.count(200)  # 3, and what the fast limit gained meanwhile
        async with asyncio.timeout(60):
            while passed < 6:
                passed += (await statuses(running, 1)).count(200)
                await asyncio.sleep(0.05)
        slow = await running.client.get("/")  # whichever limit says no, 6 is the end for long
        assert slow.status_code == 429
        await asyncio.sleep(0.7)
        refused = await running.client.get("/")
        assert refused.status_code == 429
        assert refused.headers.get_list("x-ratelimit-limit") == ["6"]


async def test_headers_of_several_limits_come_once() -> None:
    three = policy(
        "basic-ratelimit",
        limits=[{"requests": number, "duration": "1h"} for number in (30, 20, 10)],
    )
    async with gateway(Api((three,))) as running:
        answer = await running.client.get("/")
        assert [answer.headers.get_list(name) for name in TOLD[:2]] == [["10"], ["9"]]


async def test_who_is_refused_before_the_limit_is_told_nothing_of_it() -> None:
    async with gateway(Api((policy("ip-filter", deny=["127.0.0.1"]), limit(5)))) as running:
        refused = await running.client.get("/")
        assert refused.status_code == 403
        assert not [name for name in refused.headers if "ratelimit" in name]


async def test_the_upstreams_own_limit_headers_are_not_mistaken_for_ours() -> None:
    async with gateway(Api((limit(5),))) as running:
        running.backend.answer = lambda _: Answer(headers=(("X-RateLimit-Limit", "77"),))
        answer = await running.client.get("/")
        assert answer.headers.get_list("x-ratelimit-limit") == ["5"]


async def test_an_upstreams_own_429_stays_as_it_is() -> None:
    async with gateway(Api((limit(5),))) as running:
        running.backend.answer = lambda _: Answer(429, (("content-type", "text/x"),), b"mine")
        answer = await running.client.get("/")
        assert (answer.status_code, answer.text) == (429, "mine")
        assert answer.headers["content-type"] == "text/x"


async def test_of_several_limits_the_strictest_is_told_and_each_in_the_drafts_headers() -> None:
    both = policy(
        "basic-ratelimit",
        limits=[{"requests": 100, "duration": "1h"}, {"requests": 3, "duration": "1m"}],
    )
    async with gateway(Api((both,))) as running:
        running.backend.answer = lambda _: Answer(headers=(("X-RateLimit-Remaining", "0"),))
        answers = [await running.client.get("/") for _ in range(4)]
        assert [one.status_code for one in answers] == [200, 200, 200, 429]
        for answer, left in zip(answers, ("2", "1", "0", "0"), strict=True):
            assert answer.headers.get_list("x-ratelimit-limit") == ["3"]
            assert answer.headers.get_list("x-ratelimit-remaining") == [left]
            assert 0 <= int(answer.headers["x-ratelimit-reset"]) <= 60
            stated = answer.headers["ratelimit-policy"]
            assert stated == '"default-60s";q=3;w=60, "default-3600s";q=100;w=3600'
        each = answers[0].headers.get_list("ratelimit")
        assert re.fullmatch(
            r'"default-60s";r=2;t=\d+, "default-3600s";r=99;t=\d+', ", ".join(each)
        ), each
        refused = answers[-1].headers
        assert re.fullmatch(r'"default-60s";r=0;t=\d+', refused["ratelimit"])
        assert refused.get_list("x-ratelimit-quota") == ["default"]
        assert "x-ratelimit-quota" not in answers[0].headers


async def test_the_slow_limit_is_told_once_less_is_left_of_it() -> None:
    both = policy(
        "basic-ratelimit",
        limits=[{"requests": 3, "duration": "1h"}, {"requests": 50, "duration": "1s"}],
    )
    async with gateway(Api((both,))) as running:
        answers = [await running.client.get("/") for _ in range(4)]
        assert [one.status_code for one in answers] == [200, 200, 200, 429]
        told = [[one.headers[name] for name in TOLD[:2]] for one in answers]
        assert told == [["3", "2"], ["3", "1"], ["3", "0"], ["3", "0"]]


async def test_an_inner_limit_takes_part_in_who_is_the_strictest() -> None:
    both = policy(
        "basic-ratelimit",
        limits=[{"requests": 20, "duration": "1h"}, {"requests": 9, "duration": "1m"}],
    )
    async with gateway(Api((both,), {"/": (), "/few": (limit(2),)})) as running:
        few = await running.client.get("/few")
        assert few.headers.get_list("x-ratelimit-limit") == ["2"]
        assert few.headers.get_list("x-ratelimit-remaining") == ["1"]
        other = await running.client.get("/")
        assert other.headers.get_list("x-ratelimit-limit") == ["9"]


async def test_without_x_headers_only_those_of_the_draft_are_told() -> None:
    both = policy(
        "basic-ratelimit",
        limits=[{"requests": 20, "duration": "1h"}, {"requests": 1, "duration": "1m"}],
    )
    system = SYSTEM.model_copy(update={"ratelimit_x_headers": False})
    async with gateway(Api((both,), system=system)) as running:
        answers = [await running.client.get("/") for _ in range(2)]
        assert [one.status_code for one in answers] == [200, 429]
        for answer in answers:
            assert not [name for name in answer.headers if name.startswith("x-ratelimit")]
            assert '"default-60s";r=0' in answer.headers["ratelimit"]
