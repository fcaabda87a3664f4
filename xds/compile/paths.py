"""Operation paths as Envoy route matches: what they match, how they rewrite, which comes first.

`{param}` is one segment, a last `*` is the rest including the bare prefix, anything else is
matched exactly, with and without a trailing slash, and the client's form is kept upstream.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]

_LITERAL, _PARAM, _REST = 0, 1, 2


@dataclass(frozen=True, slots=True)
class PathRoute:
    """One way to match a path, and what to do to the path on the way upstream."""

    match: Document  # fields of RouteMatch
    rewrite: Document  # fields of RouteAction


def _kind(segment: str) -> int:
    if segment == "*":
        return _REST
    return _PARAM if segment.startswith("{") else _LITERAL


def rank(parts: tuple[str, ...]) -> tuple[int, ...]:
    """Sorts more specific paths first: literal before parameter before rest, segment by segment."""
    return tuple(_kind(part) for part in parts)


def first_literal(parts: tuple[str, ...]) -> str | None:
    """The first segment if it is literal; the empty string for the bare `/`; else None."""
    if not parts:
        return ""
    return parts[0] if _kind(parts[0]) == _LITERAL else None


def covers(general: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """Whether `general` matches every path that `parts` matches."""
    for at, part in enumerate(general):
        if _kind(part) == _REST:
            return True
        if at >= len(parts) or _kind(parts[at]) == _REST:
            return False
        if part != parts[at] and _kind(part) != _PARAM:
            return False
    return len(general) == len(parts)


def path_routes(
    context: str,
    parts: tuple[str, ...],
    base_path: str,
    *,
    single: bool = False,
    moves: bool = False,
) -> Iterator[PathRoute]:
    """The routes that match `parts` below `context` (`` for the root), rewritten to `base_path`.

    `single`: in one route, so that what counts per route counts both slash forms together.
    `moves`: a filter may change what stands below the context before the path is rewritten.
    """
    for route in _path_routes(context, parts, base_path, single=single):
        if moves:
            rewrite = {} if context == base_path else _swap(context, base_path)
            yield PathRoute(route.match, rewrite)
        else:
            yield route


def _path_routes(
    context: str, parts: tuple[str, ...], base_path: str, *, single: bool
) -> Iterator[PathRoute]:
    kinds = rank(parts)
    if _PARAM in kinds or (single and _REST not in kinds and context + "/".join(parts)):
        yield _template(context, parts, base_path)
    elif _REST in kinds:
        yield _prefix(context, "".join(f"/{part}" for part in parts[:-1]), base_path)
    else:
        below = "".join(f"/{part}" for part in parts)
        for tail in ("", "/"):
            public, upstream = context + below + tail, base_path + below + tail
            if not public:
                continue  # the root has one form only
            rewritten = upstream or "/"
            rewrite = {} if public == rewritten else {"prefix_rewrite": rewritten}
            yield PathRoute({"path": public}, rewrite)


def _prefix(context: str, below: str, base_path: str) -> PathRoute:
    public, upstream = context + below, base_path + below
    if public == upstream:
        rewrite: Document = {}
    elif public and upstream:
        rewrite = {"prefix_rewrite": upstream}
    else:
        rewrite = _swap(context, base_path)
    if not public:
        return PathRoute({"prefix": "/"}, rewrite)
    return PathRoute({"path_separated_prefix": public}, rewrite)


def _template(context: str, parts: tuple[str, ...], base_path: str) -> PathRoute:
    pattern = re.escape(context)
    for part in parts:
        match _kind(part):
            case 0:
                pattern += "/" + re.escape(part)
            case 1:
                pattern += "/[^/]+"
            case _:
                pattern += "(/.*)?"
    if _REST not in rank(parts):
        pattern += "/?"
    rewrite = {} if context == base_path else _swap(context, base_path)
    return PathRoute({"safe_regex": {"regex": pattern}}, rewrite)


def _swap(context: str, base_path: str) -> Document:
    """Replaces `context` in front of any path by `base_path`; either may be the root."""
    literal = base_path.replace("\\", "\\\\")
    if base_path and context:
        return _regex_rewrite("^" + re.escape(context), literal)
    if base_path:  # context is the root
        return _regex_rewrite("^/", literal + "/")
    # to the root: `/context` and `/context/` become `/`, `/context/x` becomes `/x`
    return _regex_rewrite("^" + re.escape(context) + "/?", "/")


def _regex_rewrite(pattern: str, substitution: str) -> Document:
    return {"regex_rewrite": {"pattern": {"regex": pattern}, "substitution": substitution}}
