"""basic-auth.

Source: RFC 7617.
"""

from base64 import b64encode
from hashlib import sha256
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, SecretStr

from policy_engine.lua import Value, constants, lua, program
from policy_engine.parameters.headers import APPLICATION_HEADER
from policy_engine.policy import Document, HttpFilter, Policy, Scope, Version
from policy_engine.shadow import looking

_ENFORCING = """\
local function report(handle)
handle:respond({[":status"] = "401", ["content-type"] = "application/json",
["www-authenticate"] = 'Basic realm="' .. REALM .. '"'},
'{"error":"Unauthorized","message":"Authentication required"}')
end
local function passed(headers)
headers:replace(APPLICATION, USER)
end
"""
_LOOKING = "local function passed() end\n"
# the lines of an htpasswd file: a colon ends the name, `#` begins a comment, ends are trimmed
_USERNAME = r"^[!-\"$&-9;-~]([ -$&-9;-~]*[!-$&-9;-~])?$"


def _typeable(password: SecretStr) -> SecretStr:
    if not password.get_secret_value().isprintable():
        raise ValueError("must not contain line breaks or other control characters")
    return password


class BasicAuth(Policy):
    """Lets only requests with one user name and its password pass; others are refused with 401.

    The gateway's routers hold a digest of the password; the record, the events and the answers of
    the management API hold it as it was written. The `Authorization` header is forwarded; a
    `remove-headers` behind this policy takes it off. The user name is the application on usage
    events.
    """

    name: ClassVar[str] = "basic-auth"
    version: ClassVar[Version] = Version(1, 1, 0)
    example: ClassVar[Document] = {
        "username": "shop",
        "password": "correct horse battery staple",
        "realm": "Orders",
    }

    username: Annotated[str, Field(max_length=255, pattern=_USERNAME)]
    """The user: printable ASCII without `:` and `%`, neither beginning with `#` nor with spaces at
    its ends."""

    password: Annotated[SecretStr, Field(min_length=1, max_length=1024), AfterValidator(_typeable)]
    """The user's password, compared as UTF-8."""

    allow_unauthenticated: bool = False
    """Whether requests without credentials pass too, without an application. Wrong credentials are
    refused all the same."""

    realm: Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[ !#-\[\]-~]+$")] = (
        "Restricted"
    )
    """What is protected, as browsers show it when they ask for the password: printable ASCII
    without `"` and `\\`."""

    def shadow(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """The same `lua` filter, which reports."""
        config = looking(self.name, _LOOKING + _program(), **self._known())
        return (HttpFilter(scope.unique(self.name), config),)

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One `lua` filter that knows a digest of the only good credentials.

        Envoy's `basic_auth` wants the scheme to be written `Basic`, and costs as much.
        """
        told: dict[str, Value] = {
            "REALM": self.realm,
            "APPLICATION": APPLICATION_HEADER,
            "USER": self.username,
        }
        source = constants(**self._known(), **told) + _ENFORCING + _program()
        return (HttpFilter(scope.unique(self.name), lua(source)),)

    def _known(self) -> dict[str, Value]:
        good = b64encode(f"{self.username}:{self.password.get_secret_value()}".encode())
        digest = sha256(good.rstrip(b"=")).hexdigest()
        return {"DIGEST": digest, "OPTIONAL": self.allow_unauthenticated}


def _program() -> str:
    return program("sha256.lua") + "\n" + program("basic_auth.lua")
