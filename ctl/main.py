"""The `signalbox` command: its groups of commands, its errors, its exit code."""

import sys

import typer

from ctl import lifecycle
from ctl.commands import (
    applications,
    apply,
    catalogue,
    events,
    imports,
    keys,
    plan,
    plans,
    policies,
    resources,
    status,
    subscriptions,
    usage,
)
from ctl.errors import CtlError, ExitCode
from ctl.output import complain
from ctl.sections import WIDTH, Sections

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


def application() -> typer.Typer:
    """The command with all its commands; nothing heavy is imported for it."""
    app = typer.Typer(
        name="signalbox",
        cls=Sections,
        help=_DOC + "\n".join(f"  {code:<4} {code.meaning}" for code in ExitCode),
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH},
    )
    app.callback()(_root)
    lifecycle.register(app)
    resourceful = (apply, plan, resources, keys, applications, plans, subscriptions, imports)
    for group in (*resourceful, status, usage, events, policies, catalogue):
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
