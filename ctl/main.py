"""The `signalbox` command: its groups of commands, its errors, its exit code."""

import sys
from collections import defaultdict
from typing import Any

import typer
from typer.core import TyperGroup

from ctl.commands import apply, catalogue, events, imports, keys, resources
from ctl.errors import CtlError, ExitCode
from ctl.output import complain

_SECTIONS = ("Gateway", "Resources", "Observe", "Reference")
_DOC = """An API gateway whose control plane is a stream of events.

`signalbox up` starts one here, `signalbox apply -f FILE` gives it APIs.

\b
Examples:
  signalbox up --demo
  signalbox import openapi petstore.json --upstream https://petstore.example.com/v2 --apply
  signalbox get apis
  signalbox usage --since 1h

\b
Exit codes:
"""


class Sections(TyperGroup):
    """A group whose commands are listed by section."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - typer's own, private
        """Write the commands, a heading for each section."""
        found = defaultdict(list)
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                section = getattr(command, "rich_help_panel", None)
                heading = section if isinstance(section, str) else "Commands"
                found[heading].append((name, command.get_short_help_str(limit=72)))
        order = [*_SECTIONS, *sorted(set(found) - set(_SECTIONS))]
        for heading in (one for one in order if one in found):
            with formatter.section(heading):
                formatter.write_dl(found[heading])


def application() -> typer.Typer:
    """The command with all its commands; nothing heavy is imported for it."""
    app = typer.Typer(
        name="signalbox",
        cls=Sections,
        help=_DOC + "\n".join(f"  {code:<4} {code.meaning}" for code in ExitCode),
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for group in (apply, resources, keys, imports, events, catalogue):
        group.register(app)
    return app


def _root() -> None:
    """Leave the help text to `application`."""


def main() -> None:
    """Run the command of this process; never returns."""
    try:
        application()()
    except CtlError as error:
        complain(error)
        sys.exit(error.exit_code)
