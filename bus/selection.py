"""Which streams and filters a set of subscription patterns comes down to."""

from bus.subjects import STREAMS, matches


def selected(patterns: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Stream name -> the patterns that select from it, none within another.

    Raises ValueError when a pattern names no stream, or two overlap without one holding the other.
    """
    if not patterns:
        raise ValueError("at least one pattern is needed")
    chosen: dict[str, tuple[str, ...]] = {}
    for pattern in dict.fromkeys(patterns):
        if any(other != pattern and _within(pattern, other) for other in patterns):
            continue
        name = _stream(pattern)
        for other in chosen.get(name, ()):
            if _overlap(pattern, other):
                raise ValueError(f"patterns {pattern!r} and {other!r} overlap: name one of them")
        chosen[name] = (*chosen.get(name, ()), pattern)
    return chosen


def _stream(pattern: str) -> str:
    parts = pattern.split(".")
    for stream in STREAMS:
        if len(parts) > 4 and parts[3] == stream.family:
            return stream.name
    raise ValueError(f"pattern {pattern!r} names no stream; make it with subjects.pattern")


def _within(inner: str, outer: str) -> bool:
    """Whether every subject under `inner` is under `outer`."""
    if inner.endswith(".>") and not outer.endswith(".>"):
        return False
    return matches(outer, inner)  # a wildcard of `inner` is only matched by a wildcard


def _overlap(one: str, other: str) -> bool:
    """Whether some subject is under both."""
    left, right = one.split("."), other.split(".")
    for a, b in zip(left, right, strict=False):
        if ">" in (a, b):
            return True
        if a != b and "*" not in (a, b):
            return False
    return len(left) == len(right)
