"""`signalbox subscriptions`: who may use which API by which plan."""

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctl import kinds, output
from ctl.commands import applications, plans
from ctl.context import Connection, connected
from ctl.errors import NotFound
from ctl.output import Format
from ctl.sections import Sections

if TYPE_CHECKING:
    from ctl.client import Client
    from ctl.records import Records

Json = dict[str, Any]


class Status(StrEnum):
    """Whether a subscription opens its API."""

    ACTIVE = "ACTIVE"
    INACTIVE = "INACTIVE"
    REVOKED = "REVOKED"


Subscription = Annotated[str, typer.Argument(metavar="SUBSCRIPTION", help="The subscription's id.")]
PlanOption = Annotated[
    str | None, typer.Option("--plan", metavar="PLAN", help="Name or id of its plan; `none`.")
]
ApplicationOption = Annotated[
    str | None,
    typer.Option("--application", metavar="APPLICATION", help="For whom: a name or id; `none`."),
]
TokenFile = Annotated[
    str | None,
    typer.Option("--token-file", metavar="FILE|-", help="Where its token stands."),
]
Customer = Annotated[
    str | None,
    typer.Option("--billing-customer", metavar="ID", help="The customer in billing; `none`."),
]
BillingId = Annotated[
    str | None,
    typer.Option("--billing-subscription", metavar="ID", help="Its id in billing; `none`."),
]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(cls=Sections, help="Create, list, change and delete subscriptions to APIs.")
    group.command("list")(connected(list_))
    for command in (get, create, update, delete):
        group.command(command.__name__, no_args_is_help=True)(connected(command))
    app.add_typer(group, name="subscriptions", rich_help_panel="Resources", no_args_is_help=True)


async def list_(
    connection: Connection,
    api: Annotated[str | None, typer.Option("--api", metavar="API", help="Only to this.")] = None,
    application: Annotated[
        str | None,
        typer.Option("--application", metavar="APPLICATION", help="Only for this: name or id."),
    ] = None,
    status: Annotated[Status | None, typer.Option("--status", help="Only with this.")] = None,
    output_format: output.Output = Format.TABLE,
) -> None:
    """List subscriptions; their tokens are kept nowhere.

    \b
    Examples:
      signalbox subscriptions list
      signalbox subscriptions list --api petstore --status ACTIVE -o json
    """
    from ctl.client import connect  # noqa: PLC0415

    async with connect(connection) as client:
        query = {
            "apiId": api,
            "applicationId": await _application(client, application),
            "status": status.value if status else None,
        }
        found = await client.listed("subscriptions", "subscriptions", query)
        shown = found if output_format is not Format.TABLE else await _named(client, found)
    records().show(shown, output_format)


async def get(
    connection: Connection, subscription: Subscription, output_format: output.Output = Format.TABLE
) -> None:
    """Show a subscription.

    \b
    Examples:
      signalbox subscriptions get 3f2504e0-4f89-41d3-9a0c-0305e82c3301 -o yaml
    """
    from ctl.client import connect  # noqa: PLC0415

    async with connect(connection) as client:
        found = [await client.get("subscriptions", subscription)]
        shown = found if output_format is not Format.TABLE else await _named(client, found)
    records().show(shown, output_format, single=True)


async def create(
    connection: Connection,
    api: Annotated[str, typer.Argument(metavar="API", help="The API that it opens.")],
    plan: PlanOption = None,
    application: ApplicationOption = None,
    token_file: TokenFile = None,
    billing_customer: Customer = None,
    billing_subscription: BillingId = None,
    output_format: output.Output = Format.TABLE,
) -> None:
    """Subscribe to an API; without a token file, a token is made up and shown this once.

    \b
    Examples:
      signalbox subscriptions create petstore --plan Gold
      signalbox subscriptions create petstore --plan Gold --application "Web shop"
      pass show customer | signalbox subscriptions create petstore --token-file -
    """
    from ctl.client import connect  # noqa: PLC0415
    from ctl.records import given, new_token, secret_of  # noqa: PLC0415

    told = secret_of(token_file)
    token = new_token() if told is None else told
    async with connect(connection) as client:
        body = given(
            apiId=api,
            subscriptionToken=token,
            subscriptionPlanId=await _plan(client, plan),
            applicationId=await _application(client, application),
            billingCustomerId=billing_customer,
            billingSubscriptionId=billing_subscription,
        )
        made = await client.create("subscriptions", body)
    if told is None:
        made = {**made, "subscriptionToken": token}
    records().told(made, f"to api/{api} created", output_format)
    if told is None and output_format is Format.TABLE:
        output.say(token)
        output.note("keep it: it is not shown again")


