import pytest

from policy_engine.catalogue import load
from policy_engine.policy import Policy
from tests.policy_engine.attached import limit, policy
from tests.policy_engine.gateway import Api, Gateway, gateway
from tests.servers.http_backend import http_backend
from tests.xds.routing import api as spec
from tests.xds.routing import router

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


async def test_a_page_of_the_same_host_and_port_is_of_the_same_origin() -> None:
    async with gateway(Api((csrf(),))) as running:
        here = f"{OWN}:{running.port}"
        for origin, expected in (
            (f"http://{here}", 200),
            (f"https://{here}", 200),
            (f"http://{OWN}:{running.port + 1}", 403),
            (f"http://evil.example:{running.port}", 403),
            (f"http://{here}.evil.example", 403),
        ):
            assert await status(running, origin) == expected, origin
        assert await status(running, None, Referer=f"http://{here}/page?x=1") == 200


async def test_the_port_counts_although_the_listener_cuts_it_off_the_host() -> None:
    async with http_backend() as backend:
        shop = spec(f"""
        context: /shop
        upstream: {{main: {{url: "{backend.url}"}}}}
        operations: [{{method: POST, path: /, policies: [{{name: csrf}}]}}]
        """)
        async with router(shop, catalogue=load(())) as running:
            port = running.client.base_url.port
            for origin, expected in ((port, 200), (9, 403)):
                answer = await running.get(
                    "/shop/",
                    method="POST",
                    host=f"{OWN}:{port}",
                    headers={"Origin": f"http://{OWN}:{origin}"},
                )
                assert answer.status_code == expected, origin


async def test_what_the_browser_itself_says_of_the_origin_has_the_last_word() -> None:
    mapped, own = f"https://{OWN}:9443", f"https://{OWN}"
    async with gateway(Api((csrf("app.example.com"),))) as running:
        for origin, site, expected in (
            (mapped, "same-origin", 200),
            (None, "none", 200),
            (own, "same-site", 403),
            (mapped, "same-site", 403),
            ("https://evil.example", "cross-site", 403),
            ("https://app.example.com", "same-site", 200),
            (own, "Same-Origin, cross-site", 403),
        ):
            told = {"Sec-Fetch-Site": site}
            assert await status(running, origin, **told) == expected, (origin, site)


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
