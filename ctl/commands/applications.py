"""`signalbox applications`: who calls, with which keys and subscriptions."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ctl import kinds, output
from ctl.context import Connection, connected
from ctl.output import Format
from ctl.sections import Sections

if TYPE_CHECKING:
    from ctl.records import Records

Json = dict[str, Any]

Application = Annotated[
    str, typer.Argument(metavar="APPLICATION", help="The application's name or id.")
]
Owner = Annotated[
    str | None,
    typer.Option("--owner", metavar="USER", help="Who may give it keys, beside admins; `none`."),
]
Description = Annotated[
    str | None, typer.Option("--description", metavar="TEXT", help="What it is; `none`.")
]
Attributes = Annotated[
    list[str] | None,
    typer.Option("--attribute", metavar="KEY=VALUE", help="May be repeated; replaces all."),
]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(
        cls=Sections, help="Create, list, change and delete applications, and show their keys."
    )
    group.command("list")(connected(list_))
    for command in (get, create, update, delete, keys):
        group.command(command.__name__, no_args_is_help=True)(connected(command))
    app.add_typer(group, name="applications", rich_help_panel="Resources", no_args_is_help=True)


async def list_(connection: Connection, output_format: output.Output = Format.TABLE) -> None:
    """List the applications.

    \b
    Examples:
      signalbox applications list
    """
    from ctl.client import connect  # noqa: PLC0415

    applications = records()
    async with connect(connection) as client:
        found = await client.listed(applications.collection, applications.list_key)
        applications.show(found, output_format)


async def get(
    connection: Connection, application: Application, output_format: output.Output = Format.TABLE
) -> None:
    """Show an application.

    \b
    Examples:
      signalbox applications get "Web shop" -o yaml
    """
    from ctl.client import connect  # noqa: PLC0415

    async with connect(connection) as client:
        records().show([await records().find(client, application)], output_format, single=True)


async def create(
    connection: Connection,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The application's name.")],
    application_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="[default: generated].")
    ] = None,
    owner: Owner = None,
    description: Description = None,
    attribute: Attributes = None,
    output_format: output.Output = Format.TABLE,
) -> None:
    """Create an application; keys whose display name is its name or id are its keys.

    \b
    Examples:
      signalbox applications create "Web shop" --owner carla
      signalbox applications create Mobile --id mobile-app --attribute team=apps
    """
    from ctl.client import connect  # noqa: PLC0415
    from ctl.records import given, pairs  # noqa: PLC0415

    body = given(
        id=application_id, owner=owner, description=description, attributes=pairs(attribute)
    )
    async with connect(connection) as client:
        made = await client.create(records().collection, {"name": name, **body})
    records().told(made, "created", output_format)


async def update(
    connection: Connection,
    application: Application,
    name: Annotated[
        str | None, typer.Option("--name", metavar="TEXT", help="Its new name.")
    ] = None,
    owner: Owner = None,
    description: Description = None,
    attribute: Attributes = None,
    output_format: output.Output = Format.TABLE,
) -> None:
    """Change an application.

    \b
    Examples:
      signalbox applications update mobile-app --owner carla
    """
    from ctl.client import connect  # noqa: PLC0415
    from ctl.records import given, pairs  # noqa: PLC0415

    fields = given(name=name, owner=owner, description=description, attributes=pairs(attribute))
    async with connect(connection) as client:
        changed = await records().change(client, application, fields)
    records().told(changed, "updated", output_format)


async def delete(
    connection: Connection,
    applications: Annotated[
        list[str], typer.Argument(metavar="APPLICATION", help="Names or ids of applications.")
    ],
) -> None:
    """Delete applications that have no subscriptions; their keys stay.

    \b
    Examples:
      signalbox applications delete mobile-app
    """
    from ctl.client import connect  # noqa: PLC0415

    async with connect(connection) as client:
        await records().delete(client, applications)


async def keys(
    connection: Connection, application: Application, output_format: output.Output = Format.TABLE
) -> None:
    """List the keys of an application, of all APIs; the keys themselves are not shown.

    \b
    Examples:
      signalbox applications keys mobile-app
    """
    from ctl.client import connect, part  # noqa: PLC0415
    from ctl.records import Records  # noqa: PLC0415

    async with connect(connection) as client:
        one = await records().find(client, application)
        place = f"/{records().collection}/{part(one['id'])}/api-keys"
        found: list[Json] = (await client.request("GET", place))["apiKeys"]
    shown = Records(
        collection="",
        list_key="",
        singular="key",
        columns=(
            ("API", kinds.field("apiId")),
            ("NAME", kinds.field("name")),
            ("KEY", kinds.field("apiKey")),
            ("STATUS", kinds.field("status")),
            ("EXPIRES", kinds.field("expiresAt")),
            ("CREATED BY", kinds.field("createdBy")),
        ),
    )
    shown.show([{**key, "id": f"{key['apiId']}/{key['name']}"} for key in found], output_format)


def records() -> "Records":
    """The applications."""
    from ctl.records import Records  # noqa: PLC0415

    return Records(
        collection="applications",
        list_key="applications",
        singular="application",
        name_field="name",
        columns=(
            ("NAME", kinds.field("name")),
            ("OWNER", kinds.field("owner")),
            ("DESCRIPTION", kinds.field("description")),
            ("ID", kinds.field("id")),
            ("CHANGED", kinds.age("updatedAt")),
        ),
    )
