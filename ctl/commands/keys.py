"""`signalbox keys`: who may call an API."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from ctl import kinds, output
from ctl.context import Connection, connected
from ctl.errors import Misused, NotFound
from ctl.moments import lifetime, moment, zulu
from ctl.output import Format
from ctl.sections import Sections

Json = dict[str, Any]


class KeyFormat(StrEnum):
    """How a new key is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"
    KEY = "key"


Api = Annotated[str, typer.Argument(metavar="API", help="The API that the key opens.")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="The key's name.")]
ExpiresIn = Annotated[
    str | None,
    typer.Option("--expires-in", metavar="SPAN", help="Lifetime: 12h, 30d, 6mo, ..."),
]
ExpiresAt = Annotated[
    str | None,
    typer.Option("--expires-at", metavar="TIME", help="Expiry: 2027-01-31T12:00:00Z."),
]
KeyFile = Annotated[
    str | None,
    typer.Option(
        "--key-file",
        metavar="FILE|-",
        help="Where an existing key of at least 36 characters stands.",
    ),
]
DisplayName = Annotated[
    str | None,
    typer.Option("--display-name", metavar="TEXT", help="Who calls, as usage shows it."),
]
Reference = Annotated[
    str | None, typer.Option("--external-ref", metavar="TEXT", help="Its id in another system.")
]
Issuer = Annotated[
    str | None, typer.Option("--issuer", metavar="TEXT", help="Who issued it, if policies ask.")
]
KeyOutput = Annotated[
    KeyFormat,
    typer.Option("--output", "-o", help="How to print; `key` prints the key alone."),
]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(cls=Sections, help="Create, list, replace and revoke the keys of an API.")
    for command in (create, list_, update, regenerate, revoke):
        group.command(command.__name__.rstrip("_"), no_args_is_help=True)(connected(command))
    app.add_typer(group, name="keys", rich_help_panel="Resources", no_args_is_help=True)


async def create(
    connection: Connection,
    api: Api,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="[default: generated].")
    ] = None,
    display_name: DisplayName = None,
    expires_in: ExpiresIn = None,
    expires_at: ExpiresAt = None,
    key_file: KeyFile = None,
    external_ref: Reference = None,
    issuer: Issuer = None,
    output_format: KeyOutput = KeyFormat.TABLE,
) -> None:
    """Create a key; it is shown this once and kept nowhere.

    \b
    Examples:
      signalbox keys create petstore --name mobile-app --expires-in 90d
      KEY=$(signalbox keys create petstore -o key)
      signalbox keys create petstore --name partner --key-file partner.key
    """
    body = _asked(
        name=name,
        displayName=display_name,
        apiKey=_key(key_file),
        externalRefId=external_ref,
        issuer=issuer,
        **_expiry(expires_in, expires_at),
    )
    answer = await _ask(connection, "POST", api, "", body)
    _show_new(api, answer, output_format, given=key_file is not None)


async def list_(
    connection: Connection, api: Api, output_format: output.Output = Format.TABLE
) -> None:
    """List the keys of an API; the keys themselves are not shown.

    \b
    Examples:
      signalbox keys list petstore
      signalbox keys list petstore -o json
    """
    answer = await _ask(connection, "GET", api, "")
    found: list[Json] = answer["apiKeys"]

    def table() -> None:
        if not found:
            output.note(f"api/{api} has no keys")
            return
        output.table(
            ("NAME", "DISPLAY NAME", "KEY", "STATUS", "EXPIRES", "SOURCE", "CREATED BY", "AGE"),
            ([column(key) for column in _COLUMNS] for key in found),
        )

    output.result(found, output_format, names=(one["name"] for one in found), table=table)


