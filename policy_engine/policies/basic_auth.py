"""basic-auth.

Source: RFC 7617.
"""

from base64 import b64encode
from hashlib import sha1, sha256
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field, SecretStr

from policy_engine.headers import APPLICATION_HEADER
from policy_engine.lua import program
from policy_engine.policy import (
    Document,
    HttpFilter,
    Policy,
    Refusal,
    Scope,
    Version,
    typed,
)
from policy_engine.shadow import looking

_FILTER = "envoy.extensions.filters.http.basic_auth.v3.BasicAuth"
_UNAUTHORIZED: Document = {"error": "Unauthorized", "message": "Authentication required"}
# the lines of an htpasswd file: a colon ends the name, `#` begins a comment, ends are trimmed
_USERNAME = r"^[!-\"$&-9;-~]([ -$&-9;-~]*[!-$&-9;-~])?$"


def _typeable(password: SecretStr) -> SecretStr:
    if not password.get_secret_value().isprintable():
        raise ValueError("must not contain line breaks or other control characters")
    return password


class BasicAuth(Policy):
    """Lets only requests with one user name and its password pass.

    The gateway's routers hold a digest of the password; the record, the events and the answers of
    the management API hold it as it was written. The `Authorization` header is forwarded; a
    `remove-headers` behind this policy takes it off. The user name is the application on usage
    events.
    """

    name: ClassVar[str] = "basic-auth"
    version: ClassVar[Version] = Version(1, 0, 3)
    refusals: ClassVar[tuple[Refusal, ...]] = tuple(
        Refusal(f"{reason}_for_basic_auth", 401, _UNAUTHORIZED)
        for reason in ("no_credential", "invalid_scheme", "invalid_format", "invalid_credential")
    )
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
        """One `lua` filter that knows a digest of the only good credentials."""
        good = b64encode(f"{self.username}:{self.password.get_secret_value()}".encode())
        script = program("sha256.lua") + "\n" + program("basic_auth_shadow.lua")
        config = looking(
            self.name,
            script,
            DIGEST=sha256(good).hexdigest(),
            OPTIONAL=self.allow_unauthenticated,
        )
        return (HttpFilter(scope.unique(self.name), config),)

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One `basic_auth` filter; SHA-1 is the only digest it knows."""
        password = self.password.get_secret_value().encode()
        digest = b64encode(sha1(password, usedforsecurity=False).digest()).decode()
        config: Document = {
            "users": {"inline_string": f"{self.username}:{{SHA}}{digest}\n"},
            "forward_username_header": APPLICATION_HEADER,
            "realm": self.realm,
        }
        if self.allow_unauthenticated:
            config["allow_missing"] = True
        return (HttpFilter(scope.unique(self.name), typed(_FILTER, config)),)
