"""`signalbox import`: from other formats to resources."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from ctl import output
from ctl.context import Connection, connected
from ctl.errors import ExitCode, Misused, Refused
from ctl.output import DocumentFormat
from ctl.sections import Sections


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(cls=Sections, help="Turn documents of other formats into resources.")
    group.command("openapi", no_args_is_help=True)(connected(openapi))
    app.add_typer(group, name="import", rich_help_panel="Resources", no_args_is_help=True)


async def openapi(
    connection: Connection,
    file: Annotated[
        str, typer.Argument(metavar="FILE|-", help="OpenAPI 3.x or Swagger 2.0, JSON or YAML.")
    ],
    upstream: Annotated[
        str | None,
        typer.Option(
            "--upstream", metavar="URL", help="Where requests go [default: the document's server]."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Handle [default: from title and version]."),
    ] = None,
    context: Annotated[
        str | None,
        typer.Option("--context", metavar="PATH", help="[default: /title/$version]."),
    ] = None,
    version: Annotated[
        str | None,
        typer.Option("--api-version", metavar="TEXT", help="[default: from the document]."),
    ] = None,
    validate: Annotated[
        bool,
        typer.Option(
            "--validate", help="Let only requests pass that the document describes (3.x only)."
        ),
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refuse when an operation cannot be expressed.")
    ] = False,
    apply: Annotated[
        bool, typer.Option("--apply", help="Apply it, instead of printing it.")
    ] = False,
    timeout_s: Annotated[
        float,
        typer.Option("--timeout", min=0, metavar="SECONDS", help="With --apply: wait for live."),
    ] = 30,
    output_format: output.DocumentOutput = DocumentFormat.YAML,
) -> None:
    """Turn an OpenAPI document into a RestApi.

    Names and versions are fitted to what a RestApi may hold; what is changed, and each operation
    that cannot be expressed, is told on stderr.

    \b
    Examples:
      signalbox import openapi petstore.json --upstream https://petstore.example.com/v2
      signalbox import openapi petstore.json --upstream https://example.com --context /pets --apply
      signalbox import openapi petstore.json --upstream https://example.com > petstore.yaml
    """
    from ctl import openapi_import  # noqa: PLC0415

    text = _text(file)
    imported = openapi_import.convert(
        openapi_import.parse(text, file),
        upstream=upstream,
        name=name,
        context=context,
        version=version,
        validated=text if validate else None,
    )
    for remark in imported.remarks:
        output.note(f"note: {remark}")
    for left_out in imported.left_out:
        output.note(f"left out: {left_out}")
    if strict and imported.left_out:
        raise Refused(
            f"{len(imported.left_out)} operations cannot be expressed, and --strict is set"
        )
    if not apply:
        output.document(imported.resource, output_format)
        return
    from ctl import documents, plan, rollout  # noqa: PLC0415
    from ctl.client import connect  # noqa: PLC0415

    wanted, problems = documents.parse(output.as_yaml(imported.resource), "import")
    if problems:
        raise Refused("what was imported is not a RestApi", problems)
    async with connect(connection) as client:
        steps = await plan.steps(client, wanted, lambda: None)
        outcomes = await rollout.carry_out(client, steps, timeout_s, rollout.tell)
    code = rollout.exit_code(outcomes)
    if code is not ExitCode.OK:
        raise typer.Exit(code)


def _text(file: str) -> str:
    try:
        if file == "-":
            return sys.stdin.buffer.read().decode("utf-8-sig")
        return Path(file).read_text("utf-8-sig")
    except OSError as error:
        raise Misused(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Misused(f"{file} is not a text file in UTF-8: {error}") from error
