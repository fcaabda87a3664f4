"""A small OpenID provider: code flow with PKCE, refresh tokens, published keys."""

import json
from base64 import b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import count
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from tests.policy_engine.tokens import Signer
from tests.servers.http_backend import Answer, HttpBackend, Received, http_backend


@dataclass
class OidcProvider:
    """What it knows; assign to its fields to change what it does."""

    client_id: str
    client_secret: str
    signer: Signer = field(default_factory=lambda: Signer("provider"))
    user: str = "ann"
    lifetime_s: int = 3600  # of access tokens
    claims: dict[str, Any] = field(default_factory=dict)  # more of them, for ID tokens
    backend: HttpBackend = field(default_factory=HttpBackend)
    refused: list[str] = field(default_factory=list)  # why the token endpoint said no
    access_tokens: list[str] = field(default_factory=list)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)
    _refresh_tokens: set[str] = field(default_factory=set)
    _numbers: Any = field(default_factory=count)

    @property
    def url(self) -> str:
        """Where it listens."""
        return self.backend.url

    def login(self, location: str) -> str:
        """What somebody who logs in at `location` is sent back to."""
        asked = dict(parse_qsl(urlsplit(location).query))
        assert location.startswith(f"{self.url}/authorize?")
        assert asked["client_id"] == self.client_id
        assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
        code = f"code-{next(self._numbers)}"
        self._codes[code] = asked
        return f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}"

    def answer(self, request: Received) -> Answer:
        """Of its endpoints."""
        match request.path.partition("?")[0]:
            case "/jwks":
                return _told(json.loads(self.signer.jwks))
            case "/token":
                return self._token(request)
            case _:
                return Answer(404)

    def _token(self, request: Received) -> Answer:
        form = dict(parse_qsl(request.body.decode()))
        why = self._wrong(request, form)
        if why:
            self.refused.append(why)
            return _told({"error": "invalid_grant"}, 400)
        access, refresh = f"access-{next(self._numbers)}", f"refresh-{next(self._numbers)}"
        self._refresh_tokens.add(refresh)
        self.access_tokens.append(access)
        claims = {"sub": self.user, "aud": self.client_id} | self.claims
        return _told(
            {
                "access_token": access,
                "token_type": "Bearer",
                "expires_in": self.lifetime_s,
                "refresh_token": refresh,
                "id_token": self.signer.token(**claims),
            }
        )

    def _wrong(self, request: Received, form: dict[str, str]) -> str:
        basic = (request.header("authorization") or "").removeprefix("Basic ")
        known = (form.get("client_id"), form.get("client_secret"))
        if basic:
            name, _, secret = b64decode(basic).decode().partition(":")
            known = (name, secret)
        if known != (self.client_id, self.client_secret):
            return f"client {known}"
        if form["grant_type"] == "refresh_token":
            token = form["refresh_token"]
            if token not in self._refresh_tokens:
                return f"refresh token {token}"
            self._refresh_tokens.remove(token)
            return ""
        asked = self._codes.pop(form["code"], None)
        if asked is None or asked["redirect_uri"] != form["redirect_uri"]:
            return f"code {form['code']} for {form['redirect_uri']}"
        digest = sha256(form["code_verifier"].encode()).digest()
        made = urlsafe_b64encode(digest).rstrip(b"=").decode()
        return "" if made == asked["code_challenge"] else "code verifier"


def _told(document: dict[str, Any], status: int = 200) -> Answer:
    head = (("content-type", "application/json"),)
    return Answer(status, head, json.dumps(document).encode())


@asynccontextmanager
async def oidc_provider(
    client_id: str = "shop", client_secret: str = "correct horse"
) -> AsyncIterator[OidcProvider]:
    """A provider on a free port."""
    provider = OidcProvider(client_id, client_secret)
    async with http_backend(provider.answer) as backend:
        provider.backend = backend
        yield provider
