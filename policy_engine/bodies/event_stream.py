"""Server-sent events in a body that arrives in parts, cut anywhere.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from policy_engine.hooks import Headers

LONGEST_EVENT_BYTES: Final = 4 << 20
DONE: Final = b"[DONE]"
"""The data of the event with which streams of language models end."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANK_LINE = re.compile(rb"\r\n\r\n|\n\n|\r\r|\n\r\n|\r\n\n")


class EventTooLong(Exception):
    """An event does not end."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event, as it came."""

    raw: bytes  # with the blank line that ends it

    @property
    def data(self) -> bytes:
        """Its data, lines joined; empty for a comment."""
        lines: list[bytes] = []
        for line in self.raw.splitlines():
            name, colon, value = line.partition(b":")
            if name.removeprefix(_BYTE_ORDER_MARK) == b"data":
                lines.append(value[1:] if colon and value[:1] == b" " else value)
        return b"\n".join(lines)

    def with_data(self, data: bytes) -> "Event":
        """The same event with other data of one line."""
        lines: list[bytes] = []
        written = False
        for line in self.raw.splitlines(keepends=True):
            name = line.partition(b":")[0].rstrip(b"\r\n").removeprefix(_BYTE_ORDER_MARK)
            if name != b"data":
                lines.append(line)
            elif not written:
                lines.append(b"data: " + data + line[len(line.rstrip(b"\r\n")) :])
                written = True
        return Event(b"".join(lines))


class EventStream:
    """Takes parts, gives the events that are whole."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def add(self, part: bytes, *, last: bool = False) -> list[Event]:
        """The events that `part` completes; `last`: what is left is one, too.

        Raises EventTooLong.
        """
        rest = self._rest
        searched = max(0, len(rest) - 3)
        rest += part
        ends = [match.end() for match in _BLANK_LINE.finditer(rest, searched)]
        events = [Event(bytes(rest[start:end])) for start, end in pairwise([0, *ends])]
        if ends:
            del rest[: ends[-1]]
        if last and rest:
            events.append(Event(bytes(rest)))
            rest.clear()
        if len(rest) > LONGEST_EVENT_BYTES:
            rest.clear()
            raise EventTooLong(f"an event of the answer is longer than {LONGEST_EVENT_BYTES} bytes")
        return events


def is_event_stream(headers: Headers) -> bool:
    """Whether the message says that it is one."""
    return (headers.get("content-type") or "").lower().startswith("text/event-stream")
