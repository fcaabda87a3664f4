"""JSONPath as policies use it: one line that leads to a place in a document, or to several.

Member names, indices (negative ones from the end) and wildcards of RFC 9535, and members written
with a dot whose names hold `-`, as in `$.x-amz.content`. No filters, slices or descent: they cost
time that nobody can bound.

Source: https://www.rfc-editor.org/rfc/rfc9535
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Final

import orjson
from pydantic import AfterValidator, Field

Json = Any
"""What a JSON document holds."""


class _Every:
    """A wildcard."""


EVERY: Final = _Every()
Step = str | int | _Every

_STEP = re.compile(
    r"""\.\s*(?P<every>\*)
      | \.(?P<name>[^\s.\[\]'"*]+)
      | \[\s*(?P<index>-?(?:0|[1-9][0-9]{0,8}))\s*\]
      | \[\s*(?P<each>\*)\s*\]
      | \[\s*'(?P<single>(?:[^'\\]|\\.)*)'\s*\]
      | \[\s*(?P<double>"(?:[^"\\]|\\.)*")\s*\]""",
    re.VERBOSE,
)
_LONGEST = 1024


class Unresolved(LookupError):
    """The document has nothing where the path leads."""


@dataclass(frozen=True, slots=True)
class JsonPath:
    """A compiled path."""

    text: str
    steps: tuple[Step, ...]

    @property
    def whole(self) -> bool:
        """Whether it is the document itself."""
        return not self.steps

    def find(self, document: Json) -> list[Json]:
        """What is there, in order. Raises Unresolved when nothing is."""
        node = document
        for position, step in enumerate(self.steps):
            if isinstance(step, _Every):
                return list(self._some(node, position))
            try:
                node = _child(node, step)
            except (LookupError, TypeError):
                raise Unresolved(f"{self.text} leads nowhere") from None
        return [node]

    def replace(self, document: Json, new: Callable[[Json], Json]) -> Json:
        """The document with what is there replaced, in place as far as it can be.

        Raises Unresolved when nothing is there.
        """
        if not self.steps:
            return new(document)
        *above, last = self.steps
        replaced = False
        for parent in JsonPath(self.text, tuple(above)).find(document):
            keys = list(_keys(parent)) if isinstance(last, _Every) else [last]
            for key in keys:
                try:
                    parent[key] = new(_child(parent, key))
                except (LookupError, TypeError):
                    continue
                replaced = True
        if not replaced:
            raise Unresolved(f"{self.text} leads nowhere")
        return document

    def _some(self, node: Json, position: int) -> Iterator[Json]:
        below = JsonPath(self.text, self.steps[position + 1 :])
        found = False
        for key in _keys(node):
            try:
                every = below.find(node[key])
            except Unresolved:
                continue
            found = True
            yield from every
        if not found:
            raise Unresolved(f"{self.text} leads nowhere")


def _child(node: Json, step: Step) -> Json:
    if isinstance(node, list) is isinstance(step, str):
        raise TypeError
    return node[step]


def _keys(node: Json) -> Iterator[str | int]:
    if isinstance(node, dict):
        return iter(node)
    return iter(range(len(node))) if isinstance(node, list) else iter(())


@lru_cache(maxsize=512)
def json_path(text: str) -> JsonPath:
    """`text` compiled; empty and `$` are the whole document. Raises ValueError."""
    if not text:
        return JsonPath("$", ())
    if text[0] != "$":
        raise ValueError("must be a JSONPath that starts with '$', or empty for the whole body")
    steps: list[Step] = []
    at = 1
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None:
            raise ValueError(
                f"is not a JSONPath at {text[at : at + 20]!r}: names ('.name', \"['name']\"), "
                "indices ('[0]', '[-1]') and wildcards ('[*]', '.*') are known"
            )
        steps.append(_step(match))
        at = match.end()
    return JsonPath(text, tuple(steps))


def _step(match: re.Match[str]) -> Step:
    kind, text = match.lastgroup, match[match.lastgroup or 0]
    match kind:
        case "index":
            return int(text)
        case "name":
            return text
        case "single":
            inner = text.replace("\\'", "'").replace('"', '\\"')
            return _unquoted(f'"{inner}"')
        case "double":
            return _unquoted(text)
        case _:
            return EVERY


def _unquoted(text: str) -> str:
    try:
        return str(orjson.loads(text))
    except orjson.JSONDecodeError:
        raise ValueError(f"holds a name with a wrong escape: {text}") from None


def texts(value: Json) -> Iterator[str]:
    """Every string, number and truth value inside `value`, members in the order of their names."""
    match value:
        case str():
            yield value
        case bool():
            yield "true" if value else "false"
        case int() | float():
            yield orjson.dumps(value).decode() if _fits(value) else str(value)
        case dict():
            for name in sorted(value):
                yield from texts(value[name])
        case list():
            for one in value:
                yield from texts(one)


def _fits(value: float) -> bool:
    return isinstance(value, float) or -(1 << 63) <= value < 1 << 64


def _compiles(text: str) -> str:
    json_path(text)
    return text


JsonPathText = Annotated[str, Field(max_length=_LONGEST), AfterValidator(_compiles)]
"""A JSONPath, as text."""
