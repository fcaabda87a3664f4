"""What policies are told by whoever runs the gateway, not by whoever writes an API."""

from pathlib import Path
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, model_validator

Document = dict[str, Any]


def _http_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError("must be an http or https URL without credentials")
    if parts.port == 0:  # an invalid one raises ValueError by itself
        raise ValueError("port 0 cannot be reached")
    return url


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class RemoteKeys(_Part):
    """Keys that the router fetches."""

    uri: Annotated[str, AfterValidator(_http_url)]
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
        from policy_engine.keys import key_set  # noqa: PLC0415 - slow, and seldom needed

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


class SystemParameters(BaseModel):
    """TOML table `[policies]`; each field is also the environment variable `SIGNALBOX_<FIELD>`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    key_managers: tuple[KeyManager, ...] = ()
    """Whose tokens `jwt-auth` can trust: a list of `{name, issuer, scope_claim,
    scope_claim_separator, jwks}`, where `jwks` is `{remote = {uri, certificate_path,
    skip_tls_verify}}` or `{local = {inline}}` or `{local = {certificate_path}}`."""

    jwks_cache_ttl_s: float = Field(default=300, ge=1)
    """How long fetched keys are good, seconds; then they are fetched again. Shorter learns of new
    keys sooner."""

    jwks_fetch_timeout_s: float = Field(default=5, gt=0)
    """How long one fetch of keys may take, seconds, retries included."""

    jwks_fetch_retries: int = Field(default=3, ge=0, le=10)
    """How often a failed fetch is tried again within its time."""

    jwks_fetch_retry_interval_s: float = Field(default=2, ge=0.1)
    """How long to wait after a fetch that failed, seconds. It is tried for ever."""

    jwt_leeway_s: int = Field(default=30, ge=1, le=3600)
    """How far clocks may differ when a token's times are checked, seconds."""

    jwt_auth_header_scheme: Annotated[str, Field(pattern=r"^[!-~]*$")] = "Bearer"
    """What stands before a token, unless a policy says otherwise."""

    jwt_header_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]+$")] = "Authorization"
    """The request header that holds a token, unless a policy says otherwise."""

    jwt_validate_issuer: bool = True
    """Whether a token's `iss` must be the issuer of its key manager. Off, its signature alone
    counts."""

    jwt_token_caching: bool = True
    """Whether routers remember tokens they have verified, until they expire. Off, each request
    costs a verification."""

    jwt_token_cache_entries: int = Field(default=100_000, ge=1, le=10_000_000)
    """How many tokens each worker of a router remembers at most, for each use of `jwt-auth`; the
    least used are forgotten first. A token takes 1 to 4 KB."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [one.name for one in self.key_managers]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"several key managers are called {twice[0]!r}")
        return self


def _read(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return path.expanduser().read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from None
