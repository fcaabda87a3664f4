"""`signalbox policies`: what policies there are and where each runs; a new one to start from."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ctl import output
from ctl.context import Connection, connected
from ctl.errors import CtlError, NotFound
from ctl.output import Format
from ctl.sections import Sections

Json = dict[str, Any]

_RUNS_IN = {"envoy": "Envoy", "python": "Python"}
_TIMEOUT_S = 5.0


class Policies(Sections):
    """`policies` lists, `policies NAME` shows one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's, private
        """What is no command is an option of `list`, or a name for `show`."""
        if args[:1] not in (["-h"], ["--help"]) and args[:1] != [] and args[0] not in self.commands:
            args = ["list" if args[0].startswith("-") else "show", *args]
        parsed: list[str] = super().parse_args(ctx, args or ["list"])
        return parsed


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(
        cls=Policies, help="List the policies with where each runs; show one; start a new one."
    )
    group.command("list")(connected(list_))
    group.command("show", no_args_is_help=True)(connected(show))
    group.command("new", no_args_is_help=True)(new)
    app.add_typer(group, name="policies", rich_help_panel="Reference")


async def list_(connection: Connection, output_format: output.Output = Format.TABLE) -> None:
    """List the policies of the gateway with where each runs, and those that are broken.

    Without a gateway: those that are installed here, and those of the data folder.

    \b
    Examples:
      signalbox policies
      signalbox policies list -o json
    """
    found, broken = await _known(connection)
    for one in broken:
        goes_on = "; its last good version goes on" if one["serving"] else ""
        output.note(f"not loaded: {one['name']} ({one['source']}): {one['reason']}{goes_on}")
    if output_format is Format.TABLE:
        output.table(
            ("NAME", "VERSION", "RUNS IN", "REFUSES WITH", "DESCRIPTION"),
            (
                (
                    one["name"],
                    one["version"],
                    _RUNS_IN[one["runs"]],
                    ", ".join(str(status) for status in one["statuses"]) or "-",
                    one["description"].partition("\n")[0],
                )
                for one in found
            ),
        )
        return
    _print(found, output_format)


async def show(
    connection: Connection,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the policy.")],
    output_format: output.Output = Format.TABLE,
) -> None:
    """Show one policy: where it runs and why, its parameters, an example.

    One that is broken is shown with its traceback.

    \b
    Examples:
      signalbox policies basic-ratelimit
      signalbox policies show basic-ratelimit -o yaml
    """
    found, broken = await _known(connection)
    wanted = [one for one in found if one["name"] == name]
    wrong = [one for one in broken if name in (one["name"], *one["policies"])]
    for one in wrong:
        output.note(f"not loaded: {one['source']}: {one['reason']}")
        output.note(one["traceback"].rstrip())
    if not wanted:
        raise NotFound(
            f"policy {name!r} is broken"
            if wrong
            else f"no policy is called {name!r}; `signalbox policies` lists all"
        )
    if output_format is Format.TABLE:
        _show(wanted[-1])
        return
    _print(wanted, output_format)


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Such as word-filter.")],
    native: Annotated[
        bool,
        typer.Option(
            "--native/--python", help="Filters of Envoy, or hooks in Python.", show_default="python"
        ),
    ] = False,
    folder: Annotated[
        Path, typer.Option("--folder", metavar="DIR", help="Where the files go.")
    ] = Path(),
) -> None:
    """Write a policy to start from, with a test that passes.

    It works once it is in the folder that the gateway watches: `policies` in the data folder,
    unless the setting `policies_folder` names another.

    \b
    Examples:
      signalbox policies new word-filter
      signalbox policies new house-style --native --folder policies/
    """
    from ctl import scaffold  # noqa: PLC0415

    _quiet()
    from policy_engine.catalogue import load  # noqa: PLC0415

    taken = {policy.name for policy in load()}
    file, test = scaffold.create(name, "native" if native else "python", folder, taken)
    output.say(str(file))
    output.say(str(test))
    output.note(f"next: pytest {test}; then put {file.name} into the folder that is watched")


async def _known(connection: Connection) -> tuple[list[Json], list[Json]]:
    """Policies and broken ones: of the gateway if one answers, else of this machine."""
    from ctl.client import connect  # noqa: PLC0415
    from ctl.errors import NotReachable  # noqa: PLC0415

    try:
        async with connect(connection, timeout_s=_TIMEOUT_S) as client:
            said = await client.request("GET", "/policies")
        return said["policies"], said["broken"]
    except CtlError as error:
        if not isinstance(error, NotReachable):
            output.note(f"not of the gateway, but of this machine: {error.message}")
        return _here(connection)


def _here(connection: Connection) -> tuple[list[Json], list[Json]]:
    import tempfile  # noqa: PLC0415

    _quiet()
    from policy_engine import catalogue  # noqa: PLC0415
    from policy_engine.loading import watched  # noqa: PLC0415

    found = catalogue.load()
    named = os.environ.get("SIGNALBOX_POLICIES_FOLDER")
    own = Path(named).expanduser() if named else connection.data / "policies"
    if own.is_dir():
        with tempfile.TemporaryDirectory(prefix="signalbox-policies-") as place:
            watched.add(found, watched.WatchedFolder(own, watched.Kept(Path(place))))
    told = catalogue.as_document(found)
    return told["policies"], told["broken"]


def _quiet() -> None:
    """What is logged is told by the command itself."""
    import structlog  # noqa: PLC0415

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def _print(found: Sequence[Json], form: Format) -> None:
    match form:
        case Format.JSON:
            output.say(output.as_json(list(found)))
        case Format.YAML:
            output.say(output.as_yaml(list(found)).rstrip("\n"))
        case _:
            for one in found:
                output.say(one["name"])


def _show(policy: Json) -> None:
    from ctl.parameters import parameters  # noqa: PLC0415

    why = f": {policy['why']}" if policy["why"] else ""
    output.say(f"{policy['name']} {policy['version']}, runs in {_RUNS_IN[policy['runs']]}{why}")
    output.say()
    output.say(policy["description"])
    output.say()
    output.table(
        ("PARAMETER", "TYPE", "DEFAULT", "MEANING"),
        (
            (one.name, one.type, one.default, one.description)
            for one in parameters(policy["parameters"])
        ),
    )
    if policy["refusals"]:
        output.say()
        output.say("Refuses with:")
        output.say()
        for one in policy["refusals"]:
            output.say(f"  {one['status']} {output.one_line(one['body'])}")
    output.say()
    output.say("Example:")
    output.say()
    major = policy["version"].partition(".")[0]
    example = [{"name": policy["name"], "version": f"v{major}", "params": policy["example"]}]
    output.say(output.as_yaml({"policies": example}).rstrip("\n"))
