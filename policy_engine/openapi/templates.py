"""Which path template of a document a path is meant by: concrete ones before templated ones."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from urllib.parse import unquote

from policy_engine.parameters.regex import Expression, expression

Value = TypeVar("Value")

_PARAMETER = re.compile(r"\{([^{}/]+)\}")


@dataclass(slots=True)
class _Node(Generic[Value]):
    literal: "dict[str, _Node[Value]]" = field(default_factory=dict)
    patterns: "list[tuple[Expression, tuple[str, ...], _Node[Value]]]" = field(default_factory=list)
    any: "_Node[Value] | None" = None
    value: Value | None = None
    names: tuple[str, ...] = ()  # of the parameters that fill whole segments


class Templates(Generic[Value]):
    """Path templates and what they stand for."""

    def __init__(self, values: Mapping[str, Value]) -> None:
        """Raises ValueError for a template that is none, or that means the same as another."""
        self._root: _Node[Value] = _Node()
        for template, value in values.items():
            self._add(template, value)

    def find(self, path: str) -> tuple[Value, dict[str, str]] | None:
        """What `path` (without its query) is, and the values of its parameters, decoded."""
        segments = [unquote(one) for one in _segments(path)]
        found = self._match(self._root, segments, 0, ())
        if found is None:
            return None
        node, values, named = found
        assert node.value is not None
        return node.value, dict(zip(node.names, values, strict=True)) | named

    def _add(self, template: str, value: Value) -> None:
        if not template.startswith("/"):
            raise ValueError(f"path {template!r} does not start with '/'")
        node, names = self._root, []
        for segment in _segments(template):
            whole = _PARAMETER.fullmatch(segment)
            if whole is not None:
                names.append(whole[1])
                node.any = node.any or _Node()
                node = node.any
            elif _PARAMETER.search(segment):
                node = _below(node, segment)
            else:
                node = node.literal.setdefault(segment, _Node())
        if node.value is not None:
            raise ValueError(f"path {template!r} means the same as another")
        node.value, node.names = value, tuple(names)

    def _match(
        self, node: _Node[Value], segments: list[str], at: int, values: tuple[str, ...]
    ) -> tuple[_Node[Value], tuple[str, ...], dict[str, str]] | None:
        if at == len(segments):
            return (node, values, {}) if node.value is not None else None
        segment = segments[at]
        literal = node.literal.get(segment)
        found = None if literal is None else self._match(literal, segments, at + 1, values)
        if found is not None:
            return found
        for pattern, names, below in node.patterns:
            match = pattern.fullmatch(segment)
            found = None if match is None else self._match(below, segments, at + 1, values)
            if match is not None and found is not None:
                return found[0], found[1], found[2] | dict(zip(names, match.groups(), strict=True))
        if node.any is None or not segment:
            return None
        return self._match(node.any, segments, at + 1, (*values, segment))


def _below(node: _Node[Value], segment: str) -> _Node[Value]:
    pieces = _PARAMETER.split(segment)  # literal, name, literal, name, ...
    text = "".join(
        "([^/]+?)" if position % 2 else re.escape(piece) for position, piece in enumerate(pieces)
    )
    compiled = expression(text)
    for pattern, _, below in node.patterns:
        if pattern is compiled:
            return below
    made: _Node[Value] = _Node()
    node.patterns.append((compiled, tuple(pieces[1::2]), made))
    return made


def _segments(path: str) -> Iterable[str]:
    """Of a path; a slash at its end does not count."""
    return path[1:].removesuffix("/").split("/") if len(path) > 1 else []
