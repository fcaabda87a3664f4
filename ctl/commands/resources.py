"""`signalbox get` and `signalbox delete`."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctl import kinds, output
from ctl.context import Connection, connected
from ctl.errors import CtlError, ExitCode, Misused, NotFound
from ctl.output import Format

if TYPE_CHECKING:
    from ctl.client import Client

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
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these.")
    ] = None,
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
    """Show resources, with what the routers made of them.

    -o yaml prints them as they were applied, so that they can be applied again.

    \b
    Examples:
      signalbox get apis
      signalbox get api petstore -o yaml
      signalbox get apis -l team=shop -o name
    """
    from ctl import selection  # noqa: PLC0415
    from ctl.client import connect  # noqa: PLC0415

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
    async with connect(connection) as client:
        if names:
            found = [await client.get(wanted.collection, name) for name in names]
        else:
            answer = await client.request("GET", f"/{wanted.collection}", query=query)
            found = [one for one in answer[wanted.list_key] if selection.selected(one, terms)]
            found.sort(key=name_of)
            if output_format in (Format.JSON, Format.YAML):
                found = await _as_applied(client, wanted, found)
    _show(wanted, found, output_format, single=len(names or ()) == 1)


async def delete(
    connection: Connection,
    kind: Annotated[
        str | None,
        typer.Argument(metavar="[KIND", help="Such as `api`.", autocompletion=complete_kind),
    ] = None,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...]", help="What to delete.")
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Option("--file", "-f", metavar="FILE|DIR|-", help="Delete what these files hold."),
    ] = None,
    ignore_not_found: Annotated[
        bool, typer.Option("--ignore-not-found", help="What is not there is deleted already.")
    ] = False,
) -> None:
    """Delete resources.

    \b
    Examples:
      signalbox delete api petstore
      signalbox delete -f petstore.yaml --ignore-not-found
    """
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
    failed: list[CtlError] = []
    async with connect(connection) as client:
        for one, name in targets:
            try:
                await client.delete(one.collection, name)
                output.say(f"{one.label(name)} deleted")
            except NotFound as error:
                if not ignore_not_found:
                    failed.append(error)
                    output.complain(NotFound(f"{one.label(name)}: {error.message}"))
    if failed:
        raise typer.Exit(ExitCode.NOT_FOUND)


def name_of(resource: Json) -> str:
    """A resource's handle."""
    return str(resource["metadata"]["name"])


async def _as_applied(client: "Client", kind: kinds.Kind, listed: list[Json]) -> list[Json]:
    """The resources one by one: a list shows contexts with the version filled in."""
    from ctl.turns import each  # noqa: PLC0415

    found = await each(
        [name_of(one) for one in listed], lambda name: client.find(kind.collection, name)
    )
    return [one for one in found if one is not None]


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
