"""An upstream that tells what it was asked: an in-process HTTP/1.1 echo on a free port.

`python -m tests.servers.http_backend PORT` runs one with a fixed answer, for benchmarks.
"""

import asyncio
import contextlib
import json
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

import httptools

_KEPT = 10_000  # requests remembered


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it arrived."""

    method: str
    path: str  # with the query string
    headers: tuple[tuple[str, str], ...]  # names lower-case, in order of arrival
    body: bytes

    def header(self, name: str) -> str | None:
        """The first header of that (lower-case) name."""
        return next((value for key, value in self.headers if key == name), None)

    def all(self, name: str) -> list[str]:
        """All headers of that (lower-case) name."""
        return [value for key, value in self.headers if key == name]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the backend answers."""

    status: int = 200
    headers: tuple[tuple[str, str], ...] = (("content-type", "application/json"),)
    body: bytes = b""
    delay_s: float = 0.0
    chunks: tuple[bytes, ...] = ()
    """Sent one by one, in chunked encoding, in place of `body`; the connection stays open."""
    pause_s: float = 0.0  # between two chunks


def echo(request: Received) -> Answer:
    """The request itself, as JSON."""
    told = {
        "method": request.method,
        "path": request.path,
        "headers": [list(pair) for pair in request.headers],
        "body": request.body.decode("utf-8", "replace"),
    }
    return Answer(body=json.dumps(told).encode())


@dataclass(slots=True)
class HttpBackend:
    """A running backend. Assign `answer` to change what it says from now on."""

    port: int = 0
    answer: Callable[[Received], Answer] = echo
    requests: deque[Received] = field(default_factory=lambda: deque(maxlen=_KEPT))

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def last(self) -> Received:
        """The latest request."""
        return self.requests[-1]


@asynccontextmanager
async def http_backend(
    answer: Callable[[Received], Answer] = echo, *, port: int = 0
) -> AsyncIterator[HttpBackend]:
    """A backend on 127.0.0.1, on a free port unless told otherwise."""
    backend = HttpBackend(answer=answer)
    connections: set[_Connection] = set()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(backend, connections), "127.0.0.1", port)
    backend.port = server.sockets[0].getsockname()[1]
    try:
        yield backend
    finally:
        server.close()
        for connection in tuple(connections):
            connection.transport.abort()
        await server.wait_closed()


class _Connection(asyncio.Protocol):
    """One connection, keep-alive; httptools parses."""

    transport: asyncio.Transport

    def __init__(self, backend: HttpBackend, connections: "set[_Connection]") -> None:
        self._backend = backend
        self._connections = connections
        self._parser = httptools.HttpRequestParser(self)
        self._start()

    def _start(self) -> None:
        self._url = b""
        self._headers: list[tuple[str, str]] = []
        self._body: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.transport.close()
        except httptools.HttpParserError:
            self._send(Answer(status=400, headers=()))
            self.transport.close()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.decode("latin-1").lower(), value.decode("latin-1")))

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        request = Received(
            self._parser.get_method().decode(),
            self._url.decode("latin-1"),
            tuple(self._headers),
            b"".join(self._body),
        )
        self._start()
        self._backend.requests.append(request)
        answer = self._backend.answer(request)
        bodiless = request.method == "HEAD"
        if answer.chunks:
            self._stream(answer)
        elif answer.delay_s > 0:
            asyncio.get_running_loop().call_later(answer.delay_s, self._send, answer, bodiless)
        else:
            self._send(answer, bodiless)

    def _stream(self, answer: Answer) -> None:
        lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        lines += ["transfer-encoding: chunked", "", ""]
        self.transport.write("\r\n".join(lines).encode("latin-1"))
        self._next_chunk(answer, 0)

    def _next_chunk(self, answer: Answer, position: int) -> None:
        if self.transport.is_closing():
            return
        chunk = answer.chunks[position]
        self.transport.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        if position + 1 == len(answer.chunks):
            self.transport.write(b"0\r\n\r\n")
            return
        loop = asyncio.get_running_loop()
        loop.call_later(answer.pause_s, self._next_chunk, answer, position + 1)

    def _send(self, answer: Answer, bodiless: bool = False) -> None:
        if self.transport.is_closing():
            return
        phrase = HTTPStatus(answer.status).phrase
        lines = [f"HTTP/1.1 {answer.status} {phrase}"]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        if answer.status not in (204, 304):
            lines.append(f"content-length: {len(answer.body)}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        self.transport.write(head if bodiless else head + answer.body)


async def _serve(port: int) -> None:
    fixed = Answer(body=b'{"ok":true}')
    async with http_backend(lambda request: fixed, port=port):
        await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(int(sys.argv[1])))
