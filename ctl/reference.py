"""The reference of the command, from the command itself: `docs/cli.md`.

`python -m ctl.reference > docs/cli.md` writes it again.
"""

import sys
from collections.abc import Iterator
from enum import Enum
from typing import Any

import typer

from ctl.errors import ExitCode
from ctl.main import application

_HEAD = """\
# The `signalbox` command

Made from the command's own help by `python -m ctl.reference`; a test keeps it up to date.

Results go to standard output, everything else to standard error. Tables are for people; `-o json`,
`-o yaml` and `-o name` are for programs. Colours are shown on a terminal only; `NO_COLOR` and
`TERM=dumb` switch them off. `signalbox --install-completion` adds completion to bash, zsh or fish.

## Exit codes

| code | meaning |
|---|---|
"""
_CONNECTION = """
## Which gateway, and as whom

Commands that talk to a gateway take the first of: their flags, the environment, `client.json` in
the data folder (written by `signalbox up`), `http://127.0.0.1:9090`. A password of `client.json` is
only ever sent to the address that stands beside it.

| option | variable | meaning |
|---|---|---|
"""
_SHARED = ("url", "user", "password", "data")


def page() -> str:
    """The whole page."""
    root = typer.main.get_command(application())
    found = list(_commands(root, "signalbox"))
    codes = "".join(f"| {code:d} | {code.meaning} |\n" for code in ExitCode)
    shared = next(one for path, one in found if path == "signalbox get").params
    rows = "".join(_row(one) for one in shared if one.name in _SHARED)
    return _HEAD + codes + _CONNECTION + rows + "".join(_section(*one) for one in found)


def _commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - typer's, private
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, below in command.commands.items():
        yield from _commands(below, f"{path} {name}")


def _section(path: str, command: Any) -> str:  # noqa: ANN401
    about, _, examples = command.help.partition("Examples:")
    text = f"\n## `{path}`\n\n{about.replace(chr(8), '').strip()}\n"
    lines = [line.strip() for line in examples.splitlines() if line.strip()]
    if lines:
        text += "\n```sh\n" + "\n".join(lines) + "\n```\n"
    talks = {one.name for one in command.params} >= set(_SHARED)
    own = [one for one in command.params if not (talks and one.name in _SHARED)]
    if own:
        text += "\n| argument or option | variable | meaning |\n|---|---|---|\n"
        text += "".join(_row(one) for one in own)
    return text


def _row(parameter: Any) -> str:  # noqa: ANN401
    said = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
    if parameter.param_type_name == "argument":
        said = str(parameter.metavar or parameter.name.upper())
    elif not parameter.is_flag:
        said += f" {_value(parameter)}"
    if parameter.multiple or parameter.nargs == -1:
        said += " ..."
    meaning = str(parameter.help or "")
    default = parameter.default
    if default not in (None, False, (), []) and not callable(default):
        meaning += f" Default: `{getattr(default, 'value', default)}`."
    if parameter.required:
        meaning += " Required."
    variable = f"`{parameter.envvar}`" if parameter.envvar else ""
    return (
        "| " + " | ".join(cell.replace("|", "\\|") for cell in (said, variable, meaning)) + " |\n"
    )


def _value(parameter: Any) -> str:  # noqa: ANN401
    """What an option takes."""
    if parameter.metavar:
        return str(parameter.metavar)
    kind = parameter.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(one.value) for one in kind)
    return str(parameter.name).upper()


if __name__ == "__main__":
    sys.stdout.write(page())
