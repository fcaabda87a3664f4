"""Personal data taken out of a text, and put back where its placeholders come up again."""

from collections.abc import Mapping
from functools import cached_property
from typing import Final

import orjson

from policy_engine.parameters.regex import Expression, Match, expression

REDACTED: Final = "*****"
_PLACEHOLDER: Final = r"\[[A-Z_]+_[0-9a-f]{4,8}\]"


class Masking:
    """What was found in the texts of one message; equal finds get equal placeholders."""

    def __init__(
        self, entities: Mapping[str, Expression], *, redact: bool = False, taken: str = ""
    ) -> None:
        """`entities` say what to look for, by the name that placeholders carry.

        Placeholders that occur in `taken`, all that the message says, are not used.
        """
        self._entities = entities
        self._redact = redact
        found = expression(_PLACEHOLDER).finditer(taken.encode()) if "[" in taken else ()
        self._taken = {match.group().decode() for match in found}
        self._placeholders: dict[bytes, str] = {}  # by what they stand for
        self._numbers: dict[str, int] = {}

    @property
    def originals(self) -> dict[str, str]:
        """What each placeholder stands for."""
        return {place: original.decode() for original, place in self._placeholders.items()}

    def masked(self, text: str) -> str:
        """`text` with placeholders.

        Of finds that overlap the one that begins first counts, then that of the first entity.
        """
        content = text.encode()
        finds = [
            (match.start(), order, match.end(), entity)
            for order, (entity, found) in enumerate(self._entities.items())
            for match in found.finditer(content)
        ]
        if not finds:
            return text
        pieces: list[str] = []
        at = 0
        for start, _, end, entity in sorted(finds):
            if start >= at:
                pieces += (content[at:start].decode(), self._stands_for(content[start:end], entity))
                at = end
        return "".join((*pieces, content[at:].decode()))

    def _stands_for(self, original: bytes, entity: str) -> str:
        if self._redact:
            return REDACTED
        while original not in self._placeholders:
            number = self._numbers.get(entity, 0)
            self._numbers[entity] = number + 1
            placeholder = f"[{entity}_{number:04x}]"
            if placeholder not in self._taken:
                self._placeholders[original] = placeholder
        return self._placeholders[original]


class Originals:
    """Puts back what placeholders stand for, in any bytes."""

    def __init__(self, originals: Mapping[str, str]) -> None:
        self._placeholders = tuple(originals)
        self._plain = {one.encode(): original.encode() for one, original in originals.items()}
        self._escaped = {
            one.encode(): orjson.dumps(original)[1:-1] for one, original in originals.items()
        }

    def restored(self, content: bytes) -> bytes:
        """`content` with the originals."""
        return _replaced(content, self._plain)

    def restored_json(self, content: bytes) -> bytes:
        """JSON with the originals inside its strings."""
        return _replaced(content, self._escaped)

    def begun(self, text: str) -> int:
        """How many characters at the end of `text` may be the beginning of a placeholder."""
        at = text.rfind("[", max(0, len(text) - self._longest))
        if at < 0:
            return 0
        tail = text[at:]
        begins = any(one.startswith(tail) and one != tail for one in self._placeholders)
        return len(tail) if begins else 0

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._placeholders), default=0)


def _replaced(content: bytes, originals: Mapping[bytes, bytes]) -> bytes:
    def original(match: Match[bytes]) -> bytes:
        return originals.get(match.group(), match.group())

    return expression(_PLACEHOLDER).sub(original, content) if b"[" in content else content
