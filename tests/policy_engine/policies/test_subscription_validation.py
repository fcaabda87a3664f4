"""subscription-validation through a real Envoy; what becomes live and expires is xds's part."""

import re
from hashlib import sha256
from typing import Any

import httpx
import pytest

from policy_engine.attached import Attached
from policy_engine.errors import InvalidParameters
from policy_engine.parameters.headers import APPLICATION_HEADER
from policy_engine.rate_limits.plan_limits import QUOTA_HEADER, SUBSCRIPTION_HEADER
from policy_engine.subscriptions import Quota, Subscriber
from tests.policy_engine.attached import TOO_MANY, credential, key_policy, limit, policy
from tests.policy_engine.gateway import Api, Gateway, gateway
from tests.servers.http_backend import Answer

FORBIDDEN = {"error": "Forbidden", "message": "An active subscription to this API is required"}
VALIDATION = policy("subscription-validation")
LONGEST = "x" * 4096


def subscriber(name: str, token: str = "", quota: Quota | None = None, **facts: Any) -> Subscriber:
    digest = sha256((token or f"token of {name}").encode()).hexdigest()
    return Subscriber(name, digest, quota=quota, plan=quota.plan if quota else "", **facts)


def api(*subscriptions: Subscriber, by: Any = VALIDATION, **more: Any) -> Api:
    return Api((by,), subscriptions=subscriptions, **more)


async def ask(
    running: Gateway, token: str | None, path: str = "/", **headers: str
) -> httpx.Response:
    given = {} if token is None else {"Subscription-Key": token}
    answer = await running.client.get(path, headers=given | headers)
    if answer.status_code == 403:
        assert answer.json() == FORBIDDEN
        assert answer.headers["content-type"] == "application/json"
    return answer


async def statuses(running: Gateway, token: str, count: int, path: str = "/") -> list[int]:
    return [(await ask(running, token, path)).status_code for _ in range(count)]


async def test_only_tokens_of_live_subscriptions_pass_and_say_which() -> None:
    async with gateway(api(subscriber("s1", "one"), subscriber("s2", LONGEST))) as running:
        for token, name in (("one", "s1"), (LONGEST, "s2")):
            assert (await ask(running, token)).status_code == 200
            assert running.backend.last.all(SUBSCRIPTION_HEADER) == [name]
        served = len(running.backend.requests)
        for wrong in (None, "", "One", "one ,one", LONGEST + "x", "t:one"):
            assert (await ask(running, wrong)).status_code == 403
        twice = [("Subscription-Key", "one"), ("subscription-key", "one")]
        assert (await running.client.get("/", headers=twice)).status_code == 403
        assert len(running.backend.requests) == served


async def test_without_subscriptions_everybody_is_refused_and_switched_off_nobody_is() -> None:
    async with gateway(api()) as running:
        assert (await ask(running, "any")).status_code == 403
        assert (await ask(running, None)).status_code == 403
    async with gateway(api(by=policy("subscription-validation", enabled=False))) as running:
        assert (await ask(running, None)).status_code == 200


async def test_neither_token_nor_digest_reaches_the_upstream_or_can_be_presented() -> None:
    one = subscriber("s1", "secret-token")
    async with gateway(api(one)) as running:
        assert (await ask(running, "secret-token")).status_code == 200
        told = repr(running.backend.last)
        assert "secret-token" not in told
        assert one.digest not in told
        assert (await ask(running, one.digest)).status_code == 403
        forged = {SUBSCRIPTION_HEADER: "s1", QUOTA_HEADER: "x"}
        assert (await ask(running, None, **forged)).status_code == 403
        assert (await ask(running, "secret-token", **forged)).status_code == 200
        assert running.backend.last.all(SUBSCRIPTION_HEADER) == ["s1"]
        assert running.backend.last.all(QUOTA_HEADER) == []


