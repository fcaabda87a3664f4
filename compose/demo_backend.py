"""The sample upstream of `signalbox up --demo`: `python -m compose.demo_backend PORT`.

* `GET /greetings/{name}`   a greeting
* `GET /weather/{city}`     an invented but steady forecast
* `GET /slow?seconds=2`     answers late, at most after 30 s: to see timeouts
* `GET /status/{code}`      answers with that status: to see errors in the reports
* anything else             what was asked, as JSON
"""

import asyncio
import json
import signal
import sys
import zlib
from http import HTTPStatus
from urllib.parse import parse_qs, unquote, urlsplit

import httptools

_SLOWEST_S = 30.0
_SKIES = ("sunny", "cloudy", "rain", "fog", "wind", "snow")


def answer(method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[int, object]:
    """Status and JSON content for one request."""
    url = urlsplit(target)
    match unquote(url.path).strip("/").split("/"):
        case ["greetings", name] if method == "GET":
            return 200, {"greeting": f"Hello, {name}!"}
        case ["weather", city] if method == "GET":
            seed = zlib.crc32(city.lower().encode())
            return 200, {"city": city, "celsius": seed % 35, "sky": _SKIES[seed % len(_SKIES)]}
        case ["status", code] if code.isdecimal() and 200 <= int(code) <= 599:
            return int(code), {"status": int(code)}
        case _:
            return 200, {
                "method": method,
                "path": target,
                "headers": headers,
                "body": body.decode("utf-8", "replace"),
            }


def delay_s(target: str) -> float:
    """How late the answer to `target` is, seconds."""
    url = urlsplit(target)
    if url.path.strip("/") != "slow":
        return 0.0
    try:
        asked = float(parse_qs(url.query).get("seconds", ["2"])[-1])
    except ValueError:
        return 0.0
    return min(max(asked, 0.0), _SLOWEST_S)


class _Connection(asyncio.Protocol):
    """One keep-alive connection; requests on it are answered one after the other."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._begin()

    def _begin(self) -> None:
        self._target = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if self._transport:
                self._transport.close()

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        method, target = self._parser.get_method().decode(), self._target.decode("latin-1")
        status, content = answer(method, target, self._headers, b"".join(self._body))
        self._begin()
        text = b"" if status in (204, 304) else json.dumps(content).encode() + b"\n"
        head = (
            f"HTTP/1.1 {status} {_phrase(status)}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(text)}\r\n\r\n"
        ).encode()
        whole = head if method == "HEAD" else head + text
        asyncio.get_running_loop().call_later(delay_s(target), self._send, whole)

    def _send(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    server = await loop.create_server(_Connection, "127.0.0.1", port)
    async with server:
        await stopped.wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
