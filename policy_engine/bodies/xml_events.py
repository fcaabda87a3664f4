"""XML as a parser's events: whole documents, read by whoever wants to know what is in them."""

from typing import Final, Protocol
from xml.parsers import expat

UNREADABLE: Final = (expat.ExpatError, LookupError, ValueError)
"""What `read` raises for what is no XML, or in no encoding that is known."""


class Reading(Protocol):
    """What becomes of the events."""

    def doctype(self, *_: object) -> None:
        """A document type begins: to be refused, it can name files and grow without end."""
        ...

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """An element begins."""
        ...

    def end(self, name: str) -> None:
        """An element ends."""
        ...

    def characters(self, text: str) -> None:
        """Text of the innermost open element, maybe not all of it."""
        ...


def read(data: bytes, reading: Reading, encoding: str | None, separator: str | None = None) -> None:
    """Tell `reading` what is in `data`. Raises one of UNREADABLE, or what `reading` raises.

    `encoding`: None when the document says it. `separator`: between the namespace and the name of
    elements and attributes; None leaves prefixes as they are written.
    """
    parser = expat.ParserCreate(encoding, separator)
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = reading.doctype
    parser.StartElementHandler = reading.start
    parser.EndElementHandler = reading.end
    parser.CharacterDataHandler = reading.characters
    parser.Parse(data, True)
