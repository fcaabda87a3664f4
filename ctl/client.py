"""The management REST API as a client sees it; its errors as sentences."""

import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from ctl.context import Connection
from ctl.errors import Misused, NotAllowed, NotFound, NotReachable, Refused

BASE_PATH = "/api/management/v1"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_LONGEST_WAIT_S = 20.0
"""How long one status request may wait at the gateway; longer waits are several requests."""

Json = dict[str, Any]


class Client:
    """Requests to one gateway. Raises only errors of `ctl.errors`."""

    def __init__(self, http: httpx.AsyncClient, connection: Connection) -> None:
        self._http = http
        self._connection = connection

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: Json | None = None,
        if_revision: int | None = None,
        query: Mapping[str, str | int | float | None] | None = None,
        timeout_s: float | None = None,
    ) -> Any:  # noqa: ANN401 - JSON
        """The JSON answer to `method` on `path` below the API's base; None for an empty answer.

        `if_revision`: only if that is still the resource's revision.
        """
        try:
            answer = await self._http.request(
                method,
                f"{self._connection.url}{BASE_PATH}{path}",
                json=body,
                headers={} if if_revision is None else {"If-Match": f'"{if_revision}"'},
                params={key: value for key, value in (query or {}).items() if value is not None},
                timeout=httpx.USE_CLIENT_DEFAULT if timeout_s is None else timeout_s,
            )
        except httpx.TimeoutException as error:
            raise NotReachable(f"{self._connection.url} did not answer in time") from error
        except httpx.TransportError as error:
            raise _unreachable(self._connection, error) from error
        except (httpx.InvalidURL, ValueError) as error:
            raise Misused(f"--url {self._connection.url!r} is not a URL: {error}") from error
        return _content(answer, self._connection)

    async def get(self, collection: str, name: str) -> Json:
        """One resource. Raises NotFound."""
        return _object(await self.request("GET", f"/{collection}/{part(name)}"))

    async def listed(
        self, collection: str, list_key: str, query: Mapping[str, str | None] | None = None
    ) -> list[Json]:
        """All resources that meet the conditions of `query`."""
        found: list[Json] = _object(await self.request("GET", f"/{collection}", query=query))[
            list_key
        ]
        return found

    async def find(self, collection: str, name: str) -> Json | None:
        """One resource, None when there is none."""
        try:
            return await self.get(collection, name)
        except NotFound:
            return None

    async def create(self, collection: str, body: Json) -> Json:
        """The new resource as the gateway keeps it."""
        return _object(await self.request("POST", f"/{collection}", body=body))

    async def replace(
        self, collection: str, name: str, body: Json, if_revision: int | None = None
    ) -> Json:
        """The changed resource as the gateway keeps it."""
        path = f"/{collection}/{part(name)}"
        return _object(await self.request("PUT", path, body=body, if_revision=if_revision))

    async def delete(self, collection: str, name: str, if_revision: int | None = None) -> Json:
        """The gateway's answer to the removal: its `revision`. Raises NotFound."""
        path = f"/{collection}/{part(name)}"
        return _object(await self.request("DELETE", path, if_revision=if_revision))

    async def liveness(
        self, collection: str, name: str, revision: int | None, wait_s: float
    ) -> Json:
        """What the routers made of `revision`: settled, or as it is after `wait_s` seconds."""
        deadline = time.monotonic() + wait_s
        while True:
            left_s = max(0.0, deadline - time.monotonic())
            round_s = min(left_s, _LONGEST_WAIT_S)
            liveness = _object(
                await self.request(
                    "GET",
                    f"/{collection}/{part(name)}/status",
                    query={"revision": revision, "waitSeconds": round(round_s, 3)},
                    timeout_s=round_s + 15,
                )
            )
            if liveness["outcome"] != "pending" or left_s <= _LONGEST_WAIT_S:
                return liveness


def part(text: str) -> str:
    """`text` as one segment of a URL's path. Raises Misused for what no segment can hold."""
    if text in ("", ".", ".."):
        raise Misused(f"{text!r} is not a name")
    return quote(text, safe="")


@asynccontextmanager
async def connect(connection: Connection, timeout_s: float = 30.0) -> AsyncIterator[Client]:
    """A client for as long as the context lasts. Nothing is sent yet."""
    local = urlsplit(connection.url).hostname in _LOOPBACK
    async with httpx.AsyncClient(
        auth=(connection.user, connection.password) if connection.user else None,
        timeout=timeout_s,
        trust_env=not local,  # a proxy of the environment is not for this machine
        verify=connection.url.startswith("https:"),  # reading the CA bundle takes a while
        headers={"User-Agent": "signalbox-ctl", "Accept": "application/json"},
    ) as http:
        yield Client(http, connection)


def _unreachable(connection: Connection, error: httpx.TransportError) -> NotReachable:
    reason = str(error) or type(error).__name__
    details = []
    if not connection.known:
        details.append(f"there is no client.json in the data folder {connection.data}")
    details.append(
        "is the gateway up? `signalbox up` starts one; --url or SIGNALBOX_URL names another"
    )
    return NotReachable(f"no gateway answers at {connection.url} ({reason})", details)


def _content(answer: httpx.Response, connection: Connection) -> Any:  # noqa: ANN401 - JSON
    try:
        content = answer.json() if answer.content else None
    except (json.JSONDecodeError, UnicodeDecodeError):
        content = answer.text
    if answer.is_success and not isinstance(content, str):
        return content
    ours = isinstance(content, dict) and "message" in content
    if answer.is_success or answer.is_redirect or (answer.status_code == 404 and not ours):
        raise NotReachable(
            f"{connection.url} answers, but not as a management API of Signalbox"
            f" (status {answer.status_code}, {answer.headers.get('content-type', 'no content')})"
        )
    _raise(answer.status_code, content if isinstance(content, dict) else {}, connection)
    return None


def _raise(status: int, error: Json, connection: Connection) -> None:
    message = str(error.get("message") or error.get("detail") or f"status {status}")
    faults = [
        (str(fault.get("field") or ""), str(fault.get("message") or ""))
        for fault in error.get("errors") or ()
        if isinstance(fault, dict)
    ]
    details = [f"{field}: {text}".removeprefix(": ") for field, text in faults]
    if status == 401:
        who = f"user {connection.user!r}" if connection.user else "a request without a user"
        raise NotAllowed(
            f"the gateway at {connection.url} does not let in {who}: {message}",
            ["set --user and --password, or SIGNALBOX_ADMIN_USER and SIGNALBOX_ADMIN_PASSWORD"],
            status=status,
        )
    if status == 403:
        raise NotAllowed(
            f"user {connection.user!r} may not do this: {message}", details, status=status
        )
    if status == 404:
        raise NotFound(message, details)
    raise Refused(message, details, status=status, faults=faults)


def _object(content: Any) -> Json:  # noqa: ANN401 - JSON
    if not isinstance(content, dict):
        raise NotReachable("the gateway's answer is not a JSON object")
    return content
