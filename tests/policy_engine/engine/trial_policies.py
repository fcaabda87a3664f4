"""Tiny policies, each for one thing that a policy may do."""

import asyncio
from hashlib import sha256
from typing import Any, ClassVar

import orjson

from policy_engine.hooks import (
    Answer,
    BodyVerdict,
    Exchange,
    PythonPolicy,
    Verdict,
    json_answer,
)
from policy_engine.policy import Document, Purpose, Version
from tests.policy_engine.engine.broken_policies import Broken, Glutton, Guarded

V1 = Version(1, 0, 0)
REFUSED = {"error": "refused", "by": "trial"}


def response_headers(exchange: Exchange) -> Any:
    assert exchange.response is not None
    return exchange.response.headers


class Stamp(PythonPolicy):
    """Puts a header on the request and on the answer."""

    name: ClassVar[str] = "stamp"
    version: ClassVar[Version] = V1
    example: ClassVar[Document] = {"word": "a"}

    word: str

    def on_request_headers(self, exchange: Exchange) -> Verdict:
        exchange.request.headers.append("x-stamp", self.word)

    def on_response_headers(self, exchange: Exchange) -> Verdict:
        response_headers(exchange).append("x-stamped", self.word)


class Later(PythonPolicy):
    """Waits before it does anything."""

    name: ClassVar[str] = "later"
    version: ClassVar[Version] = V1
    example: ClassVar[Document] = {}

    wait_s: float = 0.01

    async def on_request_headers(self, exchange: Exchange) -> Verdict:
        await asyncio.sleep(self.wait_s)
        exchange.request.headers.set("x-later", "request")
        return None

    async def on_response_headers(self, exchange: Exchange) -> Verdict:
        await asyncio.sleep(self.wait_s)
        response_headers(exchange).set("x-later", "response")
        return None


class Edit(PythonPolicy):
    """Every way to edit headers."""

    name: ClassVar[str] = "edit"
    purpose: ClassVar[Purpose] = "changes"
    version: ClassVar[Version] = V1
    example: ClassVar[Document] = {}

    def on_request_headers(self, exchange: Exchange) -> Verdict:
        headers = exchange.request.headers
        headers.set("X-Set", "new")
        headers.append("x-more", "second")
        headers.remove("x-gone")
        headers.set("x-latin", "caf\u00e9")
        exchange.request.path = "/elsewhere?x=1"

    def on_response_headers(self, exchange: Exchange) -> Verdict:
        headers = response_headers(exchange)
        headers.append("set-cookie", "b=2")
        headers.append("set-cookie", "c=3")
        headers.remove("x-secret")
        assert exchange.response is not None
        exchange.response.status = 202


class Reverse(PythonPolicy):
    """Turns both bodies round, and notes in the answer what it saw."""

    name: ClassVar[str] = "reverse"
    version: ClassVar[Version] = V1
    example: ClassVar[Document] = {}

    def on_request_body(self, exchange: Exchange, body: bytes) -> BodyVerdict:
        exchange.notes[id(self)] = len(body)
        exchange.request.headers.set("x-length", str(len(body)))
        return body[::-1]

    def on_response_body(self, exchange: Exchange, body: bytes) -> BodyVerdict:
        response_headers(exchange).set("x-request-length", str(exchange.notes[id(self)]))
        response_headers(exchange).set("x-length", str(len(body)))
        return body[::-1]


class Look(PythonPolicy):
    """Reads both bodies and changes nothing but a header."""

    name: ClassVar[str] = "look"
    version: ClassVar[Version] = V1
    example: ClassVar[Document] = {}

    def on_request_body(self, exchange: Exchange, body: bytes) -> BodyVerdict:
        exchange.request.headers.set("x-seen", str(len(body)))
        return None

    def on_response_body(self, exchange: Exchange, body: bytes) -> BodyVerdict:
        response_headers(exchange).set("x-seen", str(len(body)))
        return None


class Fill(PythonPolicy):
    """Gives bodies to messages that have none."""

    name: ClassVar[str] = "fill"
    version: ClassVar[Version] = V1
    example: ClassVar[Document] = {}

    def on_request_body(self, exchange: Exchange, body: bytes) -> BodyVerdict:
        return body or b"asked for"

    def on_response_body(self, exchange: Exchange, body: bytes) -> BodyVerdict:
        return body or b"given"


class Refuse(PythonPolicy):
    """Answers itself in the phase it is told."""

    name: ClassVar[str] = "refuse"
    version: ClassVar[Version] = V1
    example: ClassVar[Document] = {"phase": "request_headers"}

    phase: str
    status: int = 422

    def phases(self) -> Any:
        return frozenset((self.phase,))

    def _answer(self, phase: str) -> Answer | None:
        if phase != self.phase:
            return None
        answer = json_answer(self.status, REFUSED, reason="as told")
        return Answer(
            answer.status,
            answer.body,
            (*answer.headers, ("Set-Cookie", "a=1"), ("set-cookie", "b=2")),
            answer.reason,
        )

    def on_request_headers(self, exchange: Exchange) -> Verdict:
        return self._answer("request_headers")

    def on_request_body(self, exchange: Exchange, body: bytes) -> BodyVerdict:
        return self._answer("request_body")

    def on_request_chunk(self, exchange: Exchange, chunk: bytes, *, last: bool) -> BodyVerdict:
        return self._answer("request_chunk")

    def on_response_headers(self, exchange: Exchange) -> Verdict:
        return self._answer("response_headers")

    def on_response_body(self, exchange: Exchange, body: bytes) -> BodyVerdict:
        return self._answer("response_body")

    def on_response_chunk(self, exchange: Exchange, chunk: bytes, *, last: bool) -> BodyVerdict:
        return self._answer("response_chunk")


