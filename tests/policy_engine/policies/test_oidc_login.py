import asyncio
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from policy_engine.catalogue import load
from policy_engine.chain import compile_chain
from policy_engine.errors import InvalidParameters, PolicyNotCompiled
from policy_engine.parameters.headers import APPLICATION_HEADER
from tests.policy_engine.attached import CATALOGUE, policy
from tests.policy_engine.gateway import Api
from tests.policy_engine.logins import PUBLIC, Browser, login, protected, spec, verified
from tests.policy_engine.tokens import Signer
from tests.servers.http_backend import http_backend
from tests.servers.oidc_provider import oidc_provider
from tests.xds.routing import api, router
from xds.compile.api import compile_api
from xds.errors import NotCompiled
from xds.settings import XdsSettings

LOGIN = {"error": "Unauthorized", "message": "Login required"}
FAILED = {"error": "Unauthorized", "message": "The login failed. Please try again."}
SCRIPTS = (
    {"sec-fetch-mode": "cors"},
    {"x-requested-with": "xmlhttprequest"},
)


async def test_who_logs_in_comes_back_and_passes() -> None:
    async with protected(forwardAccessToken=True) as (browser, backend, provider):
        browser.cookies["own"] = "a=b"
        answer = await browser.log_in("/shop/items?x=1&y=%2F")
        assert answer.status_code == 200
        assert backend.last.path == "/items?x=1&y=%2F"
        assert backend.last.all("authorization") == [f"Bearer {provider.access_tokens[-1]}"]
        assert backend.last.all("cookie") == ["own=a=b"]
        assert (await browser.get("/shop/cart")).status_code == 200
        assert (await browser.get("/shop/items", method="POST")).status_code == 200
        assert len(provider.access_tokens) == 1
        assert provider.refused == []


async def test_what_is_asked_of_the_provider() -> None:
    async with protected(scopes=["openid", "email"], callbackPath="/back") as (browser, _, _):
        asked = await browser.get("/shop/items")
        told = dict(parse_qsl(urlsplit(asked.headers["location"]).query))
        assert told["scope"] == "openid email"
        assert told["redirect_uri"] == f"{PUBLIC}/shop/back"
        assert told["code_challenge_method"] == "S256"
        for cookie in asked.headers.get_list("set-cookie"):
            assert ";path=/shop;" in cookie
            assert "SameSite=Lax" in cookie


async def test_without_a_public_url_the_request_says_where_the_gateway_is() -> None:
    async with protected(publicUrl=None) as (browser, _, _):
        asked = await browser.get("/shop/items", headers={"host": "other.example"})
        told = dict(parse_qsl(urlsplit(asked.headers["location"]).query))
        assert told["redirect_uri"] == "http://other.example/shop/oauth2/callback"


async def test_tokens_are_kept_from_the_upstream_unless_asked_for() -> None:
    async with protected() as (browser, backend, _):
        answer = await browser.log_in("/shop/items")
        assert answer.status_code == 200
        forged = {"authorization": "Bearer mine"}
        await browser.get("/shop/items", headers=forged)
        assert backend.last.header("authorization") is None
        assert backend.last.header("cookie") is None
        assert backend.last.header(APPLICATION_HEADER) == "-"  # known, but not who it is


@pytest.mark.parametrize("headers", SCRIPTS)
async def test_scripts_are_told_to_log_in_instead_of_sent_away(headers: dict[str, str]) -> None:
    async with protected() as (browser, _, _):
        answer = await browser.get("/shop/items", headers=headers)
        assert (answer.status_code, answer.json()) == (401, LOGIN)
        assert (await browser.log_in("/shop/items")).status_code == 200
        assert (await browser.get("/shop/items", headers=headers)).status_code == 200


async def test_what_cannot_be_asked_again_after_a_login_is_refused() -> None:
    async with protected() as (browser, backend, _):
        answer = await browser.get("/shop/items", method="POST", content=b"x")
        assert (answer.status_code, answer.json()) == (401, LOGIN)
        assert not backend.requests


