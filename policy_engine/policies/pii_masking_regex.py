"""pii-masking-regex."""

import json
from functools import cached_property
from typing import Annotated, ClassVar, Final, Self

from pydantic import AfterValidator, Field, model_validator

from policy_engine.bodies.content_coding import Decoder, Unreadable, coding, decoded
from policy_engine.bodies.event_stream import EventTooLong, is_event_stream
from policy_engine.bodies.json_path import Json, JsonPath, JsonPathText, Unresolved, json_path
from policy_engine.bodies.json_text import document, unescaped
from policy_engine.guardrails.placeholders import Masking, Originals
from policy_engine.guardrails.restored_stream import RestoredBody, RestoredEvents
from policy_engine.hooks import (
    Answer,
    BodyVerdict,
    Exchange,
    Headers,
    Phase,
    PythonPolicy,
    Verdict,
    json_answer,
)
from policy_engine.parameters.regex import Expression, Pattern, expression
from policy_engine.policy import Document, Parameters, Version

_EMAIL: Final = r"[a-zA-Z0-9._%+\-]+@[a-zA-Z0-9\-]+(?:\.[a-zA-Z0-9\-]+)*\.[a-zA-Z]{2,63}"
_SSN: Final = r"\b\d{3}-\d{2}-\d{4}\b"
_PHONE: Final = (
    r"\+\d{1,3}(?:[ .\-]?\(?\d{1,4}\)?){2,6}"  # international
    r"|\(\d{3}\) ?\d{3}[ .\-]?\d{4}\b"
    r"|\b\d{3}[ .\-]\d{3}[ .\-]\d{4}\b"
    r"|\b\d{10}\b"
)


def _finds_something(pattern: str) -> str:
    if expression(pattern).search("") is not None:
        raise ValueError("must not match empty text")
    return pattern


class PiiEntity(Parameters):
    """A kind of personal data."""

    pii_entity: Annotated[str, Field(pattern="^[A-Z_]+$", max_length=64)]
    """Its name in placeholders: capital letters and `_`, such as `CREDIT_CARD`."""

    pii_regex: Annotated[Pattern, AfterValidator(_finds_something)]
    """What it looks like: a regular expression in RE2 syntax."""


