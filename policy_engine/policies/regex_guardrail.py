"""regex-guardrail."""

from functools import cached_property
from typing import ClassVar

from policy_engine.guardrails.guarded_stream import (
    LONGEST_TEXT,
    Judgement,
    Step,
    Violation,
    Watch,
    World,
    too_long,
)
from policy_engine.guardrails.guardrail import Guardrail, RequestSection, ResponseSection, Section
from policy_engine.parameters.regex import Expression, Pattern, expression
from policy_engine.policy import Document, Version

_REASON = "Violation of regular expression detected."
_WINDOW_BYTES = 16 << 10


class _Regex(Section):
    needed: ClassVar[tuple[str, ...]] = ("regex",)
    seeks: ClassVar[bool] = True

    regex: Pattern | None = None
    """What the text must match somewhere, in RE2 syntax (`(?i)` for any case); required when
    enabled."""

    @cached_property
    def expression(self) -> Expression:
        """The pattern, compiled."""
        return expression(self.regex or "")

    @cached_property
    def violation(self) -> Violation:
        """What is said when a text does not pass."""
        return Violation(f"{_REASON} {self.regex}")

    def judged(self, text: str, world: World) -> Judgement:
        """Whether the pattern is found."""
        del world
        found = self.expression.search(text.encode("utf-8", "replace")) is not None
        return self.violation if found is self.invert else None

    def watch(self) -> Watch:
        """Looks for the pattern in a stream."""
        return _Looking(self)


class _Looking:
    """Looks at the text's end while it grows, and at all of it before it says what it found."""

    def __init__(self, section: _Regex) -> None:
        self._section = section
        self._text = bytearray()
        self._found = False

    def add(self, piece: str, world: World, *, ended: bool) -> Step:
        """A forbidden text does not pass; one that must be there is missed at the end.

        Raises NotInspected.
        """
        del world
        if self._found and not self._section.invert:
            return "pass"
        new = piece.encode("utf-8", "replace")
        self._text += new
        if len(self._text) > LONGEST_TEXT:
            raise too_long()
        self._found = self._seen(len(new), ended=ended)
        if self._section.invert:
            return self._section.violation if self._found else "pass"
        return self._section.violation if ended and not self._found else "pass"

    def _seen(self, new_bytes: int, *, ended: bool) -> bool:
        search = self._section.expression.search
        at = len(self._text) - new_bytes - _WINDOW_BYTES
        if at > 0 and not ended and search(bytes(memoryview(self._text)[at:])) is None:
            return False
        return search(bytes(self._text)) is not None


class RegexRequest(RequestSection, _Regex):
    """What requests must match."""


class RegexResponse(ResponseSection, _Regex):
    """What answers must match."""


class RegexGuardrail(Guardrail):
    """Lets messages pass only if their text matches a regular expression, or does not.

    Others are answered with 422. With `invert`, a stream ends where the text begins to match;
    without, it is told at its end that nothing matched.
    """

    name: ClassVar[str] = "regex-guardrail"
    version: ClassVar[Version] = Version(1, 0, 0)
    why_python: ClassVar[str] = "it looks at text inside the body"
    kind: ClassVar[str] = "REGEX_GUARDRAIL"
    reason: ClassVar[str] = _REASON
    example: ClassVar[Document] = {
        "request": {"regex": "(?i)ignore (all )?previous instructions", "invert": True}
    }

    request: RegexRequest | None = None
    """Which requests pass."""

    response: RegexResponse | None = None
    """Which answers pass."""
