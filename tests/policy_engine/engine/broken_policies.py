"""Tiny policies that do what no policy should."""

import asyncio
import time
from typing import Any, ClassVar

from policy_engine.hooks import (
    Answer,
    BodyVerdict,
    Exchange,
    PythonPolicy,
    Verdict,
)
from policy_engine.policy import Document, Version

V1 = Version(1, 0, 0)


def response_headers(exchange: Exchange) -> Any:
    assert exchange.response is not None
    return exchange.response.headers


class Broken(PythonPolicy):
    """Fails in every way there is, after an edit."""

    name: ClassVar[str] = "broken"
    version: ClassVar[Version] = V1
    example: ClassVar[Document] = {"how": "raise"}

    how: str
    phase: str = "request_headers"

    def phases(self) -> Any:
        return frozenset((self.phase,))

    def _fail(self, headers: Any) -> Any:
        headers.set("x-edited", "by the broken one")
        match self.how:
            case "raise":
                raise RuntimeError("of its own")
            case "exit":
                raise SystemExit(3)
            case "cancel":
                raise asyncio.CancelledError
            case "number":
                return 42
            case "text":
                return "text"
            case "bytes":
                return b"bytes"
            case "status":
                return Answer(7)
            case "body":
                return Answer(200, "text")  # type: ignore[arg-type]
            case "header":
                return Answer(200, b"", (("x y", "z"),))
            case "split":
                return Answer(200, b"", (("x-y", "z\r\nx-z: 1"),))
            case "memory":
                return bytearray(1 << 44)
            case "recursion":
                return self._fail(headers)
            case "slow":
                time.sleep(0.06)
            case "late":
                return asyncio.sleep(60)
            case "never":
                return asyncio.get_running_loop().create_future()
            case "later":
                return self._later()
            case "gives up":
                return self._gives_up()
            case "own timeout":
                return self._own_timeout()
            case "loop":
                while True:
                    pass
            case "fine":
                return None
        return None

    async def _later(self) -> None:
        await asyncio.sleep(0.001)
        raise KeyError("later")

    async def _gives_up(self) -> None:
        await asyncio.sleep(0.001)
        raise asyncio.CancelledError

    async def _own_timeout(self) -> None:
        async with asyncio.timeout(0.001):
            await asyncio.sleep(60)

    def on_request_headers(self, exchange: Exchange) -> Verdict:
        return self._fail(exchange.request.headers)

    def on_request_body(self, exchange: Exchange, body: bytes) -> BodyVerdict:
        return self._fail(exchange.request.headers)

    def on_request_chunk(self, exchange: Exchange, chunk: bytes, *, last: bool) -> BodyVerdict:
        return self._fail(exchange.request.headers)

    def on_response_headers(self, exchange: Exchange) -> Verdict:
        return self._fail(response_headers(exchange))

    def on_response_body(self, exchange: Exchange, body: bytes) -> BodyVerdict:
        return self._fail(response_headers(exchange))

    def on_response_chunk(self, exchange: Exchange, chunk: bytes, *, last: bool) -> BodyVerdict:
        return self._fail(response_headers(exchange))


class Guarded(Broken):
    """The same as an authenticating policy."""

    name: ClassVar[str] = "guarded"
    authenticates: ClassVar[bool] = True


class Glutton(PythonPolicy):
    """Keeps 40 MB more with every request."""

    name: ClassVar[str] = "glutton"
    version: ClassVar[Version] = V1
    example: ClassVar[Document] = {}
    eaten: ClassVar[list[bytearray]] = []

    def on_request_headers(self, exchange: Exchange) -> Verdict:
        self.eaten.append(bytearray(b"x" * (40 << 20)))
