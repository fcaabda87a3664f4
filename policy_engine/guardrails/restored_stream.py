"""A streamed answer in which placeholders come up, cut over events, and originals take their place.

Source: the stream formats of OpenAI (chat, completions, responses), Anthropic, Gemini, Bedrock
"""

from typing import Final

import orjson

from policy_engine.bodies.event_stream import DONE, Event, EventStream
from policy_engine.bodies.json_path import Json, JsonPath, Unresolved, json_path
from policy_engine.guardrails.placeholders import Originals

_TEXT: Final = tuple(
    json_path(one)
    for one in (
        "$.choices[0].delta.content",
        "$.choices[0].text",
        "$.delta.text",
        "$.candidates[0].content.parts[0].text",
        "$.contentBlockDelta.delta.text",
        "$.delta",
        "$.message.content",
    )
)
"""Where the text of a piece is, whoever sends it; the first that is there counts."""


class RestoredBody:
    """A body in parts that is no stream of events: only a placeholder's beginning waits."""

    def __init__(self, originals: Originals, *, json: bool) -> None:
        """`json`: originals are put inside JSON strings."""
        self._originals = originals
        self._json = json
        self._waiting = ""

    def add(self, part: bytes, *, last: bool = False) -> bytes:
        """What the caller gets after `part` has come."""
        text = self._waiting + part.decode("latin-1")  # any bytes, one character each
        begun = 0 if last else self._originals.begun(text)
        ready, self._waiting = text[: len(text) - begun], text[len(text) - begun :]
        content = ready.encode("latin-1")
        if self._json:
            return self._originals.restored_json(content)
        return self._originals.restored(content)


class RestoredEvents:
    """A stream of events: the text of an event waits while it may begin a placeholder."""

    def __init__(self, originals: Originals) -> None:
        self._originals = originals
        self._events = EventStream()
        self._waiting: dict[object, str] = {}  # by choice
        self._latest: dict[object, tuple[Event, Json, JsonPath]] = {}

    def add(self, part: bytes, *, last: bool = False) -> bytes:
        """What the caller gets after `part` has come. Raises EventTooLong."""
        restored = [self._restored(event) for event in self._events.add(part, last=last)]
        if last:
            restored.append(self._flushed())
        return b"".join(restored)

    def _restored(self, event: Event) -> bytes:
        data = event.data
        if not data:
            return event.raw
        if data.strip() == DONE:
            return self._flushed() + event.raw
        try:
            document = orjson.loads(data)
        except orjson.JSONDecodeError:
            return _with_data(event, data, self._originals.restored(data))
        found = _text_of(document)
        if found is None:
            return self._flushed() + _with_data(event, data, self._originals.restored_json(data))
        path, piece = found
        choice = _choice(document, path)
        text = self._waiting.pop(choice, "") + piece
        begun = self._originals.begun(text)
        if begun:
            self._waiting[choice] = text[len(text) - begun :]
            self._latest[choice] = (event, document, path)
            text = text[: len(text) - begun]
        text = self._originals.restored(text.encode()).decode()
        return event.raw if text == piece else _with_text(event, document, path, text)

    def _flushed(self) -> bytes:
        """What waited was no placeholder: events of their own, like those they came with."""
        waiting, self._waiting = self._waiting, {}
        return b"".join(_with_text(*self._latest[choice], text) for choice, text in waiting.items())


def _with_data(event: Event, data: bytes, new: bytes) -> bytes:
    return event.raw if new == data else event.with_data(new).raw


def _text_of(document: Json) -> tuple[JsonPath, str] | None:
    for path in _TEXT:
        try:
            (found,) = path.find(document)
        except Unresolved:
            continue
        if isinstance(found, str):
            return path, found
    return None


def _choice(document: Json, path: JsonPath) -> object:
    """Which of several texts of one answer a piece belongs to."""
    match document:
        case {"choices": [{"index": index}, *_]}:
            return (path.text, index)
        case {"index": index}:
            return (path.text, index)
        case {"output_index": index}:
            return (path.text, index)
        case _:
            return path.text


def _with_text(event: Event, document: Json, path: JsonPath, text: str) -> bytes:
    return event.with_data(orjson.dumps(path.replace(document, lambda _: text))).raw
