"""The world as policies may use it: HTTP over pooled connections, and DNS."""

import asyncio
import socket
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from policy_engine.hooks import Fetched, FetchFailed
from policy_engine.parameters.addresses import is_public

if TYPE_CHECKING:
    import httpx

_CONNECTIONS: Final = 200
_PORTS: Final = {"http": 80, "https": 443}
_LOOKUPS: Final = 8  # at a time: slow DNS holds up those who look names up, nobody else
_IDLE_S: Final = 60.0
_TRUSTS_KEPT: Final = 32  # clients, one for each way to trust servers


class Internet:
    """One per worker; connections are shared by all policies that trust the same."""

    def __init__(self) -> None:
        self._clients: OrderedDict[tuple[bool, str], httpx.AsyncClient] = OrderedDict()
        self._making = asyncio.Lock()
        self._lookups = ThreadPoolExecutor(_LOOKUPS, thread_name_prefix="dns")

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = 5.0,
        verify: bool = True,
        authorities: str = "",
        max_body_bytes: int = 1 << 20,
        public_only: bool = False,
    ) -> Fetched:
        """See `policy_engine.hooks.Outside`."""
        try:
            client = await self._client(verify, authorities)
        except (ssl.SSLError, OSError, ValueError) as error:
            raise FetchFailed(f"{url} cannot be asked: {error}") from error
        import httpx  # noqa: PLC0415 - most policies ask nobody; the client has it loaded

        try:
            async with (
                asyncio.timeout(timeout_s),
                client.stream(
                    method,
                    **(await self._public(url, headers or {}))
                    if public_only
                    else {"url": url, "headers": headers},
                    content=body or None,
                ) as answer,
            ):
                parts: list[bytes] = []
                size = 0
                async for part in answer.aiter_bytes():
                    size += len(part)
                    if size > max_body_bytes:
                        raise FetchFailed(f"{url} answers more than {max_body_bytes} bytes")
                    parts.append(part)
        except TimeoutError as error:
            raise FetchFailed(f"{url} did not answer within {timeout_s:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise FetchFailed(f"{url} cannot be asked: {reason}") from error
        told = {name.lower(): value for name, value in answer.headers.items()}
        return Fetched(answer.status_code, told, b"".join(parts))

    async def resolves(self, host: str, timeout_s: float) -> bool:
        """See `policy_engine.hooks.Outside`."""
        try:
            async with asyncio.timeout(timeout_s):
                return bool(await self._looked_up(host, None))
        except (OSError, TimeoutError, UnicodeError):
            return False

    async def _client(self, verify: bool, authorities: str) -> "httpx.AsyncClient":
        key = (verify, authorities)
        if key not in self._clients:
            async with self._making:
                if key not in self._clients:
                    # half a second on a busy machine: other requests go on meanwhile
                    self._clients[key] = await asyncio.to_thread(_made, verify, authorities)
                    if len(self._clients) > _TRUSTS_KEPT:
                        _, oldest = self._clients.popitem(last=False)
                        await oldest.aclose()
        self._clients.move_to_end(key)
        return self._clients[key]

    async def _public(self, url: str, headers: Mapping[str, str]) -> dict[str, Any]:
        """How to ask `url` at an address that was looked at: a moment later DNS may say another.

        Raises FetchFailed when it is not a public one.
        """
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port or _PORTS.get(parts.scheme, 0)
        found = await self._looked_up(host, port)
        addresses = sorted((str(one[4][0]) for one in found), key=lambda one: ":" in one)
        if not addresses or not all(is_public(one) for one in addresses):
            raise FetchFailed(f"{host} is not a public address")
        address = f"[{addresses[0]}]" if ":" in addresses[0] else addresses[0]
        authority = address if parts.port is None else f"{address}:{parts.port}"
        return {
            "url": parts._replace(netloc=authority).geturl(),
            # pools know servers by address: what was agreed with one name is not used for another
            "headers": {**headers, "host": parts.netloc, "connection": "close"},
            "extensions": {"sni_hostname": host},
        }

    async def _looked_up(self, host: str, port: int | None) -> list[Any]:
        """The addresses of `host`, as `socket.getaddrinfo` has them. Raises OSError."""
        ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        return list(await asyncio.get_running_loop().run_in_executor(self._lookups, ask))

    async def close(self) -> None:
        """No connection is left."""
        self._lookups.shutdown(wait=False, cancel_futures=True)
        for client in self._clients.values():
            await client.aclose()


def _made(verify: bool, authorities: str) -> "httpx.AsyncClient":
    import httpx  # noqa: PLC0415 - most policies ask nobody

    trust: ssl.SSLContext | bool = verify
    if verify and authorities:
        trust = ssl.create_default_context(cadata=authorities)
    return httpx.AsyncClient(
        verify=trust,
        timeout=None,  # noqa: S113 - each call has its own
        trust_env=False,
        follow_redirects=False,
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # no policy sees another's
        limits=httpx.Limits(
            max_connections=_CONNECTIONS,
            max_keepalive_connections=_CONNECTIONS,
            keepalive_expiry=_IDLE_S,
        ),
    )


@asynccontextmanager
async def opened() -> AsyncIterator[Internet]:
    """An Internet for as long as the context lasts."""
    internet = Internet()
    try:
        yield internet
    finally:
        await internet.close()
