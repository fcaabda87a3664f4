"""`signalbox status`: how the gateway is."""

from typing import TYPE_CHECKING

import typer

from ctl import output
from ctl.context import Connection, connected
from ctl.errors import ExitCode, NotReachable
from ctl.output import Format

if TYPE_CHECKING:
    from ctl.overview import Local, Served


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Observe")(connected(status))


async def status(connection: Connection, output_format: output.Output = Format.TABLE) -> None:
    """Show how the gateway is: processes, routers, APIs, and why something is not live.

    The exit code is 0 when a router is connected and every API is live on all routers, 5 when not,
    3 when the management API does not answer.

    \b
    Examples:
      signalbox status
      signalbox status -o json
      signalbox status --url https://gateway.example.com:9090
    """
    from ctl import overview  # noqa: PLC0415
    from ctl.client import connect  # noqa: PLC0415

    local = overview.local(connection)
    try:
        async with connect(connection) as client:
            served = await overview.served(client)
    except NotReachable:
        if local is not None and output_format is Format.TABLE:
            _show_local(local)
        raise
    health = await overview.health(connection, local.ports.get("admin") if local else None)
    match output_format:
        case Format.TABLE:
            output.say(f"management  {connection.url}, {health}")
            if local is not None:
                _show_local(local)
            _show_served(served)
        case Format.NAME:
            output.say("live" if served.well else "not live")
        case Format.JSON | Format.YAML:
            found = {
                "management": {"url": connection.url, "health": health},
                "local": local.as_document() if local else None,
                **served.as_document(),
            }
            text = output.as_json(found) if output_format is Format.JSON else output.as_yaml(found)
            output.say(text.rstrip("\n"))
    if not served.well:
        raise typer.Exit(ExitCode.NOT_LIVE)


def _show_local(local: "Local") -> None:
    pid = f", pid {local.pid}" if local.pid else ""
    output.say(f"gateway     {local.phase}, tier {local.tier}{pid}")
    ports = ", ".join(f"{name} {port}" for name, port in local.ports.items() if port)
    output.say(f"ports       {ports}")
    if local.limits.get("state") == "degraded":
        limits = local.limits
        output.say(f"limits      degraded since {limits['since']}: {limits['reason']}")
    elif local.limits:
        output.say("limits      shared")
    if not local.processes:
        return
    output.say()
    output.table(
        ("PROCESS", "PID", "STATE", "RESTARTS", "LAST EXIT"),
        (
            (
                str(one["name"]),
                str(one["pid"] or "-"),
                str(one["state"]),
                str(one["restarts"]),
                str("-" if one["last_exit"] in (None, "") else one["last_exit"]),
            )
            for one in local.processes
        ),
        right=(1, 3),
    )


def _show_served(served: "Served") -> None:
    output.say()
    if served.routers:
        output.table(
            ("ROUTER", "ENVOY", "STATE", "LIVE"),
            (
                (
                    str(one["node"]),
                    str(one["version"] or "-"),
                    "connected" if one["connected"] else "disconnected",
                    f"{served.current_on(one)}/{len(served.apis)}",
                )
                for one in served.routers
            ),
            right=(3,),
        )
    else:
        output.say("no router is connected")
    output.say()
    apis = served.as_document()["apis"]
    output.say(
        f"{apis['total']} APIs: {apis['deployed']} deployed, {apis['undeployed']} undeployed;"
        f" {apis['live']} live on all routers, {len(apis['pending'])} pending,"
        f" {len(apis['refused'])} refused"
    )
    for name in apis["pending"]:
        output.say(f"pending: api/{name}")
    for one in apis["refused"]:
        output.say(f"refused: api/{one['name']} revision {one['revision']}: {one['reason']}")
    for one in apis["faults"]:
        output.say(f"policy fault: api/{one['name']}: {one['fault']}")
