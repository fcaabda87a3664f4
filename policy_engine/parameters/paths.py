"""Paths as policies may write them, and the part of a path that a policy stands for."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from policy_engine.policy import Document, Scope

_NOT_A_PATH = re.compile(r"[\s\x00-\x1f\x7f?#\\]")


def _path(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("must start with '/'")
    if _NOT_A_PATH.search(path) or not path.isascii():
        raise ValueError(
            "must be a plain path, percent-encoded: no spaces, control characters, "
            "other than ASCII, '\\', '?' and '#'"
        )
    return path


PathValue = Annotated[str, Field(min_length=1, max_length=2048), AfterValidator(_path)]


def guarded_segments(scope: Scope) -> tuple[str, ...]:
    """The segments below the context that all requests of the policy share; `{id}` is any one."""
    path = scope.operation_path or "/"
    return tuple(part for part in path.split("/") if part and part != "*")


def prefix_rewrite(scope: Scope, value: str) -> Document:
    """Puts `value` in the place of what the policy stands for, in a path with its context.

    A RegexMatchAndSubstitute.
    """
    prefix = "" if scope.context == "/" else re.escape(scope.context)
    for part in guarded_segments(scope):
        prefix += "/[^/]+" if part.startswith("{") else "/" + re.escape(part)
    bare = value.rstrip("/")
    if bare:
        return _substitution(f"^{prefix}(/.*)?$", bare + r"\1")
    return _substitution(f"^{prefix}/?", "/")


def _substitution(pattern: str, substitution: str) -> Document:
    return {"pattern": {"regex": pattern}, "substitution": substitution}