async def update(
    connection: Connection,
    subscription: Subscription,
    status: Annotated[
        Status | None, typer.Option("--status", help="INACTIVE suspends, REVOKED ends it.")
    ] = None,
    plan: PlanOption = None,
    application: ApplicationOption = None,
    token_file: TokenFile = None,
    billing_customer: Customer = None,
    billing_subscription: BillingId = None,
    output_format: output.Output = Format.TABLE,
) -> None:
    """Change, suspend, resume or revoke a subscription; routers follow at once.

    \b
    Examples:
      signalbox subscriptions update 3f2504e0-4f89-41d3-9a0c-0305e82c3301 --status INACTIVE
      signalbox subscriptions update 3f2504e0-4f89-41d3-9a0c-0305e82c3301 --plan Silver
    """
    from ctl.client import connect  # noqa: PLC0415
    from ctl.records import given, secret_of  # noqa: PLC0415

    async with connect(connection) as client:
        fields = given(
            status=status.value if status else None,
            subscriptionPlanId=await _plan(client, plan),
            applicationId=await _application(client, application),
            subscriptionToken=secret_of(token_file),
            billingCustomerId=billing_customer,
            billingSubscriptionId=billing_subscription,
        )
        changed = await records().change(client, subscription, fields)
    records().told(changed, "updated", output_format)


async def delete(
    connection: Connection,
    subscriptions: Annotated[
        list[str], typer.Argument(metavar="SUBSCRIPTION", help="Ids of subscriptions.")
    ],
) -> None:
    """Delete subscriptions: they open nothing any more.

    \b
    Examples:
      signalbox subscriptions delete 3f2504e0-4f89-41d3-9a0c-0305e82c3301
    """
    from ctl.client import connect  # noqa: PLC0415

    async with connect(connection) as client:
        await records().delete(client, subscriptions)


def records() -> "Records":
    """The subscriptions."""
    from ctl.records import Records  # noqa: PLC0415

    return Records(
        collection="subscriptions",
        list_key="subscriptions",
        singular="subscription",
        columns=(
            ("ID", kinds.field("id")),
            ("API", kinds.field("apiId")),
            ("PLAN", kinds.field("subscriptionPlanId")),
            ("APPLICATION", kinds.field("applicationId")),
            ("STATUS", kinds.field("status")),
            ("CUSTOMER", kinds.field("billingCustomerId")),
            ("CHANGED", kinds.age("updatedAt")),
        ),
    )


async def _plan(client: "Client", word: str | None) -> str | None:
    """The id of the plan that is meant. Raises NotFound."""
    if word in (None, "none"):
        return word
    return str((await plans.records().find(client, str(word)))["id"])


async def _application(client: "Client", word: str | None) -> str | None:
    """The id of the application that is meant; one that is not known here may have any."""
    if word in (None, "none"):
        return word
    try:
        return str((await applications.records().find(client, str(word)))["id"])
    except NotFound:
        return word


async def _named(client: "Client", found: list[Json]) -> list[Json]:
    """Plans and applications by their names, for people."""
    names: dict[str, str] = {}
    for kind in (plans.records(), applications.records()):
        for one in await client.listed(kind.collection, kind.list_key):
            names[one["id"]] = one[kind.name_field]
    return [
        {
            **one,
            **{
                field: names.get(one[field], one[field])
                for field in ("subscriptionPlanId", "applicationId")
                if field in one
            },
        }
        for one in found
    ]
