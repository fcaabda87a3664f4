"""Somebody who logs in at an OpenID provider through a gateway."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from policy_engine.catalogue import load
from tests.policy_engine.attached import LOCAL_REPLY
from tests.servers.http_backend import HttpBackend, http_backend
from tests.servers.oidc_provider import OidcProvider, oidc_provider
from tests.xds.routing import Router, api, router

PUBLIC = "http://gw.example:8080"


@dataclass
class Browser:
    """Somebody with cookies, who follows redirects to the gateway and logs in when asked to."""

    router: Router
    provider: OidcProvider
    cookies: dict[str, str] = field(default_factory=dict)

    async def get(self, url: str, **more: Any) -> httpx.Response:
        """One request, without following."""
        headers = {"host": "gw.example", **more.pop("headers", {})}
        if self.cookies:
            headers["cookie"] = "; ".join(f"{name}={one}" for name, one in self.cookies.items())
        parts = urlsplit(url)
        target = f"{parts.path}?{parts.query}" if parts.query else parts.path
        answer = await self.router.get(target, headers=headers, **more)
        for cookie in answer.headers.get_list("set-cookie"):
            name, _, value = cookie.partition(";")[0].partition("=")
            if value == "deleted":
                self.cookies.pop(name, None)
            else:
                assert "secure;HttpOnly" in cookie
                self.cookies[name] = value
        return answer

    async def log_in(self, path: str) -> httpx.Response:
        """What is there after a login; the last of the redirects is followed."""
        asked = await self.get(path)
        assert asked.status_code == 302, asked.text
        back = await self.get(self.provider.login(asked.headers["location"]))
        if back.status_code != 302:
            return back
        assert back.headers["location"] == PUBLIC + path
        return await self.get(back.headers["location"])


def login(provider: OidcProvider, **params: Any) -> dict[str, Any]:
    given = {
        "authorizationEndpoint": f"{provider.url}/authorize",
        "tokenEndpoint": f"{provider.url}/token",
        "clientId": provider.client_id,
        "clientSecret": provider.client_secret,
        "publicUrl": PUBLIC,
    }
    whole = given | params
    return {
        "name": "oidc-login",
        "params": {name: one for name, one in whole.items() if one is not None},
    }


def verified(provider: OidcProvider, **params: Any) -> dict[str, Any]:
    jwks = {"jwksUri": f"{provider.url}/jwks", "issuer": provider.signer.issuer}
    return login(provider, **jwks, **params)


def spec(backend: HttpBackend, attached: Any, *, name: str = "shop", context: str = "") -> str:
    return f"""
    name: {name}
    context: {context or "/" + name}
    upstream: {{main: {{url: "{backend.url}"}}}}
    policies: [{attached}]
    operations:
      - {{method: GET, path: /items}}
      - {{method: POST, path: /items}}
      - {{method: GET, path: /cart}}
    """


@asynccontextmanager
async def protected(
    make: Any = login, **params: Any
) -> AsyncIterator[tuple[Browser, HttpBackend, OidcProvider]]:
    async with http_backend() as backend, oidc_provider() as provider:
        written = api(spec(backend, make(provider, **params)))
        async with router(written, catalogue=load(()), local_reply=LOCAL_REPLY) as running:
            yield Browser(running, provider), backend, provider
