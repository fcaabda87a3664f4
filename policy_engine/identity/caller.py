"""Who calls, as the policies before have found out.

Three ways lead here: the payload of a token that `jwt-auth` has verified, what a Python policy has
published, and the header in which every authenticating policy names the application. None of them
can be written by a caller.
"""

from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from policy_engine.hooks import EXCHANGE_NAMESPACE, Exchange
from policy_engine.identity.claims import JWT_FILTER, PAYLOAD
from policy_engine.parameters.headers import APPLICATION_HEADER

IDENTITY = "identity"
"""Key of what a Python policy publishes about the caller: `{type, provider, claims}`."""

_LARGEST_EXACT = 1 << 53  # of the integers that a double holds

NAMESPACES = (JWT_FILTER, EXCHANGE_NAMESPACE)
"""What a policy must ask for that looks at the caller."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller who has proved to be one."""

    subject: str
    kind: str = ""  # `jwt` or `opaque`; empty when only the application is known
    claims: dict[str, Any] = field(default_factory=dict)  # of the token


def identity(exchange: Exchange) -> Identity | None:
    """Who calls; None when no policy has asked."""
    found: dict[str, Any] | None = exchange.metadata.get(JWT_FILTER, {}).get(PAYLOAD)
    kind = "jwt"
    if found is None and (published := published_identity(exchange)) is not None:
        found, kind = published["claims"], str(published["type"])
    application = exchange.request.headers.get(APPLICATION_HEADER)
    if found is not None:
        named = found.get("sub") or found.get("client_id")
        return Identity(str(named or unquote(application or "")), kind, dict(found))
    return None if application is None else Identity(unquote(application))


def published_identity(exchange: Exchange) -> dict[str, Any] | None:
    """What a Python policy before, in this hop or an earlier one, has said of the caller."""
    found = exchange.published.get(IDENTITY)
    if found is None:
        found = exchange.metadata.get(EXCHANGE_NAMESPACE, {}).get(IDENTITY)
    return found if isinstance(found, dict) else None


def claim(claims: dict[str, Any], name: str) -> object:
    """Claim `name`, dots leading into objects; None without it."""
    if name in claims or "." not in name:
        return claims.get(name)
    value: object = claims
    for part in name.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


def whole(value: object) -> object:
    """A claim with the integers that it had before it was metadata, which knows none."""
    match value:
        case float() if value.is_integer() and abs(value) <= _LARGEST_EXACT:
            return int(value)
        case list():
            return [whole(one) for one in value]
        case dict():
            return {name: whole(one) for name, one in value.items()}
        case _:
            return value


def texts(value: object) -> tuple[str, ...]:
    """A claim as the texts it is made of: of a list every item, of a number what JSON calls it."""
    if value is None or isinstance(value, dict):
        return ()
    if isinstance(value, list | tuple):
        return tuple(text for one in value for text in texts(one))
    if isinstance(value, bool):
        return ("true" if value else "false",)
    if isinstance(value, float) and value.is_integer():
        return (str(int(value)),)  # metadata knows no integers
    return (str(value),)
