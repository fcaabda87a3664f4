"""Whether a new AsyncAPI document still keeps what an older one promised.

Both directions count: readers of the old document must find every field they know, and events of
old senders, which streams keep for a long time, must still be accepted.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import yaml

Schema = Mapping[str, Any]

_UPPER_BOUNDS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_LOWER_BOUNDS = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_EXACT = ("pattern", "format", "const", "multipleOf", "uniqueItems")
_ALTERNATIVES = ("anyOf", "oneOf")


def breaking_changes(before: str, after: str) -> tuple[str, ...]:
    """What `after` drops or narrows relative to `before`, one sentence each; none: compatible."""
    old, new = yaml.safe_load(before), yaml.safe_load(after)
    return tuple(_channels(old, new))


def may_break(before: str, after: str) -> bool:
    """Whether the version of `after` says that it breaks with `before`: a new major number.

    While that is 0, a new minor one. Source: https://semver.org, items 4 and 8.
    """
    old, new = (
        tuple(int(part) for part in yaml.safe_load(text)["info"]["version"].split("."))
        for text in (before, after)
    )
    return new[0] > old[0] or (old[0] == 0 and new[:2] > old[:2])


def _channels(old: Schema, new: Schema) -> Iterator[str]:
    for name, channel in old["channels"].items():
        successor = new["channels"].get(name)
        if successor is None:
            yield f"channel {name} is dropped"
            continue
        if channel["address"] != successor["address"]:
            yield f"channel {name} moved from {channel['address']} to {successor['address']}"
        for part in ("headers", "payload"):
            mine, theirs = _message(old, channel).get(part), _message(new, successor).get(part)
            if mine is not None:
                where = name if part == "payload" else f"{name} {part}"
                yield from _Comparison(old, new).narrowed(where, mine, theirs or {"not": {}})


def _message(document: Schema, channel: Schema) -> Schema:
    message: Schema = next(iter(channel["messages"].values()))
    return _resolved(document, message)


def _resolved(document: Schema, schema: Schema) -> Schema:
    while "$ref" in schema:
        found: Any = document
        for step in schema["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        schema = found
    return schema


class _Comparison:
    """Walks two schemas side by side, each with the document that its references point into."""

    def __init__(self, old: Schema, new: Schema) -> None:
        self._old = old
        self._new = new
        self._seen: set[tuple[str, str]] = set()

    def narrowed(self, where: str, old: Schema, new: Schema) -> Iterator[str]:
        """Sentences about what `new` refuses or lacks that `old` has."""
        pair = (old.get("$ref", ""), new.get("$ref", ""))
        if pair != ("", "") and pair in self._seen:
            return
        self._seen.add(pair)
        old, new = _resolved(self._old, old), _resolved(self._new, new)
        yield from self._types(where, old, new)
        yield from self._bounds(where, old, new)
        yield from self._properties(where, old, new)
        yield from self._inner(where, old, new)
        yield from self._alternatives(where, old, new)

    def _types(self, where: str, old: Schema, new: Schema) -> Iterator[str]:
        lost = _types(old) - _types(new)
        if "integer" in lost and "number" in _types(new):
            lost.discard("integer")
        if lost and _types(new):
            yield f"{where} may no longer be {' or '.join(sorted(lost))}"
        elif not _types(old) and _types(new) and not any(key in old for key in _ALTERNATIVES):
            yield f"{where} must now be {' or '.join(sorted(_types(new)))}"
        if "enum" in new:
            gone = [repr(v) for v in old.get("enum", ()) if v not in new["enum"]]
            if "enum" not in old:
                yield f"{where} is limited to {new['enum']}"
            elif gone:
                yield f"{where} may no longer be {', '.join(gone)}"
        if new.get("not") == {}:
            yield f"{where} is dropped"

    def _bounds(self, where: str, old: Schema, new: Schema) -> Iterator[str]:
        for key in _UPPER_BOUNDS:
            if key in new and new[key] < old.get(key, float("inf")):
                yield f"{where}: {key} is now {new[key]}, was {old.get(key, 'unbounded')}"
        for key in _LOWER_BOUNDS:
            if key in new and new[key] > old.get(key, float("-inf")):
                yield f"{where}: {key} is now {new[key]}, was {old.get(key, 'unbounded')}"
        for key in _EXACT:
            if key in new and new[key] != old.get(key):
                yield f"{where}: {key} is now {new[key]!r}, was {old.get(key)!r}"

    def _properties(self, where: str, old: Schema, new: Schema) -> Iterator[str]:
        properties = new.get("properties", {})
        for name, schema in old.get("properties", {}).items():
            if name not in properties:
                yield f"{where}.{name} is dropped"
            else:
                yield from self.narrowed(f"{where}.{name}", schema, properties[name])
        for name in new.get("required", ()):
            if name not in old.get("required", ()):
                yield f"{where}.{name} is now required"
        for name in old.get("required", ()):
            if name in properties and name not in new.get("required", ()):
                yield f"{where}.{name} may now be absent"

    def _inner(self, where: str, old: Schema, new: Schema) -> Iterator[str]:
        if "items" in new:
            yield from self.narrowed(f"{where}[]", old.get("items", {}), new["items"])
        values = new.get("additionalProperties", True)
        if values is False and old.get("additionalProperties", True) is not False:
            yield f"{where} no longer takes fields it does not know"
        elif isinstance(values, dict) and isinstance(old.get("additionalProperties"), dict):
            yield from self.narrowed(f"{where}.*", old["additionalProperties"], values)

    def _alternatives(self, where: str, old: Schema, new: Schema) -> Iterator[str]:
        mine, theirs = _alternatives(old), _alternatives(new)
        if not mine and not theirs:
            return
        for one in mine or (old,):
            if not any(self._covers(where, one, other) for other in theirs or (new,)):
                yield f"{where} no longer takes {_words(one)}"

    def _covers(self, where: str, old: Schema, new: Schema) -> bool:
        fresh = _Comparison(self._old, self._new)
        fresh._seen = set(self._seen)
        return not any(fresh.narrowed(where, old, new))


def _types(schema: Schema) -> set[str]:
    said = schema.get("type", [])
    return {said} if isinstance(said, str) else set(said)


def _alternatives(schema: Schema) -> tuple[Schema, ...]:
    return tuple(one for key in _ALTERNATIVES for one in schema.get(key, ()))


def _words(schema: Schema) -> str:
    reference = schema.get("$ref", "")
    return reference.rpartition("/")[2] or str(schema.get("type", dict(schema)))
