"""Logins and certificates through a whole gateway: secrets reach the router beside routes."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.e2e.waiting import until
from tests.servers.certificates import Authority, name, presenting
from tests.servers.gateway import gateway, rest_api
from tests.servers.http_backend import http_backend
from tests.servers.oidc_provider import OidcProvider, oidc_provider


async def opened(running: str, provider: OidcProvider) -> int:
    """The status after a login at the API of path `/shop`."""
    cookies: dict[str, str] = {}

    async def get(target: str) -> httpx.Response:
        sent = "; ".join(f"{name}={value}" for name, value in cookies.items())
        answer = await caller.get(target, headers={"cookie": sent} if sent else {})
        for cookie in answer.headers.get_list("set-cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            cookies[name] = value
        return answer

    async with httpx.AsyncClient(base_url=running) as caller:
        asked = await get("/shop/x")
        assert asked.status_code == 302, asked.text
        parts = urlsplit(provider.login(asked.headers["location"]))
        back = await get(f"{parts.path}?{parts.query}")
        if back.status_code != 302:
            return back.status_code
        assert back.headers["location"] == f"{running}/shop/x"
        return (await get("/shop/x")).status_code


async def test_who_logs_in_passes_and_the_secret_can_be_changed() -> None:
    async with (
        http_backend() as backend,
        oidc_provider() as provider,
        gateway(tier="basic") as running,
    ):

        def document(secret: str) -> dict[str, Any]:
            login = {
                "authorizationEndpoint": f"{provider.url}/authorize",
                "tokenEndpoint": f"{provider.url}/token",
                "clientId": provider.client_id,
                "clientSecret": secret,
                "publicUrl": running.url,
            }
            policies = [{"name": "oidc-login", "params": login}]
            return rest_api("shop", backend.url, policies=policies)

        async with running.api() as management:
            answer = await management.post("/rest-apis", json=document(provider.client_secret))
            assert answer.status_code == 201, answer.text
            await until(lambda: status(running.url), lambda got: got == 302)
            assert await opened(running.url, provider) == 200
            provider.client_secret = "a new one"
            answer = await management.put("/rest-apis/shop", json=document("a new one"))
            assert answer.status_code == 200, answer.text
            await until(lambda: opened(running.url, provider), lambda got: got == 200)


async def status(url: str) -> int:
    """What a caller without anything is answered at `/shop/x`."""
    async with httpx.AsyncClient(base_url=url, verify=False) as caller:
        return (await caller.get("/shop/x")).status_code


async def test_callers_are_known_by_their_certificates(tmp_path: Path) -> None:
    authority = Authority(name(CN="clients"))
    file = tmp_path / "authorities.pem"
    file.write_text(authority.pem)
    known = authority.issue(name(CN="orders"))
    async with (
        http_backend() as backend,
        gateway(
            tier="basic", environment={"SIGNALBOX_CLIENT_AUTHORITIES_FILE": str(file)}
        ) as running,
    ):
        guarded = {"name": "mtls-client-identity", "params": {"subjects": ["CN=orders"]}}
        document = rest_api("shop", backend.url, policies=[guarded])
        async with running.api() as management:
            answer = await management.post("/rest-apis", json=document)
            assert answer.status_code == 201, answer.text
        url = f"https://127.0.0.1:{running.port('https')}"
        await until(lambda: status(url), lambda got: got == 401)
        async with httpx.AsyncClient(base_url=url, verify=presenting(known)) as caller:
            assert (await caller.get("/shop/x")).status_code == 200
        assert backend.last.header("x-signalbox-application") == "CN=orders"
