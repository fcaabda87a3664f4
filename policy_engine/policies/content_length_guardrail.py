"""content-length-guardrail."""

from typing import ClassVar

from policy_engine.guardrails.counted_text import Count, Counted
from policy_engine.guardrails.guardrail import Guardrail, RequestSection, ResponseSection
from policy_engine.policy import Document, Version


class _Bytes:
    def __init__(self) -> None:
        self._count = 0

    def add(self, piece: str) -> int:
        self._count += len(piece) if piece.isascii() else len(piece.encode("utf-8", "replace"))
        return self._count


class _Bounds(Counted):
    unit: ClassVar[str] = "content length"
    units: ClassVar[str] = "bytes"

    def count(self) -> Count:
        """Of bytes."""
        return _Bytes()


class ContentLengthRequest(RequestSection, _Bounds):
    """How long the text of a request may be."""


class ContentLengthResponse(ResponseSection, _Bounds):
    """How long the text of an answer may be."""


class ContentLengthGuardrail(Guardrail):
    """Lets messages pass only if their text is so long: not too short, not too long.

    Lengths are bytes in UTF-8. Others are answered with 422. An answer that is a stream is held
    back until it is long enough, and ends where it is too long.
    """

    name: ClassVar[str] = "content-length-guardrail"
    version: ClassVar[Version] = Version(1, 0, 0)
    why_python: ClassVar[str] = "it measures text inside the body"
    kind: ClassVar[str] = "CONTENT_LENGTH_GUARDRAIL"
    reason: ClassVar[str] = "Violation of applied content length constraints detected."
    example: ClassVar[Document] = {"request": {"min": 1, "max": 16384, "showAssessment": True}}

    request: ContentLengthRequest | None = None
    """Which requests pass."""

    response: ContentLengthResponse | None = None
    """Which answers pass."""
