"""Which gateway a command talks to, and as whom: flags, then environment, then client.json.

`signalbox up` writes `client.json` into the data folder. Its password belongs to its address: it
is never sent to another one.
"""

import asyncio
import functools
import inspect
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec
from urllib.parse import urlsplit

import typer

from ctl.errors import ExitCode, Misused

DEFAULT_URL = "http://127.0.0.1:9090"
DEFAULT_USER = "admin"
DEFAULT_DATA = "~/.signalbox"

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class Connection:
    """The address of a gateway's management API and of its bus, and who asks."""

    url: str  # without a trailing slash
    user: str = ""
    password: str = field(default="", repr=False)
    data: Path = field(default_factory=lambda: Path(DEFAULT_DATA).expanduser())
    known: dict[str, Any] = field(default_factory=dict, repr=False)
    """The data folder's client.json; empty when there is none."""


def client_file(data: Path) -> dict[str, Any]:
    """The client.json of data folder `data`; empty when there is none. Raises Misused."""
    path = data / "client.json"
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise Misused(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise Misused(f"{path} is not a JSON object")
    return content


def connection(
    url: str | None = None,
    user: str | None = None,
    password: str | None = None,
    data: str | None = None,
) -> Connection:
    """The connection that these settings mean; None: not given. Raises Misused."""
    folder = Path(data or DEFAULT_DATA).expanduser()
    known = client_file(folder)
    known_url = str(known.get("url") or "").rstrip("/")
    address = (url or known_url or DEFAULT_URL).rstrip("/")
    if not _is_http_url(address):
        raise Misused(f"--url {address!r} is not an http or https URL")
    if address == known_url:
        user = user or known.get("user")
        if user == known.get("user"):
            password = password or known.get("password")
    if password and not user:
        user = DEFAULT_USER
    return Connection(address, user or "", password or "", folder, known)


def _is_http_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


_PANEL = "Connection"
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        envvar="SIGNALBOX_URL",
        metavar="URL",
        help=f"Address of the management API [default: client.json, or {DEFAULT_URL}].",
        rich_help_panel=_PANEL,
    ),
]
User = Annotated[
    str | None,
    typer.Option(
        "--user",
        envvar="SIGNALBOX_ADMIN_USER",
        metavar="NAME",
        help="User of the management API [default: client.json].",
        rich_help_panel=_PANEL,
    ),
]
Password = Annotated[
    str | None,
    typer.Option(
        "--password",
        envvar="SIGNALBOX_ADMIN_PASSWORD",
        metavar="TEXT",
        help="Its password; prefer the variable, others can see a command line.",
        rich_help_panel=_PANEL,
        show_default=False,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        envvar="SIGNALBOX_DATA",
        metavar="DIR",
        help=f"Data folder of the gateway, for its client.json [default: {DEFAULT_DATA}].",
        rich_help_panel=_PANEL,
    ),
]
_FLAGS = {"url": Url, "user": User, "password": Password, "data": Data}


def connected(
    command: Callable[Concatenate[Connection, P], Coroutine[Any, Any, None]],
) -> Callable[..., None]:
    """`command` with the connection flags added, called with the Connection they mean."""

    @functools.wraps(command)
    def with_flags(*args: Any, **flags: Any) -> None:  # noqa: ANN401 - the command's own
        where = connection(**{name: flags.pop(name) for name in _FLAGS})
        try:
            asyncio.run(command(where, *args, **flags))
        except KeyboardInterrupt:
            raise typer.Exit(ExitCode.INTERRUPTED) from None

    own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in _FLAGS.items()
    ]
    with_flags.__signature__ = inspect.Signature([*own, *flags])  # type: ignore[attr-defined]
    return with_flags
