"""oidc-login in shadow mode: who would have had to log in is reported, and passes."""

import asyncio
import json
import time
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from policy_engine.catalogue import load
from policy_engine.policy import typed
from policy_engine.shadow import SHADOW_NAMESPACE, reports
from tests.policy_engine.attached import LOCAL_REPLY
from tests.policy_engine.logins import Browser, login, spec
from tests.servers.http_backend import http_backend
from tests.servers.oidc_provider import oidc_provider
from tests.xds.routing import Router, api, router

_DEADLINE_S = 30
_FILE_LOG = "envoy.extensions.access_loggers.file.v3.FileAccessLog"


def routed(spec_: str, log: Path | None = None) -> AbstractAsyncContextManager[Router]:
    """A router with an API; `log`: where its access log goes."""
    config = None
    if log is not None:
        shown = {"json_format": {"shadow": f"%DYNAMIC_METADATA({SHADOW_NAMESPACE})%"}}
        fields = {"path": str(log), "log_format": shown}
        config = {"name": "file", "typed_config": typed(_FILE_LOG, fields)}
    catalogue = load(())
    return router(api(spec_), catalogue=catalogue, local_reply=LOCAL_REPLY, access_log=config)


async def told(log: Path, count: int) -> list[str | None]:
    """What the access log says of `oidc-login`, request by request."""
    async with asyncio.timeout(_DEADLINE_S):
        while not log.exists() or len(log.read_text().splitlines()) < count:
            await asyncio.sleep(0.02)
    entries = [json.loads(line)["shadow"] for line in log.read_text().splitlines()]
    return [dict(reports({SHADOW_NAMESPACE: one or {}})).get("oidc-login") for one in entries]


async def test_who_has_no_session_would_have_to_log_in(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    async with http_backend() as backend, oidc_provider() as provider:
        attached = login(provider, refreshTokens=False)
        async with routed(spec(backend, attached)) as enforcing:
            somebody = Browser(enforcing, provider)
            await somebody.log_in("/shop/items")
        session = dict(somebody.cookies)
        seal, expires = (
            next(name for name in session if name.startswith(f"login-{kind}-"))
            for kind in ("seal", "expires")
        )
        assert int(session[expires]) > time.time()  # as the program reads it
        unsealed = {name: one for name, one in session.items() if name != seal}
        asked: tuple[tuple[dict[str, str], dict[str, str], str | None], ...] = (
            (session, {}, None),
            ({**session, "own": "a=b"}, {"sec-fetch-mode": "cors"}, None),
            ({}, {}, "redirects to log in"),
            ({}, {"sec-fetch-mode": "navigate"}, "redirects to log in"),
            ({}, {"sec-fetch-mode": "cors"}, "login required"),
            ({}, {"x-requested-with": "xmlhttprequest"}, "login required"),
            (unsealed, {}, "redirects to log in"),
            ({**session, expires: "1700000000"}, {}, "redirects to log in"),
            ({**session, expires: "never"}, {}, "redirects to log in"),
        )
        watched = {**attached, "mode": "shadow"}
        async with routed(spec(backend, watched), log) as running:
            for cookies, headers, _ in asked:
                before = dict(cookies)
                answer = await Browser(running, provider, before).get(
                    "/shop/items", headers=headers
                )
                assert answer.status_code == 200
                assert "set-cookie" not in answer.headers
                kept = "; ".join(f"{name}={one}" for name, one in cookies.items()) or None
                assert backend.last.header("cookie") == kept
            posted = await Browser(running, provider).get("/shop/items", method="POST")
            assert posted.status_code == 200
            away = await Browser(running, provider).get("/shop/oauth2/callback?code=x")
            assert away.status_code == 404
            found = await told(log, len(asked) + 2)
            assert found == [*(reason for *_, reason in asked), "login required", None]


async def test_a_session_that_can_be_prolonged_is_one(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    async with http_backend() as backend, oidc_provider() as provider:
        async with routed(spec(backend, login(provider))) as enforcing:
            somebody = Browser(enforcing, provider)
            await somebody.log_in("/shop/items")
        prolonging = {
            name: one for name, one in somebody.cookies.items() if name.startswith("login-refresh-")
        }
        assert prolonging
        watched = {**login(provider), "mode": "shadow"}
        async with routed(spec(backend, watched), log) as running:
            await Browser(running, provider, prolonging).get("/shop/items")
            await Browser(running, provider).get("/shop/items")
            assert await told(log, 2) == [None, "redirects to log in"]
