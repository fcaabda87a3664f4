"""Hooks run without Envoy: an exchange made by hand, and a real HTTP client outside."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx

from policy_engine.hooks import (
    BodyVerdict,
    Exchange,
    Fetched,
    FetchFailed,
    Headers,
    Outside,
    Place,
    Request,
    Response,
)
from policy_engine.system import SystemParameters

PLACE = Place("operation", "orders", "Orders", "v1", "/orders", "POST", "/items/{id}")


class Nowhere:
    """An outside that a policy must not need."""

    async def fetch(self, method: str, url: str, **_: object) -> Fetched:
        raise FetchFailed(f"{method} {url}: there is no network here")

    async def resolves(self, host: str, timeout_s: float) -> bool:
        del host, timeout_s
        return False


class Reaching(Nowhere):
    """An outside that reaches servers on this machine."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def fetch(self, method: str, url: str, **options: Any) -> Fetched:
        try:
            answer = await self._client.request(
                method,
                url,
                headers=options.get("headers"),
                content=options.get("body", b""),
                timeout=options.get("timeout_s", 5.0),
            )
        except httpx.HTTPError as error:
            raise FetchFailed(f"{type(error).__name__}: {error}") from error
        if len(answer.content) > options.get("max_body_bytes", 1 << 20):
            raise FetchFailed("the answer is too long")
        return Fetched(answer.status_code, dict(answer.headers), answer.content)


@asynccontextmanager
async def reaching() -> AsyncIterator[Outside]:
    """The outside, with connections of its own."""
    async with httpx.AsyncClient() as client:
        yield Reaching(client)


def exchange(
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "POST",
    path: str = "/orders/items/1",
    outside: Outside | None = None,
    system: SystemParameters | None = None,
    metadata: Mapping[str, Mapping[str, Any]] | None = None,
    place: Place = PLACE,
) -> Exchange:
    """A request, as it comes to the first hook."""
    pseudo = {":method": method, ":scheme": "https", ":authority": "api.example", ":path": path}
    pairs = [*pseudo.items(), *((name.lower(), value) for name, value in (headers or {}).items())]
    return Exchange(
        place,
        Request(Headers(pairs)),
        Nowhere() if outside is None else outside,
        metadata=metadata or {},
        request_id="request-1",
        system=system or SystemParameters(),
    )


def answered(made: Exchange, status: int = 200, **headers: str) -> Exchange:
    """The same, with the upstream's answer; `_` in names stands for `-`."""
    pairs = [(":status", str(status))]
    pairs += [(name.replace("_", "-"), value) for name, value in headers.items()]
    made.response = Response(Headers(pairs))
    return made


async def result(verdict: BodyVerdict | Awaitable[BodyVerdict]) -> BodyVerdict:
    """What a hook says, waited for if it waits."""
    return await verdict if inspect.isawaitable(verdict) else verdict
