import pytest

from policy_engine.policy import Policy
from tests.policy_engine.attached import limit, policy
from tests.policy_engine.gateway import Api, Gateway, gateway

REFUSED = {"error": "Forbidden", "message": "Requests from this origin are not allowed"}
OWN = "api.example.com"


def csrf(*origins: str) -> Policy:
    return policy("csrf", additionalOrigins=list(origins))


async def status(
    running: Gateway, origin: str | None, method: str = "POST", path: str = "/", **more: str
) -> int:
    headers = {"Host": OWN} | ({"Origin": origin} if origin is not None else {}) | more
    answer = await running.client.request(method, path, headers=headers)
    if answer.status_code == 403:
        assert answer.json() == REFUSED
        assert answer.headers["content-type"] == "application/json"
    return answer.status_code


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_what_changes_something_must_come_from_the_same_host(method: str) -> None:
    async with gateway(Api((csrf(),))) as running:
        assert await status(running, f"https://{OWN}", method) == 200
        for origin in ("https://evil.example", f"https://{OWN}.evil.example", "null", None):
            assert await status(running, origin, method) == 403, origin
        assert len(running.backend.requests) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_what_changes_nothing_may_come_from_anywhere(method: str) -> None:
    async with gateway(Api((csrf(),))) as running:
        for origin in ("https://evil.example", None):
            assert await status(running, origin, method) == 200


async def test_other_hosts_may_be_named() -> None:
    named = csrf("App.example.com", "*.example.org", "dev.example.com:8443")
    async with gateway(Api((named,))) as running:
        for origin, expected in (
            ("https://app.example.com", 200),
            ("http://a.b.Example.org", 200),
            ("https://dev.example.com:8443", 200),
            (f"https://{OWN}", 200),
            ("https://app.example.com.evil.example", 403),
            ("https://evil-app.example.com", 403),
            ("https://example.org", 403),
            ("https://evilexample.org", 403),
            ("https://dev.example.com", 403),
        ):
            assert await status(running, origin) == expected, origin


async def test_a_referer_stands_for_an_origin() -> None:
    async with gateway(Api((csrf(),))) as running:
        assert await status(running, None, Referer=f"https://{OWN}/page?x=1") == 200
        assert await status(running, None, Referer=f"https://evil.example/{OWN}") == 403
        evil = "https://evil.example"
        assert await status(running, evil, Referer=f"https://{OWN}/page") == 403


async def test_both_levels_must_agree() -> None:
    api = Api((csrf("a.example", "b.example"),), {"/": (), "/b": (csrf("b.example"),)})
    async with gateway(api) as running:
        for origin, outside, inside in (("a", 200, 403), ("b", 200, 200), ("c", 403, 403)):
            assert await status(running, f"https://{origin}.example") == outside
            assert await status(running, f"https://{origin}.example", path="/b") == inside


async def test_a_limit_behind_it_counts_only_what_may_pass() -> None:
    own, evil = f"https://{OWN}", "https://evil.example"
    async with gateway(Api((csrf(), limit(1)))) as running:
        assert [await status(running, one) for one in (evil, evil, own, own)] == [
            403,
            403,
            200,
            429,
        ]