class Upper(PythonPolicy):
    """Makes every chunk of both bodies upper case; answers where a chunk holds `STOP`."""

    name: ClassVar[str] = "upper"
    version: ClassVar[Version] = V1
    example: ClassVar[Document] = {}

    def on_request_chunk(self, exchange: Exchange, chunk: bytes, *, last: bool) -> BodyVerdict:
        return chunk.upper()

    def on_response_chunk(self, exchange: Exchange, chunk: bytes, *, last: bool) -> BodyVerdict:
        if b"STOP" in chunk:
            return Answer(422, b"data: stopped\n\n")
        return chunk.upper()


class Hold(PythonPolicy):
    """Holds every chunk of the answer back until the last."""

    name: ClassVar[str] = "hold"
    version: ClassVar[Version] = V1
    example: ClassVar[Document] = {}

    async def on_response_chunk(
        self, exchange: Exchange, chunk: bytes, *, last: bool
    ) -> BodyVerdict:
        await asyncio.sleep(0)
        held = exchange.notes.get(id(self), b"") + chunk
        exchange.notes[id(self)] = held
        return b"<" + held + b">" if last else b""


class Gather(PythonPolicy):
    """Keeps requests back until they are whole."""

    name: ClassVar[str] = "gather"
    version: ClassVar[Version] = V1
    example: ClassVar[Document] = {}

    def on_request_chunk(self, exchange: Exchange, chunk: bytes, *, last: bool) -> BodyVerdict:
        held = exchange.notes.get(id(self), b"") + chunk
        exchange.notes[id(self)] = held
        return b"<" + held + b">" if last else b""


class Both(PythonPolicy):
    """Says which hook it was that saw the bodies."""

    name: ClassVar[str] = "both"
    version: ClassVar[Version] = V1
    example: ClassVar[Document] = {}

    def on_request_body(self, exchange: Exchange, body: bytes) -> BodyVerdict:
        return b"whole:" + body[:10]

    def on_request_chunk(self, exchange: Exchange, chunk: bytes, *, last: bool) -> BodyVerdict:
        return b"chunk"

    def on_response_body(self, exchange: Exchange, body: bytes) -> BodyVerdict:
        return b"whole:" + body[:10]

    def on_response_chunk(self, exchange: Exchange, chunk: bytes, *, last: bool) -> BodyVerdict:
        return b"chunk:" + chunk if chunk else None


class Publish(PythonPolicy):
    """Writes dynamic metadata."""

    name: ClassVar[str] = "publish"
    version: ClassVar[Version] = V1
    example: ClassVar[Document] = {}

    def on_request_headers(self, exchange: Exchange) -> Verdict:
        exchange.published["who"] = {"name": "Ann", "age": 30, "roles": ["a", "b"]}
        exchange.published["odd"] = V1.__class__

    def on_response_headers(self, exchange: Exchange) -> Verdict:
        exchange.published["status"] = exchange.response.status if exchange.response else 0


class Read(PythonPolicy):
    """Tells the upstream what filters before have published."""

    name: ClassVar[str] = "read"
    version: ClassVar[Version] = V1
    example: ClassVar[Document] = {}
    namespaces: ClassVar[tuple[str, ...]] = ("signalbox",)

    def on_request_headers(self, exchange: Exchange) -> Verdict:
        who = exchange.metadata.get("signalbox", {}).get("who", {})
        exchange.request.headers.set("x-who", f"{who.get('name')} {who.get('roles')}")


class Check(PythonPolicy):
    """Lets a request pass that has a header, and tells the upstream a digest of it."""

    name: ClassVar[str] = "check"
    version: ClassVar[Version] = V1
    example: ClassVar[Document] = {}

    def on_request_headers(self, exchange: Exchange) -> Verdict:
        value = exchange.request.headers.get("x-client")
        if value is None:
            return json_answer(400, {"error": "Bad Request"})
        exchange.request.headers.set("x-digest", sha256(value.encode()).hexdigest())
        return None


class CheckLater(Check):
    """The same as a coroutine that waits once."""

    name: ClassVar[str] = "check-later"

    async def on_request_headers(self, exchange: Exchange) -> Verdict:  # type: ignore[override]
        await asyncio.sleep(0)
        return Check.on_request_headers(self, exchange)


class CheckBody(PythonPolicy):
    """Lets a request pass whose JSON body has a text that is short enough."""

    name: ClassVar[str] = "check-body"
    version: ClassVar[Version] = V1
    example: ClassVar[Document] = {}

    def on_request_body(self, exchange: Exchange, body: bytes) -> BodyVerdict:
        document = orjson.loads(body)
        if len(document["text"]) > 10_000:
            return json_answer(422, {"error": "too long"})
        return None


class ChangeBody(PythonPolicy):
    """Adds a field to the JSON of a request."""

    name: ClassVar[str] = "change-body"
    version: ClassVar[Version] = V1
    example: ClassVar[Document] = {}

    def on_request_body(self, exchange: Exchange, body: bytes) -> BodyVerdict:
        document = orjson.loads(body)
        document["seen"] = True
        return orjson.dumps(document)


TRIALS = (
    Stamp,
    Later,
    Edit,
    Reverse,
    Look,
    Fill,
    Refuse,
    Upper,
    Hold,
    Gather,
    Both,
    Publish,
    Read,
    Broken,
    Guarded,
    Glutton,
    Check,
    CheckLater,
    CheckBody,
    ChangeBody,
)