async def test_a_cookie_is_asked_when_the_header_is_not_there() -> None:
    by_cookie = policy("subscription-validation", subscriptionKeyCookie="sub.id")
    subscriptions = (subscriber("s1", "one"), subscriber("s2", "a=b"))
    async with gateway(api(*subscriptions, by=by_cookie)) as running:

        async def through(cookie: str, token: str | None = None) -> tuple[int, list[str]]:
            answer = await ask(running, token, Cookie=cookie)
            if answer.status_code != 200:
                return answer.status_code, []
            return 200, running.backend.last.all("cookie")

        assert await through("sub.id=one") == (200, [])
        assert await through("a=1; sub.id=one; b=2,3") == (200, ["a=1; b=2,3"])
        assert await through("sub.id=a=b") == (200, [])
        assert await through("sub.id=two; theme=dark", token="one") == (200, ["theme=dark"])
        for cookie in ("sub.id=two", "subXid=one", "sub.id=one; sub.id=one", "sub.id=", "one"):
            assert (await through(cookie))[0] == 403
        assert (await through("sub.id=one", token="two"))[0] == 403  # a token must be good


async def test_an_application_that_an_earlier_policy_verified_needs_no_token() -> None:
    shop = subscriber("s1", application="Café", callers=("app-1", "Café"))
    other = subscriber("s2", application="Other", callers=("Other",))
    chain = (key_policy(), VALIDATION)
    credentials = (
        credential("by-name", "Café"),
        credential("by-id", "app-1"),
        credential("nobody", "Nobody"),
    )
    attached = Api(chain, credentials=credentials, subscriptions=(shop, other))
    async with gateway(attached) as running:

        async def through(key: str, token: str | None = None) -> int:
            return (await ask(running, token, **{"API-Key": key})).status_code

        assert await through("by-name") == 200
        assert running.backend.last.all(SUBSCRIPTION_HEADER) == ["s1"]
        assert await through("by-id") == 200
        assert await through("nobody") == 403
        assert await through("wrong") == 401
        assert await through("nobody", "token of s2") == 200
        assert running.backend.last.all(SUBSCRIPTION_HEADER) == ["s2"]
        assert running.backend.last.all(APPLICATION_HEADER) == ["Nobody"]  # the key says who calls


async def test_a_subscription_says_who_calls_when_nobody_else_does() -> None:
    async with gateway(api(subscriber("s1", application="Café", callers=("Café",)))) as running:
        assert (await ask(running, "token of s1")).status_code == 200
        assert running.backend.last.all(APPLICATION_HEADER) == ["Caf%C3%A9"]


async def test_of_several_subscriptions_of_one_application_the_oldest_counts() -> None:
    both = [subscriber(name, application="A", callers=("A",)) for name in ("old", "new")]
    keys = (credential("k", "A"),)
    attached = Api((key_policy(), VALIDATION), credentials=keys, subscriptions=tuple(both))
    async with gateway(attached) as running:
        assert (await ask(running, None, **{"API-Key": "k"})).status_code == 200
        assert running.backend.last.all(SUBSCRIPTION_HEADER) == ["old"]


async def test_each_subscription_is_held_to_its_plan() -> None:
    gold, basic = Quota("gold", 4, "Hour"), Quota("basic", 2, "Month")
    counted = Quota("counted", 1, "Day", stop=False)
    subscriptions = (
        subscriber("s1", quota=basic),
        subscriber("s2", quota=basic),
        subscriber("s3", quota=gold),
        subscriber("s4", quota=counted),
        subscriber("s5"),
    )
    async with gateway(api(*subscriptions)) as running:
        assert await statuses(running, "token of s1", 4) == [200, 200, 429, 429]
        assert await statuses(running, "token of s2", 3) == [200, 200, 429]
        assert await statuses(running, "token of s3", 5) == [200] * 4 + [429]
        assert await statuses(running, "token of s4", 3) == [200] * 3
        assert await statuses(running, "token of s5", 3) == [200] * 3
        refused = await ask(running, "token of s3")
        assert refused.json() == TOO_MANY
        assert refused.headers["content-type"] == "application/json"
        assert 1 <= int(refused.headers["retry-after"]) <= 900
        assert refused.headers.get_list("x-ratelimit-limit") == ["4"]
        unlimited = await ask(running, "token of s5")
        assert not [name for name in unlimited.headers if name.startswith("x-ratelimit")]


