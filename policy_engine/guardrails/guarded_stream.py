"""A streamed text that is judged while it passes: who watches says what becomes of each part."""

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import orjson

from policy_engine.bodies.content_coding import Decoder
from policy_engine.bodies.event_stream import DONE, Event, EventStream
from policy_engine.bodies.json_path import JsonPath, Unresolved, texts
from policy_engine.hooks import Outside
from policy_engine.system import SystemParameters

LONGEST_HELD_BYTES: Final = 4 << 20
"""How much of an answer is held back until it can be judged."""

LONGEST_TEXT: Final = 1 << 20
"""How much text of a stream is looked at, characters."""


class NotInspected(Exception):
    """The content cannot be looked at: it is not there, not text, too long."""


@dataclass(frozen=True, slots=True)
class Violation:
    """Why a message does not pass."""

    assessment: object = None  # JSON-shaped details
    reason: str | None = None  # None: the guardrail's own


@dataclass(frozen=True, slots=True)
class World:
    """What a judgement may use beside the text."""

    outside: Outside
    system: SystemParameters


Judgement = Violation | None
Step = Literal["pass", "hold"] | Violation
"""What becomes of a part of a stream: it passes with all that was held, waits, or is refused."""


class Judge(Protocol):
    """Knows what is wrong with a text."""

    def judged(self, text: str, world: World) -> Judgement | Awaitable[Judgement]:
        """What is wrong with `text`. Raises NotInspected."""
        ...


class Watch(Protocol):
    """Judges one stream."""

    def add(self, piece: str, world: World, *, ended: bool) -> Step | Awaitable[Step]:
        """What becomes of the part that ends with `piece`. Raises NotInspected."""
        ...


class WaitsForTheEnd:
    """Nothing passes before the whole text is judged."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._pieces: list[str] = []
        self._length = 0

    def add(self, piece: str, world: World, *, ended: bool) -> Step | Awaitable[Step]:
        """Hold, and judge at the end. Raises NotInspected."""
        self._pieces.append(piece)
        self._length += len(piece)
        if self._length > LONGEST_TEXT:
            raise too_long()
        if not ended:
            return "hold"
        found = self._judge.judged("".join(self._pieces), world)
        return _awaited(found) if isinstance(found, Awaitable) else found or "pass"


async def _awaited(found: Awaitable[Judgement]) -> Step:
    return await found or "pass"


def too_long() -> NotInspected:
    """A stream has more text than is looked at."""
    return NotInspected(f"the text is longer than {LONGEST_TEXT} characters")


class GuardedStream:
    """A stream of events on its way to the caller; only whole events pass."""

    def __init__(self, watch: Watch, path: JsonPath, decoder: Decoder | None = None) -> None:
        """`path` leads to a piece of the text in the data of an event."""
        self._watch = watch
        self._path = path
        self._decoder = decoder
        self._events = EventStream()
        self._held = bytearray()
        self._step: Step = "pass"
        self._ended = False

    def add(
        self, chunk: bytes, world: World, *, last: bool
    ) -> bytes | Violation | Awaitable[bytes | Violation]:
        """What the caller gets after `chunk` has come, or why no more.

        Raises NotInspected, Unreadable and EventTooLong.
        """
        content = chunk if self._decoder is None else self._decoder.add(chunk)
        events = self._events.add(content, last=last)
        pieces = "".join(self._piece(event) for event in events)
        self._held += b"".join(event.raw for event in events)
        self._ended = self._ended or last
        if pieces or self._ended:
            step = self._watch.add(pieces, world, ended=self._ended)
            if isinstance(step, Awaitable):
                return self._after(step)
            self._step = step
        return self._released()

    async def _after(self, step: Awaitable[Step]) -> bytes | Violation:
        self._step = await step
        return self._released()

    def _released(self) -> bytes | Violation:
        if isinstance(self._step, Violation):
            return self._step
        if self._step == "hold":
            if len(self._held) > LONGEST_HELD_BYTES:
                raise NotInspected(
                    f"longer than {LONGEST_HELD_BYTES} bytes before it can be judged"
                )
            return b""
        released = bytes(self._held)
        self._held.clear()
        return released

    def _piece(self, event: Event) -> str:
        """The text in an event; what is not JSON is text itself."""
        data = event.data
        if not data:
            return ""
        if data.strip() == DONE:
            self._ended = True
            return ""
        if self._path.whole:
            return data.decode("utf-8", "replace")
        try:
            return "".join(texts(self._path.find(orjson.loads(data))))
        except Unresolved:
            return ""
        except orjson.JSONDecodeError:
            return data.decode("utf-8", "replace")
