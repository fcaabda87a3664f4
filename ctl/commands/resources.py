"""`signalbox get` and `signalbox delete`."""

import sys
from typing import Annotated, Any

import typer

from ctl import kinds, output
from ctl.context import Connection, connected
from ctl.errors import ExitCode, Misused, NotFound
from ctl.output import Format

Json = dict[str, Any]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel="Resources")(connected(get))
    app.command(rich_help_panel="Resources")(connected(delete))


def complete_kind(incomplete: str) -> list[str]:
    """Words for a kind, as completion offers them."""
    return [word for word in kinds.words() if word.startswith(incomplete)]


KindWord = Annotated[
    str,
    typer.Argument(metavar="KIND", help="Such as `apis`.", autocompletion=complete_kind),
]


async def get(
    connection: Connection,
    kind: KindWord,
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Only these.")] = None,
    selector: Annotated[
        str | None,
        typer.Option("--selector", "-l", metavar="LABELS", help="Only with labels: key=value,..."),
    ] = None,
    display_name: Annotated[
        str | None, typer.Option("--display-name", metavar="TEXT", help="Only with this name.")
    ] = None,
    version: Annotated[
        str | None, typer.Option("--version", metavar="TEXT", help="Only of this version.")
    ] = None,
    context: Annotated[
        str | None, typer.Option("--context", metavar="PATH", help="Only at this context.")
    ] = None,
    state: Annotated[
        str | None,
        typer.Option("--state", metavar="TEXT", help="Only `deployed` or only `undeployed`."),
    ] = None,
    output_format: output.Output = Format.TABLE,
) -> None:
    """Show resources: APIs with what the routers made of them, plans, applications, subscriptions.

    What -o yaml and -o json print can be applied again.

    \b
    Examples:
      signalbox get apis
      signalbox get api petstore -o yaml
      signalbox get apis -l team=shop -o name
      signalbox get subscriptions -o yaml
    """
    from ctl import selection  # noqa: PLC0415
    from ctl.client import connect  # noqa: PLC0415
    from ctl.shelf import Shelf  # noqa: PLC0415

    wanted = kinds.by_word(kind)
    query = {
        "displayName": display_name,
        "version": version,
        "context": context,
        "status": state,
    }
    terms = selection.parse(selector) if selector else ()
    if names and (terms or any(query.values())):
        raise Misused("give either names, or --selector and other conditions")
    if wanted.record is not None and (terms or any(query.values())):
        raise Misused(f"--selector and other conditions are for APIs, not for {wanted.aliases[0]}")
    async with connect(connection) as client:
        shelf = Shelf(client)
        if names:
            found = [await shelf.get(wanted, name) for name in names]
        else:
            listed = await shelf.listed(wanted, query)
            found = [one for one in listed if selection.selected(one, terms)]
            found.sort(key=name_of)
    _show(wanted, found, output_format, single=len(names or ()) == 1)


async def delete(
    connection: Connection,
    kind: Annotated[
        str | None,
        typer.Argument(metavar="KIND", help="Such as `api`.", autocompletion=complete_kind),
    ] = None,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="What to delete.")
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option("--file", "-f", metavar="FILE|DIR|-", help="Delete what these files hold."),
    ] = None,
    ignore_not_found: Annotated[
        bool, typer.Option("--ignore-not-found", help="What is not there is deleted already.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until it is gone from all routers.")
    ] = True,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0, metavar="SECONDS", help="How long to wait.")
    ] = 30,
) -> None:
    """Delete resources, and wait until APIs are gone from the routers.

    \b
    Examples:
      signalbox delete api petstore
      signalbox delete -f petstore.yaml --ignore-not-found
    """
    from ctl import plan, rollout  # noqa: PLC0415
    from ctl.client import connect  # noqa: PLC0415

    if bool(files) == bool(kind):
        raise Misused("give either a kind and names, or files with -f")
    if kind and not names:
        raise Misused("give the names of what to delete")
    if files:
        from ctl import documents  # noqa: PLC0415

        targets = [(one.kind, one.name) for one in documents.load(files)]
    else:
        wanted = kinds.by_word(kind or "")
        targets = [(wanted, name) for name in names or ()]
    steps = [plan.Step(plan.Action.DELETE, one, name) for one, name in targets]

    def tell(outcome: rollout.Outcome) -> None:
        if not (ignore_not_found and isinstance(outcome.error, NotFound)):
            rollout.tell(outcome)

    async with connect(connection) as client:
        outcomes = await rollout.carry_out(client, steps, timeout_s if wait else None, tell)
    missing = [one for one in outcomes if isinstance(one.error, NotFound)]
    code = rollout.exit_code(one for one in outcomes if one not in missing)
    if missing and not ignore_not_found and code is ExitCode.OK:
        code = ExitCode.NOT_FOUND
    if code is not ExitCode.OK:
        raise typer.Exit(code)


def name_of(resource: Json) -> str:
    """A resource's handle."""
    return str(resource["metadata"]["name"])


def _show(kind: kinds.Kind, found: list[Json], form: Format, *, single: bool) -> None:
    match form:
        case Format.JSON:
            output.say(output.as_json(found[0] if single else found))
        case Format.YAML:
            sys.stdout.write("---\n".join(output.as_yaml(one) for one in found))
        case Format.NAME:
            for one in found:
                output.say(kind.label(name_of(one)))
        case Format.TABLE if not found:
            output.note(f"no {kind.aliases[0]} found")
        case _:
            output.table(
                ("NAME", *(title for title, _ in kind.columns)),
                ([name_of(one), *(cell(one) for _, cell in kind.columns)] for one in found),
            )
