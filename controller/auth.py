"""Who is asking, and whether they may: HTTP basic authentication and roles."""

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Self

from starlette.requests import Request

from controller.errors import Forbidden, Unauthenticated
from controller.passwords import Secret, secret
from controller.settings import ControllerSettings, Role

_REMEMBERED = 1024  # verdicts on presented passwords


@dataclass(frozen=True, slots=True)
class Principal:
    """Somebody whose password was right."""

    name: str
    roles: frozenset[Role]

    @property
    def is_admin(self) -> bool:
        """Whether they may see and change what belongs to others."""
        return "admin" in self.roles


@dataclass(frozen=True, slots=True)
class _Account:
    principal: Principal
    secret: Secret


class Users:
    """The users of the configuration.

    A hashed password costs tens of milliseconds to check: it is checked in a thread, one at a
    time, and the verdict is remembered under a digest keyed with a secret of this process.
    """

    def __init__(self, accounts: Iterable[tuple[Principal, Secret]]) -> None:
        self._accounts = {who.name: _Account(who, known) for who, known in accounts}
        # an unknown name costs what a known one costs
        hashed = (one.secret for one in self._accounts.values() if one.secret.slow)
        self._decoy = next(hashed, secret("", secrets.token_hex()))
        self._key = secrets.token_bytes(32)
        self._verdicts: OrderedDict[bytes, bool] = OrderedDict()
        self._hashing = asyncio.Lock()

    @classmethod
    def configured(cls, settings: ControllerSettings) -> Self:
        """The users of `settings`. Raises InvalidPasswordHash."""
        accounts = [
            (
                Principal(user.name, frozenset(user.roles)),
                secret(user.name, user.password.get_secret_value()),
            )
            for user in settings.users
        ]
        if settings.admin_password is not None:
            admin = Principal(settings.admin_user, frozenset({"admin"}))
            text = settings.admin_password.get_secret_value()
            accounts.append((admin, secret(admin.name, text)))
        return cls(accounts)

    def __len__(self) -> int:
        return len(self._accounts)

    async def verified(self, name: str, password: bytes) -> Principal | None:
        """The user `name` if that is the password."""
        account = self._accounts.get(name)
        known = account.secret if account else self._decoy
        right = await self._matches(name, known, password)
        return account.principal if account and right else None

    async def _matches(self, name: str, known: Secret, password: bytes) -> bool:
        if not known.slow:
            return known.matches(password)
        mark = hmac.digest(self._key, f"{len(name)}:{name}".encode() + password, hashlib.sha256)
        verdict = self._verdicts.get(mark)
        if verdict is not None:
            self._verdicts.move_to_end(mark)
        else:
            async with self._hashing:
                verdict = await asyncio.to_thread(known.matches, password)
            self._verdicts[mark] = verdict
            if len(self._verdicts) > _REMEMBERED:
                self._verdicts.popitem(last=False)
        return verdict


def credentials(header: str) -> tuple[str, bytes] | None:
    """Name and password of an `Authorization: Basic` header (RFC 7617, UTF-8)."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
        return (name.decode(), password) if colon else None
    except (binascii.Error, UnicodeDecodeError):
        return None


def require(*roles: Role) -> Callable[[Request], Awaitable[Principal]]:
    """A FastAPI dependency: the user, if they have one of `roles` (admin has all).

    The application keeps its Users at `app.state.users`. Raises Unauthenticated, Forbidden.
    """
    allowed = frozenset(roles)

    async def principal(request: Request) -> Principal:
        users: Users = request.app.state.users
        presented = credentials(request.headers.get("authorization", ""))
        if presented is None:
            raise Unauthenticated("Authentication is required: HTTP basic user and password")
        who = await users.verified(*presented)
        if who is None:
            raise Unauthenticated("Invalid user name or password")
        request.state.user = who.name
        if not (who.is_admin or who.roles & allowed):
            raise Forbidden(f"This needs one of the roles {', '.join(sorted(allowed))}")
        return who

    return principal