async def update(
    connection: Connection,
    api: Api,
    name: Name,
    key_file: KeyFile = None,
    display_name: DisplayName = None,
    expires_in: ExpiresIn = None,
    expires_at: ExpiresAt = None,
    external_ref: Reference = None,
    issuer: Issuer = None,
    output_format: KeyOutput = KeyFormat.TABLE,
) -> None:
    """Change a key that was issued elsewhere: its value, expiry or names.

    \b
    Examples:
      signalbox keys update petstore partner --key-file partner-2027.key
      pass show partner | signalbox keys update petstore partner --key-file -
    """
    body = _asked(
        apiKey=_key(key_file),
        displayName=display_name,
        externalRefId=external_ref,
        issuer=issuer,
        **_expiry(expires_in, expires_at),
    )
    if not body:
        raise Misused("nothing to change: give --key-file, --display-name, an expiry, ...")
    answer = await _ask(connection, "PUT", api, name, body)
    _show_new(api, answer, output_format, given=True)


async def regenerate(
    connection: Connection,
    api: Api,
    name: Name,
    expires_in: ExpiresIn = None,
    expires_at: ExpiresAt = None,
    output_format: KeyOutput = KeyFormat.TABLE,
) -> None:
    """Replace a key by a new one of the same name; the old one opens nothing any more.

    \b
    Examples:
      signalbox keys regenerate petstore mobile-app
      signalbox keys regenerate petstore mobile-app --expires-in 90d -o key
    """
    body = _asked(**_expiry(expires_in, expires_at))
    answer = await _ask(connection, "POST", api, name, body, action="/regenerate")
    _show_new(api, answer, output_format, given=False)


async def revoke(connection: Connection, api: Api, name: Name) -> None:
    """Revoke a key: it opens nothing any more.

    \b
    Examples:
      signalbox keys revoke petstore mobile-app
    """
    from ctl.client import connect  # noqa: PLC0415

    async with connect(connection) as client:
        listed = await client.request("GET", _path(api, ""))
        if all(key["name"] != name for key in listed["apiKeys"]):
            raise NotFound(f"api/{api} has no key {name!r}")
        await client.request("DELETE", _path(api, name))
    output.say(f"key {name} of api/{api} revoked")


_COLUMNS: tuple[kinds.Column, ...] = (
    kinds.field("name"),
    kinds.field("displayName"),
    kinds.field("apiKey"),
    kinds.field("status"),
    kinds.field("expiresAt"),
    kinds.field("source"),
    kinds.field("createdBy"),
    kinds.age("createdAt"),
)


def _path(api: str, name: str) -> str:
    from ctl.client import part  # noqa: PLC0415

    keys = f"/{kinds.REST_API.collection}/{part(api)}/api-keys"
    return f"{keys}/{part(name)}" if name else keys


async def _ask(
    connection: Connection,
    method: str,
    api: str,
    name: str,
    body: Json | None = None,
    action: str = "",
) -> Json:
    from ctl.client import connect  # noqa: PLC0415

    async with connect(connection) as client:
        answer: Json = await client.request(method, _path(api, name) + action, body=body)
        return answer


def _asked(**fields: object) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


def _expiry(expires_in: str | None, expires_at: str | None) -> Json:
    if expires_in and expires_at:
        raise Misused("give either --expires-in or --expires-at")
    if expires_in:
        return {"expiresIn": lifetime(expires_in)}
    if expires_at:
        return {"expiresAt": zulu(moment(expires_at, datetime.now(UTC)))}
    return {}


def _key(file: str | None) -> str | None:
    from ctl.records import secret_of  # noqa: PLC0415

    return secret_of(file)


def _show_new(api: str, answer: Json, form: KeyFormat, *, given: bool) -> None:
    key: Json = answer["apiKey"]
    match form:
        case KeyFormat.JSON:
            output.say(output.as_json(answer))
        case KeyFormat.YAML:
            output.say(output.as_yaml(answer).rstrip("\n"))
        case KeyFormat.NAME:
            output.say(str(key["name"]))
        case KeyFormat.KEY:
            output.say(str(key.get("apiKey") or ""))
        case KeyFormat.TABLE:
            expires = f", expires {key['expiresAt']}" if key.get("expiresAt") else ""
            output.say(f"key {key['name']} of api/{api}{expires}")
            if not given:
                output.say(str(key["apiKey"]))
                output.note("keep it: it is not shown again")
