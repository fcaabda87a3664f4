"""Whose tokens can be trusted, as whoever runs the gateway says it: key managers, introspection."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    model_validator,
)

from policy_engine.parameters.urls import HttpUrl

Document = dict[str, Any]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class RemoteKeys(_Part):
    """Keys that the router fetches."""

    uri: HttpUrl
    """Where the JWKS is: an http or https URL."""

    certificate_path: Path | None = None
    """PEM file of the authorities that may have signed the server's certificate; unset: those the
    gateway trusts for upstreams."""

    skip_tls_verify: bool = False
    """Whether any certificate will do. Whoever is in between can then forge tokens."""

    _authorities: str = PrivateAttr(default="")

    def model_post_init(self, _: object) -> None:
        """Read the file once. Raises ValueError."""
        if self.certificate_path is not None:
            self._authorities = _read(self.certificate_path)

    @property
    def authorities(self) -> str:
        """PEM; empty for those the gateway trusts."""
        return self._authorities


class LocalKeys(_Part):
    """Keys that are known."""

    inline: str = ""
    """A JWKS, or the PEM of a public key or of certificates."""

    certificate_path: Path | None = None
    """A file that holds the same."""

    _keys: Document = PrivateAttr(default_factory=dict)

    def model_post_init(self, _: object) -> None:
        """Read and check the keys once. Raises ValueError."""
        if (self.certificate_path is None) == (not self.inline):
            raise ValueError("exactly one of inline and certificate_path is required")
        from policy_engine.identity.keys import key_set  # noqa: PLC0415 - slow, and seldom needed

        self._keys = key_set(self.inline or _read(self.certificate_path))

    @property
    def keys(self) -> Document:
        """The JWKS."""
        return self._keys


class KeySource(_Part):
    """Where the keys of a key manager come from."""

    remote: RemoteKeys | None = None
    """A server that publishes them."""

    local: LocalKeys | None = None
    """Here."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.remote is None) == (self.local is None):
            raise ValueError("exactly one of remote and local is required")
        return self


class KeyManager(_Part):
    """Somebody whose tokens can be trusted."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    """How policies name it in `issuers`."""

    issuer: str = ""
    """What its tokens say in `iss`; empty: anything."""

    scope_claim: Annotated[str, Field(min_length=1)] = "scope"
    """The claim that holds scopes, as a list or as text."""

    scope_claim_separator: Annotated[str, Field(min_length=1, max_length=8)] = " "
    """What stands between the scopes when they are text."""

    jwks: KeySource
    """Its keys."""


def _pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return pattern


class Introspection(_Part):
    """A server that says what an opaque token is worth (RFC 7662)."""

    uri: HttpUrl
    """Its introspection endpoint: an http or https URL."""

    client_id: str = ""
    """As whom the gateway asks; with `client_secret`, and without `bearer_token`."""

    client_secret: SecretStr = SecretStr("")
    """The secret of `client_id`."""

    auth_style: Literal["basic", "post"] = "basic"
    """Where the client's credentials go: into the `Authorization` header, or into the form."""

    bearer_token: SecretStr = SecretStr("")
    """A token of the gateway's own, instead of `client_id`."""

    token_type_hint: str = "access_token"  # noqa: S105
    """What the server is told that callers' tokens are; empty: nothing."""

    certificate_path: Path | None = None
    """PEM file of the authorities that may have signed the server's certificate; unset: those the
    machine trusts."""

    skip_tls_verify: bool = False
    """Whether any certificate will do. Whoever is in between then reads every token."""

    _authorities: str = PrivateAttr(default="")

    def model_post_init(self, _: object) -> None:
        """Read the file once. Raises ValueError."""
        self._authorities = _read(self.certificate_path)

    @model_validator(mode="after")
    def _one_way_to_ask(self) -> Self:
        if self.client_id and self.bearer_token.get_secret_value():
            raise ValueError("only one of client_id and bearer_token can be given")
        return self

    @property
    def authorities(self) -> str:
        """PEM; empty for those the machine trusts."""
        return self._authorities


class IntrospectionProvider(_Part):
    """Somebody whose opaque tokens can be trusted."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    """How policies name it in `issuers`."""

    issuer: str = ""
    """Another name for it in `issuers`: what its tokens say in `iss`."""

    token_pattern: Annotated[str, AfterValidator(_pattern)] = ""
    """Regular expression for the tokens that it is asked about; empty: all."""

    introspection: Introspection
    """Its server."""


def _read(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
