"""What policies are told by whoever runs the gateway, not by whoever writes an API."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, model_validator

from bus.resources.document import TimeZone
from policy_engine.identity.token_issuers import IntrospectionProvider, KeyManager

SigningAlgorithm = Literal["RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]


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

    jwt_failure_status: int = Field(default=401, ge=400, le=499)
    """The status with which `jwt-auth` refuses."""

    jwt_error_format: Literal["json", "plain", "minimal"] = "json"
    """What the body of its refusals is: `{"error": "Unauthorized", "message": ...}`, the message as
    text, or the word Unauthorized."""

    jwt_error_message: Annotated[str, Field(min_length=1, max_length=1000)] = (
        "Authentication failed"
    )
    """The message of its refusals."""

    client_authorities_file: Path | None = None
    """PEM file of the authorities that sign certificates of callers, for `mtls-client-identity`.
    Set, the HTTPS listener asks every caller for a certificate; who has none is served all the
    same, but by that policy. Read once, at start."""

    client_revocations_file: Path | None = None
    """PEM file of what these authorities have revoked (CRL), one list for each of them. Connections
    with a revoked certificate are ended."""

    introspection_providers: tuple[IntrospectionProvider, ...] = ()
    """Whose opaque tokens `opaque-token-auth` can trust: a list of `{name, issuer, token_pattern,
    introspection}`, where `introspection` is `{uri, client_id, client_secret, auth_style,
    bearer_token, token_type_hint, certificate_path, skip_tls_verify}`. They are asked in this
    order."""

    introspection_cache_ttl_s: float = Field(default=60, ge=0)
    """How long a live token is believed without asking again, seconds, and never longer than it is
    valid. Longer asks less; a revoked token opens that much longer. 0: every request asks."""

    introspection_negative_cache_ttl_s: float = Field(default=30, ge=0)
    """How long a dead token is refused without asking again, seconds. 0: every request asks."""

    introspection_cache_entries: int = Field(default=100_000, ge=1, le=10_000_000)
    """How many live, and how many dead tokens of each provider a worker of the engine remembers;
    the oldest are forgotten first. One takes about 1 KB."""

    introspection_timeout_s: float = Field(default=5, gt=0, le=60)
    """How long asking about one token may take, seconds, retries included."""

    introspection_retries: int = Field(default=2, ge=0, le=10)
    """How often a provider that did not answer is asked again within that time."""

    introspection_retry_interval_s: float = Field(default=1, ge=0)
    """How long to wait before that, seconds."""

    backend_jwt_key: SecretStr = SecretStr("")
    """The PEM of the RSA or EC private key with which `backend-jwt` signs. Components on several
    machines must be given the same. Neither it nor `backend_jwt_key_path`: a key is made once and
    kept in the data folder."""

    backend_jwt_key_path: Path | None = None
    """A file that holds it."""

    backend_jwt_algorithm: SigningAlgorithm = "RS256"
    """How `backend-jwt` signs: RS256, RS384, RS512 (RSA), ES256, ES384 or ES512 (EC). It must fit
    the key. ES256 signs several times faster than RS256, and its tokens are shorter."""

    backend_jwt_issuer: str = "signalbox"
    """The claim `iss` of the tokens of `backend-jwt`, such as the gateway's URL."""

    backend_jwt_expiry_s: int = Field(default=900, ge=10, le=86_400)
    """How long the tokens of `backend-jwt` are valid, seconds. Longer signs less; a token that
    leaks is of use longer."""

    interceptor_max_response_bytes: int = Field(default=1 << 20, ge=1024, le=64 << 20)
    """How long the answers of interceptor services may be, bytes; longer ones count as failures."""

    log_message_max_payload_bytes: int = Field(default=16_384, ge=0, le=1 << 20)
    """How much of a payload `log-message` writes, bytes; the rest is cut off."""

    log_message_masked_headers: tuple[str, ...] = ()
    """Headers whose values `log-message` masks, beside those that are known to hold secrets."""

    url_guardrail_private_addresses: bool = False
    """Whether `url-guardrail` may contact servers on private, loopback and link-local addresses.
    On, callers can find out which servers the gateway reaches."""

    rate_limiter: bool = False
    """Whether a rate limiter runs beside the routers, which the backends `redis` and
    `redis-local-async` need. Set by the tier: on in Standard."""

    ratelimit_backend: Literal["memory", "redis", "redis-local-async"] = "memory"
    """Who counts the limits of policies that do not say it: each router by itself (`memory`), all
    together by one question per request (`redis`), or all together from balanced shares
    (`redis-local-async`)."""

    ratelimit_algorithm: Literal["fixed-window", "sliding-window", "gcra"] = "fixed-window"
    """How shared limits are counted where a policy does not say it."""

    ratelimit_time_zone: TimeZone = "UTC"
    """Whose calendar the hours, days, weeks and months of quotas and subscription plans are that do
    not say it: the IANA name of a time zone, such as `Europe/Zurich`. A change begins their counts
    anew. Minutes and limits with a duration know no calendar."""

    ratelimit_when_away: Literal["local", "open", "closed"] = "local"
    """What holds while the rate limiter or its store is away: the router's and the limiter's own
    counts (`local`), nothing (`open`: all requests pass), or all requests are refused (`closed`:
    503)."""

    ratelimit_timeout_s: float = Field(default=0.25, gt=0, le=10)
    """How long a router waits for the rate limiter, seconds, before it counts as away. It bounds
    what a request can lose; too short, and limits are not exact when the machine is busy."""

    ratelimit_memory_entries: int = Field(default=10_000, ge=1, le=10_000_000)
    """Buckets of each limit that a router keeps by itself; the least used are forgotten first. A
    bucket takes about 300 bytes."""

    ratelimit_ip: Literal["forwarded", "trusted"] = "forwarded"
    """What the key type `ip` is: what callers say in `X-Forwarded-For`, else in `X-Real-IP`, else
    their address (`forwarded`); or their address, behind `trusted_proxies` what those say
    (`trusted`). A caller can lie in those headers and so escape a limit: choose `trusted` where
    callers reach the gateway without a proxy that cleans them."""

    ratelimit_x_headers: bool = True
    """Whether callers are told of limits in `X-RateLimit-*`."""

    ratelimit_ietf_headers: bool = True
    """Whether callers are told of limits in `RateLimit` and `RateLimit-Policy`, the current draft
    of the IETF."""

    ratelimit_retry_after: bool = True
    """Whether refused callers are told in `Retry-After` when to come again."""

    policies_folder: Path | None = None
    """Folder of policies of your own, watched while the gateway runs: Python files and packages,
    see `docs/writing-policies.md`. Unset: `policies` in the data folder. Its code runs inside the
    gateway with all its rights; a folder or file that everybody may write to is refused."""

    policies_poll_s: float = Field(default=0.5, ge=0.05)
    """How often `policies_folder` is looked at, seconds; a change takes effect when nothing changed
    between two looks. A look costs about 20 microseconds a file."""

    policies_import_timeout_s: float = Field(default=10, gt=0)
    """How long the import of one file of `policies_folder` may take, seconds; then the file is
    refused and its last good version goes on."""

    _client_authorities: str = PrivateAttr(default="")
    _client_revocations: str = PrivateAttr(default="")

    def model_post_init(self, _: object) -> None:
        """Read the files once. Raises ValueError."""
        if self.client_authorities_file is not None:
            from policy_engine.identity.certificates import authorities  # noqa: PLC0415

            self._client_authorities = authorities(self.client_authorities_file)
        if self.client_revocations_file is not None:
            from policy_engine.identity.certificates import revocations  # noqa: PLC0415

            if self.client_authorities_file is None:
                raise ValueError("client_revocations_file needs client_authorities_file")
            self._client_revocations = revocations(self.client_revocations_file)

    @property
    def client_authorities(self) -> str:
        """PEM; empty: callers are not asked for certificates."""
        return self._client_authorities

    @property
    def client_revocations(self) -> str:
        """PEM of certificate revocation lists; empty: none."""
        return self._client_revocations

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        for what, parts in (
            ("key managers", self.key_managers),
            ("introspection providers", self.introspection_providers),
        ):
            names = [one.name for one in parts]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"several {what} are called {twice[0]!r}")
        return self

    @model_validator(mode="after")
    def _signing_key(self) -> Self:
        inline = self.backend_jwt_key.get_secret_value()
        if inline and self.backend_jwt_key_path is not None:
            raise ValueError("only one of backend_jwt_key and backend_jwt_key_path can be given")
        if inline or self.backend_jwt_key_path is not None:
            from policy_engine.identity.signing import signing_key  # noqa: PLC0415

            signing_key(self)
        return self
