"""What all guardrails have in common: what they look at, and how they intervene.

A guardrail looks at the text of a message, or of a part of it that a JSONPath leads to, and lets
the message pass or not. Answers that are streams of events are looked at while they pass.
"""

import re
from collections.abc import Awaitable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final, Literal, Self

import orjson
from pydantic import model_validator

from bus.resources.document import wrong
from policy_engine.bodies.content_coding import Decoder, Unreadable, coding, decoded
from policy_engine.bodies.event_stream import EventTooLong, is_event_stream
from policy_engine.bodies.json_path import JsonPath, JsonPathText, Unresolved, json_path, texts
from policy_engine.bodies.json_text import NotJson, document, unescaped
from policy_engine.guardrails.guarded_stream import (
    LONGEST_HELD_BYTES,
    GuardedStream,
    Judgement,
    NotInspected,
    Violation,
    WaitsForTheEnd,
    Watch,
    World,
)
from policy_engine.hooks import (
    Answer,
    BodyVerdict,
    Exchange,
    Headers,
    Phase,
    PythonPolicy,
    Response,
    Verdict,
)
from policy_engine.policy import Document, Parameters

Direction = Literal["REQUEST", "RESPONSE"]

STATUS: Final = 422

_WITHOUT_BODY: Final = frozenset({"GET", "HEAD", "DELETE", "OPTIONS", "TRACE"})
_EMPTY_ANSWERS: Final = frozenset({204, 205, 304})
_FIRST_ERROR: Final = 400
_CHARSET: Final = re.compile(r"charset\s*=\s*[\"']?([^\s\"';,]*)")
_CHARSETS: Final = frozenset(
    {"utf-8", "utf8", "us-ascii", "ascii", "latin-1", "latin1", "windows-1252", "cp1252"}
    | {f"iso-8859-{part}" for part in (1, 2, 9, 15)}
)
_JSON: Final = (("content-type", "application/json"),)
_EVENTS: Final = (("content-type", "text/event-stream"),)
_OVER: Final = object()
"""Instead of a stream: nothing more of it is kept, though more may come, as in shadow mode."""


@dataclass(frozen=True, slots=True)
class Message:
    """A whole body, and how to look into it."""

    body: bytes  # decompressed
    headers: Headers

    def values(self, path: JsonPath) -> list[Any]:
        """What is at `path` in the body, which must be JSON. Raises NotInspected."""
        try:
            return path.find(document(self.body))
        except NotJson as error:
            raise NotInspected(f"the body is not JSON: {error}") from None
        except Unresolved as error:
            raise NotInspected(str(error)) from None

    def text(self, path: JsonPath) -> str:
        """The text at `path`, that of several places joined by lines. Raises NotInspected."""
        if path.whole:
            return _text(self.body, self.headers)
        found = self.values(path)
        if len(found) == 1 and isinstance(found[0], str):
            return found[0]
        pieces = list(texts(found))
        if not pieces:
            raise NotInspected(f"{path.text} leads to no text")
        return "\n".join(pieces)


def _text(body: bytes, headers: Headers) -> str:
    """What is UTF-8 is read as such, whatever it is called: a caller's word hides nothing.

    Other charsets only where each byte is one character, and those of ASCII are themselves.
    """
    named = _CHARSET.findall((headers.get("content-type") or "").lower()) or ["utf-8"]
    problem = NotInspected(f"the body is not text in {named[0][:40]}")
    if not _CHARSETS.issuperset(named):
        raise problem
    try:
        text = body.decode()
    except UnicodeDecodeError:
        try:
            text = body.decode(named[0])
        except UnicodeDecodeError:
            raise problem from None
    if "\0" in text:
        raise NotInspected("the body holds NUL: it is no text, or UTF-16")
    return text


class Section(Parameters):
    """What is done in one direction. Guardrails add what they ask for, and `judged`."""

    needed: ClassVar[tuple[str, ...]] = ()
    """Parameters that an enabled section must have."""
    seeks: ClassVar[bool] = False
    """Whether it looks for something that escapes inside JSON would hide."""

    enabled: bool
    json_path: JsonPathText

    invert: bool = False
    """The other way round: what would pass is refused, and what would be refused passes."""

    show_assessment: bool = False
    """Whether the caller is told the details."""

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> Self:
        for name in self.needed if self.enabled else ():
            if getattr(self, name) is None:
                wire_name = type(self).model_fields[name].alias or name
                raise wrong(f"{wire_name} is required", wire_name)
        return self

    @cached_property
    def path(self) -> JsonPath:
        """Where the text is."""
        return json_path(self.json_path)

    def inspected(self, message: Message, world: World) -> Judgement | Awaitable[Judgement]:
        """What is wrong with a whole message. Raises NotInspected."""
        text = message.text(self.path)
        if self.seeks and self.path.whole:
            text = unescaped(text, spaces=True)
        return self.judged(text, world)

    def judged(self, text: str, world: World) -> Judgement | Awaitable[Judgement]:
        """What is wrong with `text`. Raises NotInspected."""
        raise NotImplementedError

    def watch(self) -> Watch:
        """Judges one stream."""
        return WaitsForTheEnd(self)


