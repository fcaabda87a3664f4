"""`signalbox plans`: how much subscribers may use."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctl import kinds, output
from ctl.context import Connection, connected
from ctl.errors import Misused
from ctl.moments import moment, zulu
from ctl.output import Format
from ctl.sections import Sections

if TYPE_CHECKING:
    from ctl.records import Records

Json = dict[str, Any]

_UNITS = {"min": "Min", "hour": "Hour", "day": "Day", "month": "Month"}


class Status(StrEnum):
    """Whether subscriptions to a plan open anything."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"


Plan = Annotated[str, typer.Argument(metavar="PLAN", help="The plan's name or id.")]
Plans = Annotated[list[str], typer.Argument(metavar="PLAN", help="Names or ids of plans.")]
Limit = Annotated[
    str | None,
    typer.Option(
        "--limit", metavar="COUNT/UNIT", help="Requests per min, hour, day or month; `none`."
    ),
]
Zone = Annotated[
    str | None,
    typer.Option(
        "--time-zone", metavar="NAME", help="Whose calendar: Europe/Zurich; `none`: the gateway's."
    ),
]
Stop = Annotated[
    bool | None,
    typer.Option("--stop/--no-stop", help="Refuse requests beyond the limit, or only count them."),
]
Expires = Annotated[
    str | None,
    typer.Option("--expires-at", metavar="TIME", help="End: 2027-01-31T12:00:00Z; `none`."),
]
Billing = Annotated[
    str | None, typer.Option("--billing-plan", metavar="TEXT", help="Its name in billing; `none`.")
]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(cls=Sections, help="Create, list, change and delete subscription plans.")
    group.command("list")(connected(list_))
    for command in (get, create, update, delete):
        group.command(command.__name__, no_args_is_help=True)(connected(command))
    app.add_typer(group, name="plans", rich_help_panel="Resources", no_args_is_help=True)


async def list_(connection: Connection, output_format: output.Output = Format.TABLE) -> None:
    """List the subscription plans.

    \b
    Examples:
      signalbox plans list
      signalbox plans list -o json
    """
    from ctl.client import connect  # noqa: PLC0415

    plans = records()
    async with connect(connection) as client:
        plans.show(await client.listed(plans.collection, plans.list_key), output_format)


async def get(
    connection: Connection, plan: Plan, output_format: output.Output = Format.TABLE
) -> None:
    """Show a plan.

    \b
    Examples:
      signalbox plans get Gold -o yaml
    """
    from ctl.client import connect  # noqa: PLC0415

    async with connect(connection) as client:
        records().show([await records().find(client, plan)], output_format, single=True)


async def create(
    connection: Connection,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The plan's name.")],
    limit: Limit = None,
    time_zone: Zone = None,
    stop: Stop = None,
    expires_at: Expires = None,
    billing_plan: Billing = None,
    output_format: output.Output = Format.TABLE,
) -> None:
    """Create a plan; without a limit it is unlimited.

    \b
    Examples:
      signalbox plans create Gold --limit 1000/min
      signalbox plans create Free --limit 10000/month --no-stop
      signalbox plans create Daily --limit 500/day --time-zone Europe/Zurich
      signalbox plans create Trial --limit 100/day --expires-at 2027-01-31T00:00:00Z
    """
    from ctl.client import connect  # noqa: PLC0415

    fields = _fields(limit, time_zone, stop, expires_at, billing_plan, None)
    async with connect(connection) as client:
        made = await client.create(records().collection, {"planName": name, **fields})
    records().told(made, "created", output_format)


async def update(
    connection: Connection,
    plan: Plan,
    name: Annotated[
        str | None, typer.Option("--name", metavar="TEXT", help="Its new name.")
    ] = None,
    limit: Limit = None,
    time_zone: Zone = None,
    stop: Stop = None,
    expires_at: Expires = None,
    billing_plan: Billing = None,
    status: Annotated[
        Status | None, typer.Option("--status", help="Inactive, its subscriptions open nothing.")
    ] = None,
    output_format: output.Output = Format.TABLE,
) -> None:
    """Change a plan; its subscriptions follow at once.

    \b
    Examples:
      signalbox plans update Gold --limit 2000/min
      signalbox plans update Trial --status INACTIVE
    """
    from ctl.client import connect  # noqa: PLC0415
    from ctl.records import given  # noqa: PLC0415

    fields = given(planName=name) | _fields(
        limit, time_zone, stop, expires_at, billing_plan, status
    )
    async with connect(connection) as client:
        records().told(await records().change(client, plan, fields), "updated", output_format)


async def delete(connection: Connection, plans: Plans) -> None:
    """Delete plans that no subscription has.

    \b
    Examples:
      signalbox plans delete Trial
    """
    from ctl.client import connect  # noqa: PLC0415

    async with connect(connection) as client:
        await records().delete(client, plans)


def records() -> "Records":
    """The plans."""
    from ctl.records import Records  # noqa: PLC0415

    return Records(
        collection="subscription-plans",
        list_key="subscriptionPlans",
        singular="plan",
        name_field="planName",
        columns=(
            ("NAME", kinds.field("planName")),
            ("LIMIT", _limit_cell),
            ("ZONE", kinds.field("timeZone")),
            ("BEYOND", _beyond_cell),
            ("STATUS", kinds.field("status")),
            ("EXPIRES", kinds.field("expiryTime")),
            ("BILLING", kinds.field("billingPlan")),
            ("ID", kinds.field("id")),
            ("CHANGED", kinds.age("updatedAt")),
        ),
    )


def _limit_cell(plan: Json) -> str:
    if "throttleLimitCount" not in plan:
        return "-"
    return f"{plan['throttleLimitCount']}/{str(plan['throttleLimitUnit']).lower()}"


def _beyond_cell(plan: Json) -> str:
    if "throttleLimitCount" not in plan:
        return "-"
    return "refused" if plan["stopOnQuotaReach"] else "counted"


def _fields(
    limit: str | None,
    time_zone: str | None,
    stop: bool | None,
    expires_at: str | None,
    billing_plan: str | None,
    status: Status | None,
) -> Json:
    from ctl.records import given  # noqa: PLC0415

    expiry = expires_at
    if expires_at not in (None, "none"):
        expiry = zulu(moment(str(expires_at), datetime.now(UTC)))
    return _limit(limit) | given(
        timeZone=time_zone,
        stopOnQuotaReach=stop,
        expiryTime=expiry,
        billingPlan=billing_plan,
        status=status.value if status else None,
    )


def _limit(text: str | None) -> Json:
    if text is None:
        return {}
    if text == "none":
        return {"throttleLimitCount": None, "throttleLimitUnit": None}
    count, _, unit = text.partition("/")
    if not count.isdecimal() or unit.lower() not in _UNITS:
        raise Misused(f"--limit {text}: write a number and min, hour, day or month: 1000/min")
    return {"throttleLimitCount": int(count), "throttleLimitUnit": _UNITS[unit.lower()]}