class PiiMaskingRegex(PythonPolicy):
    """Takes personal data out of requests, and puts it back into their answers.

    The upstream sees placeholders such as `[EMAIL_0000]`; where they come up in its answer, also in
    one that is streamed, the caller sees what they stand for. With `redactPII` it is gone for good.
    Requests in which `jsonPath` leads to no text are answered with 500: nothing leaves unmasked.
    """

    name: ClassVar[str] = "pii-masking-regex"
    version: ClassVar[Version] = Version(1, 0, 3)
    why_python: ClassVar[str] = "it replaces text inside the body, both ways"
    example: ClassVar[Document] = {
        "email": True,
        "phone": True,
        "customPIIEntities": [{"piiEntity": "CREDIT_CARD", "piiRegex": r"\b(?:\d[ -]?){15}\d\b"}],
    }

    email: bool = False
    """Whether e-mail addresses are taken out (`EMAIL`)."""

    phone: bool = False
    """Whether telephone numbers are taken out (`PHONE`)."""

    ssn: bool = False
    """Whether social security numbers of the USA are taken out (`SSN`)."""

    custom_pii_entities: Annotated[
        tuple[PiiEntity, ...], Field(alias="customPIIEntities", max_length=50)
    ] = ()
    """What else is taken out. At least one kind of data must be."""

    json_path: JsonPathText = "$.messages[-1].content"
    """Where the text is in requests: every string there. Empty or `$`: the whole body, as text."""

    redact_pii: Annotated[bool, Field(alias="redactPII")] = False
    """Whether the data is replaced by `*****`, and not put back."""

    @model_validator(mode="after")
    def _looks_for_something(self) -> Self:
        if not (self.email or self.phone or self.ssn or self.custom_pii_entities):
            raise ValueError("at least one of email, phone, ssn and customPIIEntities is required")
        return self

    def phases(self) -> frozenset[Phase]:
        """Answers of any length are restored part by part; what was redacted is not put back."""
        if self.redact_pii:
            return frozenset({"request_body"})
        return frozenset({"request_headers", "request_body", "response_headers", "response_chunk"})

    @cached_property
    def entities(self) -> dict[str, Expression]:
        """What is looked for, by its name."""
        included = {
            "EMAIL": _EMAIL if self.email else "",
            "SSN": _SSN if self.ssn else "",
            "PHONE": _PHONE if self.phone else "",
        }
        own = [(one.pii_entity, one.pii_regex) for one in self.custom_pii_entities]
        patterns: dict[str, list[str]] = {}
        for name, pattern in (*included.items(), *own):
            if pattern:
                patterns.setdefault(name, []).append(pattern)
        return {
            name: expression("|".join(f"(?:{one})" for one in several) if several[1:] else one)
            for name, several in patterns.items()
            for one in several[:1]
        }

    @cached_property
    def path(self) -> JsonPath:
        """Where the text is."""
        return json_path(self.json_path)

    def on_request_headers(self, exchange: Exchange) -> Verdict:
        """Placeholders must be found in the answer: it should come as it is."""
        if not self.redact_pii:
            exchange.request.headers.remove("accept-encoding")
        return None

    def on_request_body(self, exchange: Exchange, body: bytes) -> BodyVerdict:
        """Take the data out."""
        if not body:
            return None
        headers = exchange.request.headers
        try:
            text = unescaped(decoded(headers, body).decode())
            masking = Masking(self.entities, redact=self.redact_pii, taken=text)
            masked = self._masked(text, masking)
        except (Unreadable, Unresolved, ValueError) as error:
            return _failed(str(error))
        if masked is None:
            return None
        headers.remove("content-encoding")
        if masking.originals:
            exchange.notes[id(self)] = Originals(masking.originals)
        return masked

    def _masked(self, text: str, masking: Masking) -> bytes | None:
        """None if there is nothing to take out. Raises Unresolved and ValueError."""
        if self.path.whole:
            if "\0" in text:
                raise ValueError("the body holds NUL: it is no text, or UTF-16")
            new = masking.masked(text)
            return None if new == text else new.encode()
        changed = False
        seen = False

        def mask(value: Json) -> Json:
            nonlocal changed, seen
            match value:
                case str():
                    seen = True
                    new = masking.masked(value)
                    changed = changed or new != value
                    return new
                case list():
                    return [mask(one) for one in value]
                case dict():
                    return {name: mask(one) for name, one in value.items()}
                case _:
                    return value

        for one in self.path.find(document(text)):
            mask(one)
        if not seen:
            raise Unresolved(f"{self.path.text} leads to no text")
        if not changed:
            return None
        # this reader and writer keep numbers of any size as they are
        new_document = self.path.replace(json.loads(text), mask)
        return json.dumps(new_document, ensure_ascii=False, separators=(",", ":")).encode()

    def on_response_headers(self, exchange: Exchange) -> Verdict:
        """See what kind of answer it is: its parts are restored as they pass."""
        originals, response = exchange.notes.get(id(self)), exchange.response
        if originals is None or response is None:
            return None
        headers = response.headers
        try:
            exchange.notes[id(self)] = _Restoring(originals, headers)
        except Unreadable as error:
            return _failed(f"the answer: {error}")
        headers.remove("content-encoding")
        headers.remove("content-length")
        return None

    def on_response_chunk(self, exchange: Exchange, chunk: bytes, *, last: bool) -> BodyVerdict:
        """Put the data back into a part."""
        restoring = exchange.notes.get(id(self))
        if not isinstance(restoring, _Restoring):
            return None
        try:
            return restoring.add(chunk, last=last)
        except (Unreadable, EventTooLong) as error:
            del exchange.notes[id(self)]
            return _failed(f"the answer: {error}")


class _Restoring:
    """One answer on its way to the caller."""

    def __init__(self, originals: Originals, headers: Headers) -> None:
        """Raises Unreadable for a content coding that is not known."""
        name = coding(headers)
        self._decoder = Decoder(name) if name else None
        json_text = "json" in (headers.get("content-type") or "").lower()
        self._content: RestoredEvents | RestoredBody = (
            RestoredEvents(originals)
            if is_event_stream(headers)
            else RestoredBody(originals, json=json_text)
        )

    def add(self, part: bytes, *, last: bool) -> bytes:
        """What the caller gets. Raises Unreadable and EventTooLong."""
        content = part if self._decoder is None else self._decoder.add(part)
        return self._content.add(content, last=last)


def _failed(problem: str) -> Answer:
    return json_answer(500, {"type": "PII_MASKING_REGEX", "message": problem}, reason=problem)