class RequestSection(Section):
    """What is done with requests."""

    enabled: bool = True
    """Whether requests are looked at."""

    json_path: JsonPathText = "$.messages[-1].content"
    """Where the text is: every string, number and truth value there, joined by lines. Empty or `$`:
    the whole body."""


class ResponseSection(Section):
    """What is done with answers."""

    enabled: bool = False
    """Whether answers are looked at. Streams of events, and answers that say that they are longer
    than the gateway keeps (`engine_max_answer_bytes`), have begun when they are refused: their
    status stays, and the intervention takes the place of the rest."""

    json_path: JsonPathText = "$.choices[0].message.content"
    """Where the text is: every string, number and truth value there, joined by lines. Empty or `$`:
    the whole body."""

    streaming_json_path: JsonPathText = "$.choices[0].delta.content"
    """Where a piece of the text is in the data of an event, in answers that are
    `text/event-stream`. Empty or `$`: the data itself."""

    @cached_property
    def streaming_path(self) -> JsonPath:
        """Where the pieces are."""
        return json_path(self.streaming_json_path)


class Guardrail(PythonPolicy):
    """The hooks of all guardrails. Each has its own sections `request` and `response`."""

    kind: ClassVar[str]  # `type` of its answers
    reason: ClassVar[str]  # `actionReason` of its answers

    request: RequestSection | None = None
    response: ResponseSection | None = None

    @model_validator(mode="after")
    def _has_a_section(self) -> Self:
        if self.request is None and self.response is None:
            raise ValueError("at least one of request and response is required")
        return self

    @cached_property
    def asked(self) -> RequestSection | None:
        """What is done with requests, if anything."""
        return self.request if self.request is not None and self.request.enabled else None

    @cached_property
    def answered(self) -> ResponseSection | None:
        """What is done with answers, if anything."""
        return self.response if self.response is not None and self.response.enabled else None

    def phases(self) -> frozenset[Phase]:
        """Only the directions that are enabled."""
        phases: set[Phase] = {"request_body"} if self.asked is not None else set()
        if self.answered is not None:
            phases |= {"request_headers", "response_headers", "response_body", "response_chunk"}
        return frozenset(phases)

    def on_request_headers(self, exchange: Exchange) -> Verdict:
        """Answers that are looked at should come as they are."""
        if self.answered is not None:
            exchange.request.headers.remove("accept-encoding")
        return None

    def on_request_body(
        self, exchange: Exchange, body: bytes
    ) -> BodyVerdict | Awaitable[BodyVerdict]:
        """Look at a request; one without a body passes if its method has none."""
        section = self.asked
        if section is None or (not body and exchange.request.method in _WITHOUT_BODY):
            return None
        headers = exchange.request.headers
        try:
            message = Message(decoded(headers, body), headers)
            found = section.inspected(message, _world(exchange))
        except (NotInspected, Unreadable) as error:
            found = _unseen(error)
        return self._verdict(section, "REQUEST", found)

    def on_response_headers(self, exchange: Exchange) -> Verdict:
        """Streams pass decompressed."""
        section, response = self.answered, exchange.response
        if section is None or response is None or not is_event_stream(response.headers):
            return None
        name = coding(response.headers)
        try:
            decoder = Decoder(name) if name else None
        except Unreadable as error:
            return self._intervention(section, "RESPONSE", _unseen(error))
        if decoder is not None:
            response.headers.remove("content-encoding")
            response.headers.remove("content-length")
        stream = GuardedStream(section.watch(), section.streaming_path, decoder)
        exchange.notes[id(self)] = stream
        return None

    def on_response_body(
        self, exchange: Exchange, body: bytes
    ) -> BodyVerdict | Awaitable[BodyVerdict]:
        """Look at an answer; errors of the upstream pass if the text is not in them."""
        section, response = self.answered, exchange.response
        if section is None or response is None or _empty(exchange, response, body):
            return None
        stream = exchange.notes.get(id(self))
        if isinstance(stream, GuardedStream):
            return self._passed(section, stream, exchange, body, last=True)
        return self._whole(section, exchange, response, body)

    def on_response_chunk(
        self, exchange: Exchange, chunk: bytes, *, last: bool
    ) -> BodyVerdict | Awaitable[BodyVerdict]:
        """Look at a part of a stream; what is no stream of events is held until it is whole."""
        section, response = self.answered, exchange.response
        if section is None or response is None:
            return None
        stream = exchange.notes.setdefault(id(self), bytearray())
        if stream is _OVER:
            return None
        if isinstance(stream, GuardedStream):
            return self._passed(section, stream, exchange, chunk, last=last)
        stream += chunk
        if len(stream) > LONGEST_HELD_BYTES:
            exchange.notes[id(self)] = _OVER
            problem = f"the answer is longer than {LONGEST_HELD_BYTES} bytes"
            return self._intervention(section, "RESPONSE", _unseen(problem))
        if not last:
            return b""
        return self._held(section, exchange, response, bytes(stream))

    def _held(
        self, section: ResponseSection, exchange: Exchange, response: Response, held: bytes
    ) -> BodyVerdict | Awaitable[BodyVerdict]:
        """Of an answer that was held back."""
        if _empty(exchange, response, held):
            return None
        verdict = self._whole(section, exchange, response, held)
        if isinstance(verdict, Awaitable):
            return _or_held(verdict, held)
        return held if verdict is None else verdict

    def _whole(
        self, section: ResponseSection, exchange: Exchange, response: Response, body: bytes
    ) -> BodyVerdict | Awaitable[BodyVerdict]:
        found: Judgement | Awaitable[Judgement]
        try:
            message = Message(decoded(response.headers, body), response.headers)
            found = section.inspected(message, _world(exchange))
        except Unreadable as error:
            found = _unseen(error)
        except NotInspected as error:
            found = None if response.status >= _FIRST_ERROR else _unseen(error)
        return self._verdict(section, "RESPONSE", found)

    def _verdict(
        self, section: Section, direction: Direction, found: Judgement | Awaitable[Judgement]
    ) -> BodyVerdict | Awaitable[BodyVerdict]:
        if found is None:
            return None
        if isinstance(found, Violation):
            return self._intervention(section, direction, found)
        return self._awaited(section, direction, found)

    async def _awaited(
        self, section: Section, direction: Direction, found: Awaitable[Judgement]
    ) -> BodyVerdict:
        violation = await found
        return None if violation is None else self._intervention(section, direction, violation)

    def _passed(
        self,
        section: ResponseSection,
        stream: GuardedStream,
        exchange: Exchange,
        chunk: bytes,
        *,
        last: bool,
    ) -> BodyVerdict | Awaitable[BodyVerdict]:
        """What of a stream of events the caller gets."""
        try:
            passed = stream.add(chunk, _world(exchange), last=last)
        except (NotInspected, Unreadable, EventTooLong) as error:
            passed = _unseen(error)
        if isinstance(passed, Awaitable):
            return self._passed_later(section, exchange, passed)
        return self._event(section, exchange, passed) if isinstance(passed, Violation) else passed

    async def _passed_later(
        self, section: ResponseSection, exchange: Exchange, passed: Awaitable[bytes | Violation]
    ) -> BodyVerdict:
        try:
            now = await passed
        except NotInspected as error:
            now = _unseen(error)
        return self._event(section, exchange, now) if isinstance(now, Violation) else now

    def _event(self, section: ResponseSection, exchange: Exchange, violation: Violation) -> Answer:
        """In a stream of events the intervention is one, and the last that is looked at."""
        exchange.notes[id(self)] = _OVER
        body = orjson.dumps(self._document(section, "RESPONSE", violation))
        reason = violation.reason or self.reason
        return Answer(STATUS, b"data: " + body + b"\n\n", _EVENTS, reason)

    def _intervention(self, section: Section, direction: Direction, violation: Violation) -> Answer:
        body = orjson.dumps(self._document(section, direction, violation))
        return Answer(STATUS, body, _JSON, violation.reason or self.reason)

    def _document(self, section: Section, direction: Direction, violation: Violation) -> Document:
        message: Document = {
            "action": "GUARDRAIL_INTERVENED",
            "interveningGuardrail": self.name,
            "actionReason": violation.reason or self.reason,
        }
        if section.show_assessment and violation.assessment is not None:
            message["assessments"] = violation.assessment
        message["direction"] = direction
        return {"type": self.kind, "message": message}


def _world(exchange: Exchange) -> World:
    return World(exchange.outside, exchange.system)


def _unseen(problem: object) -> Violation:
    return Violation(str(problem), reason=f"Error reading content: {problem}")


def _empty(exchange: Exchange, response: Response, body: bytes) -> bool:
    return not body and (response.status in _EMPTY_ANSWERS or exchange.request.method == "HEAD")


async def _or_held(verdict: Awaitable[BodyVerdict], held: bytes) -> BodyVerdict:
    now = await verdict
    return held if now is None else now
