"""Patterns that users write: RE2, so that no text can make one slow.

Source: https://github.com/google/re2/wiki/Syntax
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Annotated, AnyStr, Protocol, TypeVar, cast

from pydantic import AfterValidator, Field

_LARGEST_PROGRAM_BYTES = 1 << 20
_KEPT = 512  # compiled patterns, least used forgotten first

Found_co = TypeVar("Found_co", str, bytes, covariant=True)


class Match(Protocol[Found_co]):
    """Where a pattern was found."""

    def start(self) -> int:
        """In characters of text, or in bytes."""
        ...

    def end(self) -> int:
        """Behind its last character."""
        ...

    def group(self) -> Found_co:
        """What was found."""
        ...

    def groups(self) -> tuple[Found_co, ...]:
        """What was found by each part in parentheses."""
        ...


class Expression(Protocol):
    """A compiled pattern: takes text, or its UTF-8 bytes, which is faster."""

    pattern: str

    def search(self, text: AnyStr) -> Match[AnyStr] | None:
        """The first place where it is found."""
        ...

    def finditer(self, text: AnyStr) -> Iterable[Match[AnyStr]]:
        """Every place where it is found."""
        ...

    def fullmatch(self, text: AnyStr) -> Match[AnyStr] | None:
        """The whole text, if it fits."""
        ...

    def split(self, text: AnyStr) -> list[AnyStr]:
        """What stands between the places."""
        ...

    def sub(self, new: Callable[[Match[AnyStr]], AnyStr], text: AnyStr) -> AnyStr:
        """The text with every place replaced."""
        ...


@lru_cache(maxsize=_KEPT)
def expression(pattern: str) -> Expression:
    """`pattern` compiled. Raises ValueError: no RE2, or too large."""
    import re2  # noqa: PLC0415 - only a few policies need it

    options = re2.Options()
    options.log_errors = False
    options.max_mem = _LARGEST_PROGRAM_BYTES
    try:
        return cast("Expression", re2.compile(pattern, options))
    except re2.error as error:
        reason = error.args[0]
        text = reason.decode() if isinstance(reason, bytes) else str(reason)
        raise ValueError(f"is not a regular expression of RE2: {text}") from None


def _compiles(pattern: str) -> str:
    expression(pattern)
    return pattern


Pattern = Annotated[str, Field(min_length=1, max_length=8192), AfterValidator(_compiles)]
"""A regular expression in RE2 syntax, as text."""
