"""What a command prints: tables for people, documents for programs; notes go to stderr.

Colour and rules only on a terminal that wants them (`NO_COLOR` is honoured); in a pipe a table is
plain columns, never cut.
"""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer

from ctl.errors import CtlError


class Format(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


class DocumentFormat(StrEnum):
    """How one document is printed."""

    YAML = "yaml"
    JSON = "json"


Output = Annotated[
    Format,
    typer.Option("--output", "-o", help="How to print: a table, or for programs."),
]
DocumentOutput = Annotated[DocumentFormat, typer.Option("--output", "-o", help="How to print it.")]

_STYLES = {
    "live": "green",
    "deployed": "green",
    "connected": "green",
    "healthy": "green",
    "created": "green",
    "updated": "yellow",
    "pending": "yellow",
    "expired": "yellow",
    "undeployed": "yellow",
    "deleted": "red",
    "refused": "red",
    "rejected": "red",
    "failed": "red",
    "disconnected": "red",
}


def say(text: str = "") -> None:
    """Print a line of the result, at once."""
    print(text, flush=True)


def note(text: str) -> None:
    """Print a line for the user, beside the result."""
    print(text, file=sys.stderr, flush=True)


def complain(error: CtlError) -> None:
    """Print what went wrong."""
    text = f"signalbox: {error.message}"
    note(typer.style(text, fg=typer.colors.RED) if colourful(sys.stderr.isatty()) else text)
    for detail in error.details:
        note(f"  {detail}")


def colourful(terminal: bool) -> bool:
    """Whether colours are wanted on a stream that is a terminal or not."""
    return terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def as_json(content: object) -> str:
    """`content` as indented JSON."""
    return json.dumps(content, indent=2, ensure_ascii=False)


def one_line(content: object) -> str:
    """`content` as compact JSON."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"))


def as_yaml(content: object) -> str:
    """`content` as a YAML document in the order of its keys, with a final newline."""
    import yaml  # noqa: PLC0415 - commands that print no YAML start sooner

    class Plain(yaml.CSafeDumper):
        """No anchors: documents are for people."""

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ANN401, ARG002 - PyYAML's signature
            return True

    text: str = yaml.dump(content, Dumper=Plain, sort_keys=False, allow_unicode=True, width=100)
    return text


def document(content: object, form: DocumentFormat) -> None:
    """Print one document."""
    say((as_json(content) if form is DocumentFormat.JSON else as_yaml(content)).rstrip("\n"))


def result(
    content: object, form: Format, *, names: Iterable[object], table: Callable[[], None]
) -> None:
    """Print `content` for programs, `names` alone, or the `table`."""
    match form:
        case Format.JSON:
            say(as_json(content))
        case Format.YAML:
            say(as_yaml(content).rstrip("\n"))
        case Format.NAME:
            for name in names:
                say(str(name))
        case Format.TABLE:
            table()


def table(header: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> None:
    """Print columns; those numbered in `right` are aligned to the right."""
    lines = [list(row) for row in rows]
    to_right = frozenset(right)
    if colourful(sys.stdout.isatty()):
        _rich_table(header, lines, to_right)
    else:
        say(plain_table(header, lines, to_right))


def plain_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()
) -> str:
    """Columns two spaces apart, without trailing spaces."""
    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _rich_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int]
) -> None:
    from rich.console import Console  # noqa: PLC0415 - only terminals need it
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    drawn = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column, title in enumerate(header):
        drawn.add_column(title, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    Console().print(drawn)
