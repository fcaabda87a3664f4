"""`signalbox plan`: what files would change, and what that means to the routers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctl import output
from ctl.context import Connection, connected
from ctl.errors import ExitCode, Misused, Refused
from ctl.output import Format
from ctl.progress import progress

if TYPE_CHECKING:
    from ctl.documents import Document
    from ctl.effects import Planned

CHANGES = 2
"""Exit code when something would change, as other planning tools have it."""

Files = Annotated[
    list[str],
    typer.Option("--file", "-f", metavar="FILE|DIR|-", help="What to plan; may be repeated."),
]


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Resources")(connected(plan))


async def plan(
    connection: Connection,
    files: Files,
    prune: Annotated[
        bool, typer.Option("--prune", help="Show what `apply --prune` would delete, too.")
    ] = False,
    applied_set: Annotated[
        str | None,
        typer.Option("--applied-set", metavar="NAME", help="The set that --prune looks at."),
    ] = None,
    selector: Annotated[
        str | None,
        typer.Option(
            "--selector", "-l", metavar="LABELS", help="What --prune looks at: key=value,..."
        ),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Ask no gateway: nothing is compared, all else is told."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as -o json.")] = False,
    output_format: output.Output = Format.TABLE,
) -> None:
    """Show what `apply` would change: fields, routes, where each policy runs, Envoy's verdict.

    The gateway checks the documents as if they were applied, compiles them, and asks Envoy itself
    whether it would take them. Nothing is stored and nothing reaches a router. Secret parameters
    are not shown.

    Exit code 0: nothing would change. 2: something would. 1: a document is invalid, in conflict, or
    Envoy refuses it.

    \b
    Examples:
      signalbox plan -f petstore.yaml
      signalbox plan -f apis/ --applied-set shop --prune
      signalbox plan -f apis/ --json
      signalbox plan -f apis/ --offline
    """
    from ctl import documents, effects, selection  # noqa: PLC0415 - only what is planned is parsed

    if prune and (offline or not (applied_set or selector)):
        raise Refused("--prune needs a gateway, and --applied-set NAME or --selector LABELS")
    try:
        terms = selection.parse(selector) if selector else ()
        wanted = documents.load(files)
    except Misused as error:  # 2 is taken: it says that something would change
        raise Refused(error.message, error.details) from error
    if applied_set:
        wanted = [one.annotated(selection.APPLIED_SET, applied_set) for one in wanted]
    if offline:
        planned = await effects.offline(wanted)
    else:
        planned = await _asked(connection, wanted, terms, applied_set, prune=prune)
    if as_json:
        output_format = Format.JSON
    _show(planned, output_format, offline=offline)
    if any(one.problems for one in planned):
        raise typer.Exit(ExitCode.REFUSED)
    if not offline and any(one.changes for one in planned):
        raise typer.Exit(CHANGES)


async def _asked(
    connection: Connection,
    wanted: "Sequence[Document]",
    terms: Any,  # noqa: ANN401 - tuple[selection.Term, ...]
    applied_set: str | None,
    *,
    prune: bool,
) -> "list[Planned]":
    from ctl import effects, plan  # noqa: PLC0415
    from ctl.client import connect  # noqa: PLC0415

    async with connect(connection) as client:
        with progress("comparing", len(wanted)) as advance:
            steps = await plan.steps(client, wanted, advance)
        extra = await plan.superfluous(client, wanted, terms, applied_set) if prune else []
        return await effects.planned(client, [*steps, *extra])


def _show(planned: "Sequence[Planned]", form: Format, *, offline: bool) -> None:
    match form:
        case Format.JSON:
            output.say(output.as_json([one.as_document() for one in planned]))
        case Format.YAML:
            output.say(output.as_yaml([one.as_document() for one in planned]).rstrip("\n"))
        case Format.NAME:
            for one in planned:
                if one.changes:
                    output.say(one.label)
        case Format.TABLE:
            for one in planned:
                for line in one.lines():
                    output.say(line)
    counts: dict[str, int] = {}
    for one in planned:
        counts[one.would_be] = counts.get(one.would_be, 0) + 1
    problems = sum(bool(one.problems) for one in planned)
    told = [f"{count} {word}" for word, count in counts.items()]
    if problems:
        told.append(f"{problems} with problems")
    compared = "; nothing was compared" if offline else ""
    output.note(", ".join(told) + compared + "; nothing was sent")