async def test_a_login_that_somebody_else_began_is_refused() -> None:
    async with protected() as (browser, backend, provider):
        asked = await browser.get("/shop/items")
        back = provider.login(asked.headers["location"])
        stranger = Browser(browser.router, provider)
        other = await stranger.get("/shop/items")
        assert other.status_code == 302
        callback = "/shop/oauth2/callback"
        for who, url in (
            (stranger, back),
            (Browser(browser.router, provider), back),
            (browser, f"{callback}?code=x&state=wrong"),
            (browser, f"{callback}?code=x"),
            (browser, callback),
            (browser, f"{callback}?error=access_denied&state=x"),
        ):
            answer = await who.get(url)
            assert (answer.status_code, answer.json()) == (401, FAILED), url
        assert provider.access_tokens == []
        assert not backend.requests


async def test_a_code_is_good_once() -> None:
    async with protected() as (browser, _, provider):
        asked = await browser.get("/shop/items")
        back = provider.login(asked.headers["location"])
        kept = dict(browser.cookies)
        assert (await browser.get(back)).status_code == 302
        thief = Browser(browser.router, provider, kept)
        answer = await thief.get(back)
        assert (answer.status_code, answer.json()) == (401, FAILED)


async def test_a_client_secret_that_the_provider_does_not_know_opens_nothing() -> None:
    async with protected(clientSecret="wrong") as (browser, backend, provider):
        answer = await browser.log_in("/shop/items")
        assert (answer.status_code, answer.json()) == (401, FAILED)
        assert provider.refused
        assert not backend.requests


async def test_a_provider_that_is_away_opens_nothing() -> None:
    async with http_backend() as gone:
        url = gone.url
    async with protected(tokenEndpoint=f"{url}/token") as (browser, backend, _):
        answer = await browser.log_in("/shop/items")
        assert answer.status_code in (401, 503)
        assert answer.json()["error"]
        assert not backend.requests


async def test_the_secret_may_be_shown_in_the_header() -> None:
    async with protected(clientAuthentication="basic") as (browser, _, provider):
        assert (await browser.log_in("/shop/items")).status_code == 200
        assert (provider.backend.requests[0].header("authorization") or "").startswith("Basic ")


async def test_a_session_that_was_tampered_with_opens_nothing() -> None:
    async with protected(forwardAccessToken=True, refreshTokens=False) as (browser, backend, _):
        await browser.log_in("/shop/items")
        session = dict(browser.cookies)
        seen = len(backend.requests)
        assert {one.split("-")[1] for one in session} == {"seal", "expires", "token", "id"}
        for name, value in session.items():
            changed = "9999999999" if "expires" in name else "A" * len(value)
            for cookies in (session | {name: changed}, session | {name: ""}):
                who = Browser(browser.router, browser.provider, cookies)
                assert (await who.get("/shop/items")).status_code == 302, name
        assert len(backend.requests) == seen
        assert (
            await Browser(browser.router, browser.provider, session).get("/shop/items")
        ).is_success


async def test_a_session_ends_with_the_access_token() -> None:
    async with protected(refreshTokens=False) as (browser, _, provider):
        provider.lifetime_s = 1
        asked = await browser.get("/shop/items")
        await browser.get(provider.login(asked.headers["location"]))
        async with asyncio.timeout(30):
            while (await browser.get("/shop/items")).status_code != 302:
                await asyncio.sleep(0.05)


async def test_a_session_is_prolonged_with_its_refresh_token() -> None:
    async with protected(forwardAccessToken=True) as (browser, backend, provider):
        provider.lifetime_s = 1
        asked = await browser.get("/shop/items")
        await browser.get(provider.login(asked.headers["location"]))
        async with asyncio.timeout(30):
            while len(provider.access_tokens) == 1:
                assert (await browser.get("/shop/items")).status_code == 200
                await asyncio.sleep(0.05)
        assert backend.last.header("authorization") == f"Bearer {provider.access_tokens[-1]}"
        assert backend.last.header("cookie") is None
        provider.lifetime_s = 3600
        assert (await browser.get("/shop/items")).status_code == 200


