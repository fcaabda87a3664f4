"""`signalbox events`: what passes on the bus."""

from contextlib import aclosing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bus.subjects import Family, pattern
from ctl import output
from ctl.context import Connection, connected
from ctl.errors import Misused
from ctl.moments import moment
from ctl.output import Format
from ctl.sections import Sections

if TYPE_CHECKING:
    from ctl.event_feed import Broker, Observed

DEFAULT_NATS_URL = "nats://127.0.0.1:4222"
_PANEL = "Connection"


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(cls=Sections, help="Watch the events that pass on the bus.")
    group.command("tail")(connected(tail))
    app.add_typer(group, name="events", rich_help_panel="Observe", no_args_is_help=True)


async def tail(
    connection: Connection,
    families: Annotated[
        list[Family] | None,
        typer.Option("--family", help="Only events of this family; may be repeated."),
    ] = None,
    subjects: Annotated[
        list[str] | None,
        typer.Option(
            "--subject", metavar="PATTERN", help="Only under this NATS subject; may be repeated."
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Begin in the past: 10m, 1h, or a moment."),
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", min=1, metavar="N", help="End after so many events.")
    ] = None,
    nats_url: Annotated[
        str | None,
        typer.Option(
            "--nats",
            envvar="SIGNALBOX_NATS_URL",
            metavar="URL",
            help=f"Address of the bus [default: client.json, or {DEFAULT_NATS_URL}].",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    nats_user: Annotated[
        str | None,
        typer.Option(
            "--nats-user",
            envvar="SIGNALBOX_NATS_USER",
            metavar="NAME",
            help="User at the bus [default: client.json].",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    nats_password: Annotated[
        str | None,
        typer.Option(
            "--nats-password",
            envvar="SIGNALBOX_NATS_PASSWORD",
            metavar="TEXT",
            help="Its password; prefer the variable.",
            rich_help_panel=_PANEL,
        ),
    ] = None,
    output_format: output.Output = Format.TABLE,
) -> None:
    """Follow the events on the bus until Ctrl-C.

    -o json prints CloudEvents in their JSON format, one to a line.

    \b
    Examples:
      signalbox events tail
      signalbox events tail --family state --family router --since 1h
      signalbox events tail --family usage --count 1 -o json
      signalbox events tail --subject 'sbx.*.*.state.rest-api.petstore'
    """
    from ctl.event_feed import follow  # noqa: PLC0415

    if families and subjects:
        raise Misused("give either --family or --subject")
    patterns = subjects or [pattern(family) for family in families or tuple(Family)]
    begin = moment(since, datetime.now(UTC)) if since else None
    seen = 0
    broker = _broker(connection, nats_url, nats_user, nats_password)
    async with aclosing(follow(broker, patterns, begin)) as events:
        async for event in events:
            _show(event, output_format)
            seen += 1
            if seen == count:
                return


def _broker(
    connection: Connection, url: str | None, user: str | None, password: str | None
) -> "Broker":
    """The bus of these settings; client.json's password goes to client.json's bus only."""
    from ctl.event_feed import Broker  # noqa: PLC0415

    known = connection.known
    known_url = str(known.get("nats_url") or "")
    address = url or known_url or DEFAULT_NATS_URL
    if address == known_url and user is None:
        user, password = known.get("nats_user"), known.get("nats_password")
    return Broker(address, user or "", password or "")


def _show(event: "Observed", form: Format) -> None:
    match form:
        case Format.JSON:
            output.say(output.one_line(event.cloud_event()))
        case Format.YAML:
            output.say(f"---\n{output.as_yaml(event.cloud_event())}".rstrip("\n"))
        case Format.NAME:
            output.say(event.kind)
        case Format.TABLE:
            output.say(f"{clock(event.time)}  {event.kind:24}  {summary(event.kind, event.data)}")


def clock(time: str) -> str:
    """A time as its day and time of day here."""
    try:
        return datetime.fromisoformat(time).astimezone().strftime("%m-%d %H:%M:%S.%f")[:-3]
    except ValueError:
        return f"{time or '?':18}"


def summary(kind: str, data: Any) -> str:  # noqa: ANN401, PLR0911 - JSON; a line for each kind
    """The gist of an event in a line."""
    match kind, data:
        case "rest-api.published", {"revision": revision, "api": {"metadata": {"name": name}}}:
            return f"{name} revision {revision}"
        case "rest-api.retired", {"revision": revision, "api_id": name}:
            return f"{name} revision {revision}"
        case "api-key.issued", {"api_key": {"apiId": api, "name": name}}:
            return f"key {name} of {api}"
        case "api-key.revoked", {"api_id": api, "name": name}:
            return f"key {name} of {api}"
        case "router.connected" | "router.disconnected", {"node": node}:
            return f"router {node} {data.get('version', '')}".rstrip()
        case "router.applied", {"node": node, "revisions": dict(revisions)}:
            some = ", ".join(f"{name}={revision}" for name, revision in [*revisions.items()][:5])
            more = f", ... ({len(revisions)} in all)" if len(revisions) > 5 else ""
            return f"router {node}: {some}{more}"
        case "router.rejected", {"api_id": name, "revision": revision, "reason": reason}:
            return (
                f"{name} revision {revision} refused by {data.get('node') or 'compiler'}: {reason}"
            )
        case "usage.requests-served", {"node": node, "group": list(group)}:
            return f"{len(group)} requests at router {node}"
        case "usage.access-log-gap", {"node": node, "entries": entries}:
            return f"{entries} requests at router {node} were not counted"
        case "dead-letter.recorded", {"consumer": consumer, "reason": reason}:
            return f"{consumer}: {reason}"
    return output.one_line(data)