async def test_token_and_application_are_one_subscription_with_one_count() -> None:
    one = subscriber("s1", quota=Quota("p", 2, "Hour"), application="A", callers=("A",))
    attached = Api((key_policy(), VALIDATION), credentials=(credential("k", "A"),))
    attached = Api(attached.policies, credentials=attached.credentials, subscriptions=(one,))
    async with gateway(attached) as running:
        key = {"API-Key": "k"}
        assert (await ask(running, None, **key)).status_code == 200
        assert (await ask(running, "token of s1", **key)).status_code == 200
        assert (await ask(running, None, **key)).status_code == 429


async def test_on_the_api_all_operations_share_one_count() -> None:
    one = subscriber("s1", quota=Quota("p", 2, "Hour"))
    async with gateway(api(one, operations={"/a": (), "/b": ()})) as running:
        assert await statuses(running, "token of s1", 1, "/a") == [200]
        assert await statuses(running, "token of s1", 2, "/b") == [200, 429]


async def test_an_operation_may_ask_again_though_the_token_is_taken_off() -> None:
    one = subscriber("s1")
    async with gateway(api(one, operations={"/": (), "/again": (VALIDATION,)})) as running:
        assert (await ask(running, "token of s1", "/again")).status_code == 200
        assert (await ask(running, "wrong", "/again")).status_code == 403
        assert "token of s1" not in repr(running.backend.last)


async def test_headers_tell_of_the_innermost_limit_once() -> None:
    one = subscriber("s1", quota=Quota("p", 5, "Hour"))
    attached = Api((VALIDATION, limit(9)), subscriptions=(one, subscriber("s2")))
    async with gateway(attached) as running:
        running.backend.answer = lambda _: Answer(headers=(("X-RateLimit-Limit", "77"),))
        for token in ("token of s1", "token of s2"):
            answer = await ask(running, token)
            assert answer.headers.get_list("x-ratelimit-limit") == ["9"]
    async with gateway(api(one)) as running:
        running.backend.answer = lambda _: Answer(headers=(("X-RateLimit-Limit", "77"),))
        answer = await ask(running, "token of s1")
        assert answer.headers.get_list("x-ratelimit-limit") == ["5"]


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"subscriptionKeyHeader": "host"}, "subscriptionKeyHeader"),
        ({"subscriptionKeyHeader": "x-signalbox-a"}, "subscriptionKeyHeader"),
        ({"subscriptionKeyHeader": ""}, "subscriptionKeyHeader"),
        ({"subscriptionKeyCookie": "a b"}, "subscriptionKeyCookie"),
        ({"enabled": "yes"}, "enabled"),
    ],
)
def test_parameters_that_make_no_sense_are_named(params: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidParameters) as error:
        policy("subscription-validation", **params)
    assert [one.path for one in error.value.faults] == [field]


async def test_in_shadow_nobody_is_refused_and_nothing_is_taken_off() -> None:
    looking = Attached(VALIDATION, mode="shadow")
    async with gateway(api(subscriber("s1", "one"), by=looking)) as running:
        for token in ("one", "two", None):
            assert (await ask(running, token)).status_code == 200
            told = running.backend.last
            assert told.all("subscription-key") == ([] if token is None else [token])
            assert told.all(SUBSCRIPTION_HEADER) == []


async def test_a_router_that_counts_by_itself_tells_in_the_drafts_headers() -> None:
    hourly, monthly = Quota("gold", 5, "Hour"), Quota("basic", 1, "Month")
    async with gateway(api(subscriber("s1", quota=hourly))) as running:
        answer = await ask(running, "token of s1")
        assert answer.headers["ratelimit-policy"] == '"plan";q=5;w=3600'
        assert re.fullmatch(r'"plan";r=4;t=\d+', answer.headers["ratelimit"])
    both = (subscriber("s1", quota=hourly), subscriber("s2", quota=monthly), subscriber("s3"))
    async with gateway(api(*both)) as running:
        answer = await ask(running, "token of s1")
        assert answer.headers["ratelimit-policy"] == '"plan";q=5'
        assert (await ask(running, "token of s2")).status_code == 200
        refused = await ask(running, "token of s2")
        assert refused.status_code == 429
        assert refused.headers["x-ratelimit-quota"] == "plan"
        assert re.fullmatch(r'"plan";r=0;t=\d+', refused.headers["ratelimit"])
        free = await ask(running, "token of s3")
        assert not [name for name in free.headers if "ratelimit" in name]
