"""How `--help` lists commands: by section, each with its whole first sentence."""

from collections import defaultdict
from typing import Any

from typer.core import TyperGroup

WIDTH = 100
"""Columns that a help text may use."""

_ORDER = ("Gateway", "Resources", "Observe", "Reference")


class Sections(TyperGroup):
    """A group whose commands are listed by section."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - typer's, private
        """Write the commands, a heading for each section."""
        found = defaultdict(list)
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                section = getattr(command, "rich_help_panel", None)
                heading = section if isinstance(section, str) else "Commands"
                found[heading].append((name, command.get_short_help_str(limit=2 * WIDTH)))
        for heading in (*_ORDER, *sorted(set(found) - set(_ORDER))):
            if heading in found:
                with formatter.section(heading):
                    formatter.write_dl(found[heading])
