"""How much text there is: guardrails that count share all but what they count."""

from abc import abstractmethod
from collections.abc import Awaitable
from functools import cached_property
from typing import Annotated, ClassVar, Protocol, Self

from pydantic import Field, model_validator

from bus.resources.document import wrong
from policy_engine.guardrails.guarded_stream import Judgement, Step, Violation, Watch, World
from policy_engine.guardrails.guardrail import Section

_MOST = 1 << 31


class Count(Protocol):
    """Counts a text that comes in pieces."""

    def add(self, piece: str) -> int:
        """How many there are now."""
        ...


class Counted(Section):
    """Bounds of a count."""

    needed: ClassVar[tuple[str, ...]] = ("min", "max")
    unit: ClassVar[str]  # what is counted, for the assessment
    units: ClassVar[str]

    min: Annotated[int, Field(ge=0, le=_MOST)] | None = None
    """The fewest that pass; required when enabled."""

    max: Annotated[int, Field(ge=1, le=_MOST)] | None = None
    """The most that pass; required when enabled."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min is not None and self.max is not None and self.min > self.max:
            raise wrong("must not be less than min", "max")
        return self

    @abstractmethod
    def count(self) -> Count:
        """A count of nothing yet."""

    @cached_property
    def bounds(self) -> tuple[int, int]:
        """The fewest and the most that pass."""
        return self.min or 0, _MOST if self.max is None else self.max

    @cached_property
    def violation(self) -> Violation:
        """What is said when the count does not pass."""
        kind = "Expected not" if self.invert else "Expected"
        fewest, most = self.bounds
        return Violation(
            f"Violation of {self.unit} detected. {kind} between {fewest} and {most} {self.units}."
        )

    def judged(self, text: str, world: World) -> Judgement | Awaitable[Judgement]:
        """Whether the count is between the bounds."""
        del world
        fewest, most = self.bounds
        inside = fewest <= self.count().add(text) <= most
        return self.violation if inside is self.invert else None

    def watch(self) -> Watch:
        """Counts a stream."""
        return _Counting(self)


class _Counting:
    """Holds back until enough was counted; what exceeds the most does not pass."""

    def __init__(self, section: Counted) -> None:
        self._section = section
        self._count = section.count()
        self._fewest, self._most = section.bounds

    def add(self, piece: str, world: World, *, ended: bool) -> Step:
        """What becomes of the part of the stream that ends with `piece`."""
        del world
        counted = self._count.add(piece)
        if self._section.invert:
            if counted > self._most or (ended and counted < self._fewest):
                return "pass"
            return self._section.violation if ended else "hold"
        if counted > self._most:
            return self._section.violation
        if counted >= self._fewest:
            return "pass"
        return self._section.violation if ended else "hold"