async def test_signing_out_ends_the_session() -> None:
    async with protected() as (browser, _, _):
        await browser.log_in("/shop/items")
        answer = await browser.get("/shop/oauth2/signout")
        assert answer.status_code == 302
        assert browser.cookies == {}
        assert (await browser.get("/shop/items")).status_code == 302


async def test_signing_out_may_go_on_at_the_provider() -> None:
    async with oidc_provider() as somebody:
        end = f"{somebody.url}/logout"
    async with protected(endSessionEndpoint=end) as (browser, _, _):
        await browser.log_in("/shop/items")
        answer = await browser.get("/shop/oauth2/signout")
        assert answer.headers["location"].startswith(f"{end}?id_token_hint=ey")
        told = dict(parse_qsl(urlsplit(answer.headers["location"]).query))
        assert told["post_logout_redirect_uri"] == f"{PUBLIC}/"
        assert browser.cookies == {}


async def test_who_logged_in_is_known_by_a_verified_id_token() -> None:
    mappings = {"email": "X-Email", "missing": "X-Missing"}
    async with protected(verified, claimMappings=mappings) as (browser, backend, provider):
        provider.claims = {"email": "ann@example.com"}
        assert (await until_keys_are_there(browser)).status_code == 200
        forged = {"x-email": "eve", "x-missing": "eve", APPLICATION_HEADER: "eve"}
        assert (await browser.get("/shop/items", headers=forged)).status_code == 200
        assert backend.last.all(APPLICATION_HEADER) == ["ann"]
        assert backend.last.all("x-email") == ["ann@example.com"]
        assert backend.last.all("x-missing") == []
        assert not [name for name, _ in backend.last.headers if "id-token" in name]


async def until_keys_are_there(browser: Browser) -> httpx.Response:
    """A login, repeated until the router has fetched the provider's keys."""
    async with asyncio.timeout(30):
        answer = await browser.log_in("/shop/items")
        while answer.status_code != 200:
            await asyncio.sleep(0.05)
            answer = await browser.get("/shop/items")
    return answer


@pytest.mark.parametrize(
    "claims", [{"aud": "other"}, {"iss": "https://other.example"}, {"exp": 1}, {"exp": None}]
)
async def test_an_id_token_that_is_not_for_us_opens_nothing(claims: dict[str, Any]) -> None:
    async with protected(verified) as (browser, backend, provider):
        assert (await until_keys_are_there(browser)).status_code == 200
        seen = len(backend.requests)
        provider.claims = claims
        other = Browser(browser.router, provider)
        assert (await other.log_in("/shop/items")).status_code != 200
        assert len(backend.requests) == seen


async def test_an_id_token_that_somebody_else_signed_opens_nothing() -> None:
    async with protected(verified) as (browser, _, provider):
        assert (await until_keys_are_there(browser)).status_code == 200
        stranger = Signer("stranger")
        stranger.kid, stranger.issuer = provider.signer.kid, provider.signer.issuer
        provider.signer = stranger
        other = Browser(browser.router, provider)
        assert (await other.log_in("/shop/items")).status_code == 401


async def test_the_id_token_can_be_forwarded() -> None:
    async with protected(forwardIdToken="X-Id-Token") as (browser, backend, _):
        await browser.log_in("/shop/items")
        await browser.get("/shop/items", headers={"x-id-token": "forged"})
        (token,) = backend.last.all("x-id-token")
        assert token.startswith("ey")


async def test_a_session_is_for_one_api_and_outlives_the_router() -> None:
    async with http_backend() as backend, oidc_provider() as provider:
        apis = [api(spec(backend, login(provider), name=name)) for name in ("shop", "bank")]
        async with router(*apis, catalogue=load(())) as running:
            browser = Browser(running, provider)
            await browser.log_in("/shop/items")
            assert (await browser.get("/bank/items")).status_code == 302
        async with router(*apis, catalogue=load(())) as running:
            again = Browser(running, provider, browser.cookies)
            assert (await again.get("/shop/items")).status_code == 200


