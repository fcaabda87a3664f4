"""api-key-auth."""

import string
from functools import lru_cache
from hashlib import sha256
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from policy_engine.lua import Value, program
from policy_engine.parameters.headers import APPLICATION_HEADER, PRIVATE_PREFIX, caller, editable
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

_DIGEST_HEADER = f"{PRIVATE_PREFIX}api-key"
_AUTH = "envoy.extensions.filters.http.api_key_auth.v3.ApiKeyAuth"
_LUA = "envoy.extensions.filters.http.lua.v3.Lua"
_UNAUTHORIZED: Document = {"error": "Unauthorized", "message": "Valid API key required"}


class ApiKeyAuth(Policy):
    """Lets only requests with a live API key of this API pass.

    The gateway holds digests of keys only. The key is taken off the request before it is
    forwarded. While the API has no live key, every request is refused.
    """

    name: ClassVar[str] = "api-key-auth"
    version: ClassVar[Version] = Version(1, 2, 1)
    refusals: ClassVar[tuple[Refusal, ...]] = tuple(
        Refusal(details, 401, _UNAUTHORIZED)
        for details in (
            "missing_api_key",
            "unknown_api_key",
            "client_not_allowed",
            "missing_credentials",
            "missing_key_sources",
        )
    )
    example: ClassVar[Document] = {"key": "API-Key", "in": "header"}

    key: Annotated[str, Field(min_length=1, max_length=128)]
    """Where the key is: the name of the header (usually `API-Key`), or of the query parameter."""

    in_: Annotated[Literal["header", "query"], Field(alias="in")]
    """What `key` names: a `header` or a `query` parameter. A request that holds it twice is
    refused."""

    value_prefix: Annotated[str, Field(max_length=64, pattern="^[ -~]*$")] = ""
    """What must stand before the key, such as `Bearer`, in any case; spaces after it are
    skipped."""

    @model_validator(mode="after")
    def _findable(self) -> Self:
        if self.in_ == "header":
            editable(self.key)
        elif not self.key.isprintable() or not self.key.isascii():
            raise ValueError("key must be the printable ASCII name of a query parameter")
        return self

    def shadow(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One `lua` filter that looks the digest up."""
        place = self.key.lower() if self.in_ == "header" else _DIGEST_HEADER
        query = self.key if self.in_ == "query" else None
        source = _script(place, query, self.value_prefix, keep=False)
        script = source + "\n" + program("api_key_shadow.lua")
        live: dict[str, Value] = {one["key"]: True for one in _credentials(scope)}
        config = looking(self.name, script, LIVE=live)
        return (HttpFilter(scope.unique(self.name), config),)

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """`lua` puts the digest where the key was, `api_key_auth` compares and takes it off."""
        header = self.key.lower() if self.in_ == "header" else _DIGEST_HEADER
        source = _script(
            header,
            self.key if self.in_ == "query" else None,
            self.value_prefix,
            keep=scope.level == "api" or scope.repeats(self.name),  # an operation may ask again
        )
        name = scope.unique(self.name)
        lua = typed(
            _LUA,
            {
                "default_source_code": {"inline_string": source},
                "clear_route_cache": False,
                "shared_vm_id": f"{self.name}-{sha256(source.encode()).hexdigest()[:16]}",
            },
        )
        auth = typed(
            _AUTH,
            {
                "credentials": _credentials(scope),
                "key_sources": [{"header": header}],
                "forwarding": {"header": APPLICATION_HEADER, "hide_credentials": True},
            },
        )
        return (HttpFilter(f"{name}.digest", lua), HttpFilter(name, auth))


def _credentials(scope: Scope) -> list[Document]:
    """Sorted, one per digest: the same keys give the same configuration."""
    live = {
        one.digest: one.application
        for one in sorted(scope.credentials, key=lambda one: (one.digest, one.application))
        if scope.key_issuer is None or one.issuer == scope.key_issuer
    }
    return [{"key": digest, "client": caller(application)} for digest, application in live.items()]


@lru_cache(maxsize=64)
def _script(header: str, query: str | None, prefix: str, *, keep: bool) -> str:
    place = f"header {header} {prefix}" if query is None else f"query {query} {prefix}"
    constants = {
        "HEADER": _lua_string(header),
        "QUERY": "nil" if query is None else _lua_string(query),
        "PREFIX": _lua_string(prefix.lower()),
        "PLACE": _lua_string(place),
        "KEEP": "true" if keep else "false",
    }
    defined = "".join(f"local {name}={value}\n" for name, value in constants.items())
    return f"{defined}{program('sha256.lua')}\n{program('api_key_digest.lua')}"


def _lua_string(text: str) -> str:
    plain = string.ascii_letters + string.digits + "-_. "
    return (
        '"'
        + "".join(chr(byte) if chr(byte) in plain else f"\\{byte:03d}" for byte in text.encode())
        + '"'
    )
