"""sentence-count-guardrail."""

import re
from typing import ClassVar

from policy_engine.guardrails.counted_text import Count, Counted
from policy_engine.guardrails.guardrail import Guardrail, RequestSection, ResponseSection
from policy_engine.policy import Document, Version

_ENDS = re.compile(r"[.!?]")


class _Sentences:
    def __init__(self) -> None:
        self._count = 0
        self._inside = False  # the text ends within a sentence

    def add(self, piece: str) -> int:
        first, *others = _ENDS.split(piece)
        if not self._inside and first and not first.isspace():
            self._count += 1
            self._inside = True
        if others:
            self._count += sum(1 for one in others if one and not one.isspace())
            self._inside = bool(others[-1]) and not others[-1].isspace()
        return self._count


class _Bounds(Counted):
    unit: ClassVar[str] = "sentence count"
    units: ClassVar[str] = "sentences"

    def count(self) -> Count:
        """Of sentences."""
        return _Sentences()


class SentenceCountRequest(RequestSection, _Bounds):
    """How many sentences a request may have."""


class SentenceCountResponse(ResponseSection, _Bounds):
    """How many sentences an answer may have."""


class SentenceCountGuardrail(Guardrail):
    """Lets messages pass only if they have so many sentences: not too few, not too many.

    Sentences end with `.`, `!` or `?`, or with the text. Others are answered with 422. An answer
    that is a stream is held back until it has enough sentences, and ends where it has too many.
    """

    name: ClassVar[str] = "sentence-count-guardrail"
    version: ClassVar[Version] = Version(1, 0, 0)
    why_python: ClassVar[str] = "it counts sentences in the body"
    kind: ClassVar[str] = "SENTENCE_COUNT_GUARDRAIL"
    reason: ClassVar[str] = "Violation of applied sentence count constraints detected."
    example: ClassVar[Document] = {"request": {"min": 1, "max": 20}}

    request: SentenceCountRequest | None = None
    """Which requests pass."""

    response: SentenceCountResponse | None = None
    """Which answers pass."""
