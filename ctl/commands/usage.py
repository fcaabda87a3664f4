"""`signalbox usage`: what was served, to whom, how fast."""

import asyncio
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from ctl import output
from ctl.context import Connection, connected
from ctl.moments import moment, zulu
from ctl.output import Format

Json = dict[str, Any]

_CLEAR = "\x1b[H\x1b[2J"
_NOT_KNOWN = {"api": "(no route)", "application": "-"}
_WOULD = ("WOULD BLOCK", "wouldRefuse")
_NUMBERS = (
    ("REQUESTS", "requests"),
    ("5XX", "errors"),
    ("4XX", "clientErrors"),
    ("REFUSED", "refused"),
    _WOULD,
    ("P50 MS", "p50Ms"),
    ("P95 MS", "p95Ms"),
    ("P99 MS", "p99Ms"),
    ("UPSTREAM MS", "upstreamMeanMs"),
    ("IN", "requestBytes"),
    ("OUT", "responseBytes"),
)


class Group(StrEnum):
    """What usage can be grouped by."""

    API = "api"
    OPERATION = "operation"
    APPLICATION = "application"
    SUBSCRIPTION = "subscription"
    SHADOW = "shadow"
    STATUS = "status"
    MINUTE = "minute"
    HOUR = "hour"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Observe")(connected(usage))


async def usage(
    connection: Connection,
    by: Annotated[
        list[Group] | None,
        typer.Option("--by", help="Group by this; may be repeated [default: api]."),
    ] = None,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="From when on: 15m, 1h, 7d, a moment.")
    ] = "1h",
    until: Annotated[
        str | None, typer.Option("--until", metavar="TIME", help="Until when [default: now].")
    ] = None,
    api: Annotated[
        str | None,
        typer.Option("--api", metavar="NAME", help="Only this API; `-`: requests without a route."),
    ] = None,
    application: Annotated[
        str | None,
        typer.Option("--application", metavar="NAME", help="Only this caller; `-`: the unknown."),
    ] = None,
    subscription: Annotated[
        str | None,
        typer.Option(
            "--subscription", metavar="ID", help="What this one has used of its plan, if not --by."
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again and again.")] = False,
    interval_s: Annotated[
        float, typer.Option("--interval", min=0.2, metavar="SECONDS", help="How often, watching.")
    ] = 2,
    output_format: output.Output = Format.TABLE,
) -> None:
    """Show what was served: requests, errors, refusals, and how long they took.

    REFUSED counts requests that a policy stopped, WOULD BLOCK those that a policy in shadow mode
    would have stopped; 4XX and 5XX are other answers. Percentiles are of requests that reached, or
    should have reached, an upstream.

    \b
    Examples:
      signalbox usage
      signalbox usage --api petstore --by operation --since 24h
      signalbox usage --by application --by status -o json
      signalbox usage --subscription 3f2504e0-4f89-41d3-9a0c-0305e82c3301
      signalbox usage --watch
    """
    from ctl.client import connect, part  # noqa: PLC0415

    now = datetime.now(UTC)
    moment(since, now)  # a typing error is told before anything is asked
    query = {
        "groupBy": ",".join(by or (Group.API,)),
        "from": since,
        "to": zulu(moment(until, now)) if until else None,
        "api": api,
        "application": application,
        "subscription": subscription,
    }
    of_plan = f"/subscriptions/{part(subscription)}/usage" if subscription and not by else ""
    async with connect(connection) as client:
        while True:
            place = of_plan or "/reports/usage"
            report = await client.request("GET", place, query={} if of_plan else query)
            if watch and output.colourful(sys.stdout.isatty()):
                output.say(_CLEAR + f"since {since}, {datetime.now().astimezone():%H:%M:%S}")
            (_show_quota if of_plan else _show)(report, output_format)
            if not watch:
                return
            await asyncio.sleep(interval_s)


def _show(report: Json, form: Format) -> None:
    rows: list[Json] = report["rows"]
    names = [name for name in (rows[0] if rows else ()) if name not in report["total"]]

    def table() -> None:
        if not rows:
            output.note("nothing was served in this time")
            return
        numbers = [one for one in _NUMBERS if one != _WOULD or report["total"][_WOULD[1]]]
        total = [{**dict.fromkeys(names), **report["total"]}] if len(rows) > 1 else []
        output.table(
            (*(name.upper() for name in names), *(title for title, _ in numbers)),
            (
                (
                    *(_name(row, name) for name in names),
                    *(_number(name, row[name]) for _, name in numbers),
                )
                for row in (*rows, *total)
            ),
            right=range(len(names), len(names) + len(numbers)),
        )

    keys = (" ".join(_name(row, name) for name in names) for row in rows)
    output.result(report, form, names=keys, table=table)
    if report["lostEntries"]:
        output.note(f"{report['lostEntries']} requests of this time were served but not counted")


def _show_quota(usage: Json, form: Format) -> None:
    def table() -> None:
        limit = usage["limit"]
        output.table(
            ("API", "PLAN", "LIMIT", "USED", "LEFT", "REFUSED", "SINCE", "RESETS AT"),
            [
                (
                    usage["apiId"],
                    usage["planName"] or "-",
                    "-" if limit is None else f"{limit}/{usage['unit'].lower()}",
                    str(usage["used"]),
                    "-" if limit is None else str(usage["remaining"]),
                    str(usage["refused"]),
                    usage["from"],
                    usage["resetsAt"],
                )
            ],
            right=range(2, 6),
        )

    output.result(usage, form, names=[usage["subscriptionId"]], table=table)


def _name(row: Json, name: str) -> str:
    value = row[name]
    if value is None:
        return "total" if name == next(iter(row)) else ""
    return str(value) or _NOT_KNOWN.get(name, "-")


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name.endswith("Bytes"):
        return bytes_text(int(value))
    return f"{value:.1f}" if name.endswith("Ms") else str(value)


def bytes_text(count: int) -> str:
    """`count` bytes in the largest unit that has at least one, such as `1.5M`."""
    left = float(count)
    for unit in ("", "K", "M", "G"):
        if left < 1024:
            return f"{left:.1f}{unit}" if unit else str(count)
        left /= 1024
    return f"{left:.1f}T"
