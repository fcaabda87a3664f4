"""word-count-guardrail."""

from typing import ClassVar

from policy_engine.guardrails.counted_text import Count, Counted
from policy_engine.guardrails.guardrail import Guardrail, RequestSection, ResponseSection
from policy_engine.policy import Document, Version


class _Words:
    def __init__(self) -> None:
        self._count = 0
        self._inside = False  # the text ends within a word

    def add(self, piece: str) -> int:
        if piece:
            self._count += len(piece.split())
            if self._inside and not piece[0].isspace():
                self._count -= 1
            self._inside = not piece[-1].isspace()
        return self._count


class _Bounds(Counted):
    unit: ClassVar[str] = "word count"
    units: ClassVar[str] = "words"

    def count(self) -> Count:
        """Of words."""
        return _Words()


class WordCountRequest(RequestSection, _Bounds):
    """How many words a request may have."""


class WordCountResponse(ResponseSection, _Bounds):
    """How many words an answer may have."""


class WordCountGuardrail(Guardrail):
    """Lets messages pass only if they have so many words: not too few, not too many.

    Words are what stands between white space. Others are answered with 422. An answer that is a
    stream is held back until it has enough words, and ends where it has too many.
    """

    name: ClassVar[str] = "word-count-guardrail"
    version: ClassVar[Version] = Version(1, 0, 0)
    why_python: ClassVar[str] = "it counts words in the body"
    kind: ClassVar[str] = "WORD_COUNT_GUARDRAIL"
    reason: ClassVar[str] = "Violation of applied word count constraints detected."
    example: ClassVar[Document] = {"request": {"min": 2, "max": 500}}

    request: WordCountRequest | None = None
    """Which requests pass."""

    response: WordCountResponse | None = None
    """Which answers pass."""