async def test_operations_may_ask_for_a_login_one_by_one() -> None:
    async with http_backend() as backend, oidc_provider() as provider:
        guarded = login(provider)
        written = f"""
        name: shop
        context: /
        upstream: {{main: {{url: "{backend.url}"}}}}
        operations:
          - {{method: GET, path: /items}}
          - {{method: GET, path: "/cart/{{id}}", policies: [{guarded}]}}
          - {{method: GET, path: /orders/*, policies: [{guarded}]}}
        """
        async with router(api(written), catalogue=load(())) as running:
            browser = Browser(running, provider)
            assert (await browser.get("/items")).status_code == 200
            assert (await browser.log_in("/cart/7")).status_code == 200
            assert (await browser.get("/orders/a/b")).status_code == 200  # one login for both
            assert (await browser.get("/oauth2/signout")).status_code == 302
            assert (await browser.get("/orders/a/b")).status_code == 302


async def test_what_stands_before_it_guards_the_login_too() -> None:
    async with http_backend() as backend, oidc_provider() as provider:
        only = {"name": "ip-filter", "params": {"allow": ["10.0.0.1"]}}
        written = spec(backend, login(provider)).replace("policies: [", f"policies: [{only}, ", 1)
        async with router(api(written), catalogue=load(())) as running:
            browser = Browser(running, provider)
            for path in ("/shop/items", "/shop/oauth2/callback?code=a&state=b"):
                assert (await browser.get(path)).status_code == 403


async def test_different_logins_need_different_callbacks() -> None:
    async with http_backend() as backend, oidc_provider() as provider:

        def compiled(**params: Any) -> None:
            written = f"""
            name: shop
            context: /shop
            upstream: {{main: {{url: "{backend.url}"}}}}
            operations:
              - {{method: GET, path: /a, policies: [{login(provider)}]}}
              - {{method: GET, path: /b, policies: [{login(provider, clientId="b", **params)}]}}
            """
            compile_api(api(written), 1, (), CATALOGUE, XdsSettings())

        with pytest.raises(NotCompiled, match="two different policies answer /oauth2/callback"):
            compiled()
        compiled(callbackPath="/b/callback", signOutPath="/b/signout")


def test_a_request_cannot_meet_it_twice() -> None:
    one = policy("oidc-login", **CATALOGUE.resolve("oidc-login").example)
    with pytest.raises(PolicyNotCompiled, match="twice"):
        compile_chain((one,), Api((one,), {"/": (one,)}).scope("api"))


async def test_secrets_are_not_shown() -> None:
    async with protected(clientSecret="very secret words") as (browser, _, provider):
        dumped = (await browser.router.envoy.admin("/config_dump?include_eds")).text
        assert "OAuth2" in dumped
        assert "very secret words" not in dumped
        made = policy("oidc-login", **login(provider, clientSecret="very secret words")["params"])
        assert "very secret words" not in f"{made!r} {made.masked()}"


@pytest.mark.parametrize(
    ("params", "path", "told"),
    [
        ({"clientSecret": None}, "clientSecret", ""),
        ({"tokenEndpoint": "login.example.com"}, "tokenEndpoint", "http or https URL"),
        ({"authorizationEndpoint": "https://a:b@c"}, "authorizationEndpoint", "credentials"),
        ({"publicUrl": "https://a.example/x"}, "publicUrl", "a scheme and a host"),
        ({"callbackPath": "back"}, "callbackPath", "must start with '/'"),
        ({"callbackPath": "/a/*"}, "callbackPath", "exact path"),
        ({"signOutPath": "/oauth2/callback"}, "", "must differ"),
        ({"claimMappings": {"a": "X-A"}}, "", "need jwksUri"),
        ({"issuer": "https://a.example"}, "", "need jwksUri"),
        ({"scopes": ["email"]}, "", "need the scope openid"),
        ({"scopes": []}, "scopes", ""),
        ({"scopes": ["a b"]}, "scopes[0]", "is not a scope"),
        ({"discoveryUrl": "x"}, "discoveryUrl", "Unknown parameter"),
    ],
)
def test_wrong_parameters_are_named(params: dict[str, Any], path: str, told: str) -> None:
    with pytest.raises(InvalidParameters) as caught:
        policy("oidc-login", **CATALOGUE.resolve("oidc-login").example | params)
    (fault,) = caught.value.faults
    assert fault.path == path
    assert told in fault.message
