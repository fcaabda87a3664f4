"""oidc-login.

Source: OpenID Connect Core 1.0, RFC 6749 section 4.1 (code flow), RFC 7636 (PKCE).
"""

import re
from hashlib import sha256
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, field_validator, model_validator

from bus.resources.document import PositiveDuration, duration_s
from policy_engine.errors import PolicyNotCompiled
from policy_engine.identity.claims import NAMELESS
from policy_engine.identity.remote_keys import remote_jwks
from policy_engine.lua import constants, lua, program
from policy_engine.parameters.headers import (
    APPLICATION_HEADER,
    PRIVATE_PREFIX,
    EditableHeaderName,
    header_mutation,
)
from policy_engine.parameters.paths import PathValue
from policy_engine.parameters.urls import Origin, Url
from policy_engine.policy import (
    Document,
    HttpFilter,
    OwnPath,
    Policy,
    Refusal,
    Scope,
    Secret,
    Service,
    Version,
    literal,
    slow_digest,
    typed,
)
from policy_engine.shadow import looking

_OAUTH2 = "envoy.extensions.filters.http.oauth2.v3.OAuth2"
_JWT = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
_ID_TOKEN_HEADER = f"{PRIVATE_PREFIX}id-token"
_LONGEST_TOKEN_BYTES = 8192
_SCOPE = re.compile(r"[!#-\[\]-~]+")
_UNAUTHORIZED: Document = {"error": "Unauthorized", "message": "Login required"}
_FAILED: Document = {"error": "Unauthorized", "message": "The login failed. Please try again."}
_COOKIES = {
    "bearer_token": "token",
    "oauth_hmac": "seal",
    "oauth_expires": "expires",
    "id_token": "id",
    "refresh_token": "refresh",
    "oauth_nonce": "nonce",
    "code_verifier": "verifier",
}


def _scope(scope: str) -> str:
    if not _SCOPE.fullmatch(scope):
        raise ValueError(f"{scope!r} is not a scope")
    return scope


def _plain(secret: SecretStr) -> SecretStr:
    if not secret.get_secret_value().isprintable():
        raise ValueError("must not contain line breaks or other control characters")
    return secret


Text = Annotated[str, Field(min_length=1, max_length=1024, pattern="^[!-~]+$")]


class OidcLogin(Policy):
    """Sends people to an OpenID provider to log in, and lets them pass with a session afterwards.

    Browsers without a session are redirected to the provider (authorization code flow with PKCE)
    and come back to where they were. The session is in cookies of the browser, encrypted and sealed
    with what is derived from the client secret: nothing is stored, it outlives restarts and is the
    same for all routers; a new client secret ends all sessions. Requests that cannot follow a
    redirect are answered 401: other methods than `GET` and `HEAD`, and those that scripts of a page
    make. Cookies are `Secure`: use HTTPS (browsers make an exception for `localhost`).

    `callbackPath` and `signOutPath` lie below the API's context and need no operation. Register the
    callback at the provider as `{publicUrl}{context}{callbackPath}`. Nothing of the session reaches
    the upstream but what the parameters name. Upstreams, reports and later policies know who calls,
    by `userIdClaim`, when there is a `jwksUri`.
    """

    name: ClassVar[str] = "oidc-login"
    version: ClassVar[Version] = Version(1, 1, 0)
    refusals: ClassVar[tuple[Refusal, ...]] = (
        Refusal(
            "Unauthorized, and redirecting to OAuth server is not allowed",
            401,
            _UNAUTHORIZED,
            prefix=True,
        ),
        Refusal("Failed to refresh the access token", 401, _UNAUTHORIZED, prefix=True),
        *(
            Refusal(details, 401, _FAILED, prefix=True)
            for details in (
                "CSRF token validation failed",
                "Code or state query param does not exist",
                "Code verifier cookie is missing",
                "Failed to decrypt code verifier",
                "Failed to get access token",
                "OAuth server returned an error",
                "State ",
            )
        ),
        Refusal(
            "OAuth2 secrets are not ready",
            503,
            {
                "error": "Service Unavailable",
                "message": "The gateway is not ready for logins yet. Please try again.",
            },
            headers=(("retry-after", "1"),),
        ),
    )
    example: ClassVar[Document] = {
        "authorizationEndpoint": "https://login.example.com/authorize",
        "tokenEndpoint": "https://login.example.com/token",
        "endSessionEndpoint": "https://login.example.com/logout",
        "clientId": "orders",
        "clientSecret": "correct horse battery staple",
        "scopes": ["openid", "email"],
        "publicUrl": "https://api.example.com",
        "forwardAccessToken": True,
    }

    authorization_endpoint: Url
    """Where people log in: a URL of the provider, as their browsers reach it."""

    token_endpoint: Url
    """Where the gateway gets tokens: a URL of the provider, as routers reach it."""

    end_session_endpoint: Url | None = None
    """Where people log out at the provider; without it signing out ends the session with the
    gateway only."""

    issuer: Text | None = None
    """What ID tokens must say in `iss`; needs `jwksUri`."""

    jwks_uri: Url | None = None
    """Where the provider publishes its keys. With it ID tokens are verified: signature, audience,
    time and `issuer`."""

    client_id: Text
    """How the provider knows the gateway."""

    client_secret: Annotated[
        SecretStr, Field(min_length=1, max_length=1024), AfterValidator(_plain)
    ]
    """The secret that the provider has given out for `clientId`."""

    client_authentication: Literal["body", "basic"] = "body"
    """How the gateway shows its secret to the token endpoint: in the body or by HTTP basic
    authentication."""

    scopes: Annotated[
        tuple[Annotated[str, Field(max_length=256), AfterValidator(_scope)], ...],
        Field(min_length=1, max_length=50),
    ] = ("openid",)
    """What is asked for."""

    public_url: Origin | None = None
    """How callers reach the gateway: scheme, host, and the port if it is not the scheme's. Without
    it, scheme and host of the request; set it where callers use another port or name."""

    callback_path: PathValue = "/oauth2/callback"
    """Where the provider sends people back to, below the API's context."""

    sign_out_path: PathValue = "/oauth2/signout"
    """What ends a session when it is called with `GET`, below the API's context."""

    cookie_domain: Annotated[str, Field(max_length=253, pattern=r"^[A-Za-z0-9.-]+$")] | None = None
    """The domain that cookies are for; without it, the host of the request only."""

    cookie_same_site: Literal["lax", "none"] = "lax"
    """Whether browsers send the cookies with requests that other sites cause: only when somebody
    follows a link there (`lax`), or always."""

    refresh_tokens: bool = True
    """Whether sessions are prolonged with refresh tokens, where the provider gives any."""

    refresh_token_lifetime: PositiveDuration = "168h"  # noqa: S105 - how long, not what
    """How long a refresh token is good that does not say so itself."""

    forward_access_token: bool = False
    """Whether the upstream gets the access token, in `Authorization`; what a caller sends there is
    removed in any case."""

    forward_id_token: EditableHeaderName | None = None
    """The header in which the upstream gets the ID token."""

    user_id_claim: Text = "sub"
    """The claim of the ID token that says who calls; looked at when there is a `jwksUri`."""

    claim_mappings: dict[Text, EditableHeaderName] = {}
    """Claims of the ID token and the headers in which the upstream gets them; needs `jwksUri`. What
    the caller sent there is removed."""

    @field_validator("callback_path", "sign_out_path")
    @classmethod
    def _below(cls, path: str) -> str:
        if path == "/" or "*" in path or "{" in path or path.endswith("/") or "//" in path:
            raise ValueError("must be the exact path of something, such as /oauth2/callback")
        return path

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.callback_path == self.sign_out_path:
            raise ValueError("callbackPath and signOutPath must differ")
        if self.jwks_uri is None and (self.claim_mappings or self.issuer is not None):
            raise ValueError("issuer and claimMappings need jwksUri")
        if "openid" not in self.scopes and (
            self.jwks_uri is not None
            or self.end_session_endpoint is not None
            or self.forward_id_token is not None
        ):
            raise ValueError("jwksUri, endSessionEndpoint and forwardIdToken need the scope openid")
        return self

    def shadow(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One `lua` filter that looks for a session; who is not asked to log in gets none here."""
        cookies = self._cookies(scope)
        config = looking(
            self.name,
            program("oidc_shadow.lua"),
            SEAL=cookies["oauth_hmac"],
            EXPIRES=cookies["oauth_expires"],
            REFRESH=cookies["refresh_token"] if self.refresh_tokens else None,
        )
        return (HttpFilter(scope.unique(self.name), config),)

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """`oauth2`, `jwt_authn` for the ID token, `lua` that takes the session off."""
        if scope.repeats(self.name):
            raise PolicyNotCompiled(self.name, "a request would meet it twice")
        name = scope.unique(self.name)
        made = [HttpFilter(name, typed(_OAUTH2, {"config": self._config(scope)}))]
        if self.jwks_uri is not None:
            made.append(HttpFilter(f"{name}.id-token", self._verified(self.jwks_uri, scope)))
        session = constants(SESSION=list(self._cookies(scope).values()))
        made.append(HttpFilter(f"{name}.cookies", lua(session + program("oidc_login.lua"))))
        private = [{"remove": _ID_TOKEN_HEADER}] if self.forward_id_token is None else []
        made.append(HttpFilter(f"{name}.known", header_mutation([*private, NAMELESS])))
        return tuple(made)

    def services(self, scope: Scope) -> tuple[Service, ...]:
        """The provider."""
        del scope
        urls = (self.token_endpoint, self.jwks_uri)
        return tuple(Service(url) for url in urls if url is not None)

    def secrets(self, scope: Scope) -> tuple[Secret, ...]:
        """The client secret, and what cookies are encrypted and sealed with."""
        del scope
        return (self._client_secret, self._cookie_secret)

    def own_paths(self, scope: Scope) -> tuple[OwnPath, ...]:
        """Callback and signing out."""
        del scope
        owner = self._owner()
        return tuple(OwnPath(path, owner) for path in (self.callback_path, self.sign_out_path))

    @property
    def _client_secret(self) -> Secret:
        return Secret(self.client_secret.get_secret_value())

    @property
    def _cookie_secret(self) -> Secret:
        purpose = f"oidc-login cookies of {self.client_id}"
        return Secret(slow_digest(self.client_secret.get_secret_value(), purpose))

    def _owner(self) -> str:
        """Says all that the policy is: what answers its paths."""
        whole = self.model_dump_json(exclude={"client_secret"}) + self._cookie_secret.name
        return sha256(whole.encode()).hexdigest()

    def _cookies(self, scope: Scope) -> dict[str, str]:
        """Names that only logins of the same kind at the same API share."""
        login = (
            scope.context,
            self.client_id,
            self.authorization_endpoint,
            self.token_endpoint,
            self.cookie_domain,
            *self.scopes,
            self._cookie_secret.name,
        )
        digest = sha256(repr(login).encode()).hexdigest()[:12]
        return {name: f"login-{word}-{digest}" for name, word in _COOKIES.items()}

    def _id_token_header(self) -> str | None:
        if self.forward_id_token is not None:
            return self.forward_id_token.lower()
        return _ID_TOKEN_HEADER if self.jwks_uri is not None else None

    def _config(self, scope: Scope) -> Document:
        context = "" if scope.context == "/" else scope.context
        origin = "%REQ(:scheme)%://%REQ(:authority)%"
        if self.public_url is not None:
            origin = literal(self.public_url)
        cookie: Document = {"same_site": self.cookie_same_site.upper(), "path": scope.context}
        config: Document = {
            "token_endpoint": {
                "cluster": Service(self.token_endpoint).cluster,
                "uri": self.token_endpoint,
                "timeout": "10s",
            },
            "authorization_endpoint": self.authorization_endpoint,
            "redirect_uri": origin + literal(context + self.callback_path),
            "original_request_uri": origin,
            "redirect_path_matcher": {"path": {"exact": context + self.callback_path}},
            "signout_path": {"path": {"exact": context + self.sign_out_path}},
            "credentials": {
                "client_id": self.client_id,
                "token_secret": self._client_secret.config,
                "hmac_secret": self._cookie_secret.config,
                "cookie_names": self._cookies(scope),
                **({"cookie_domain": self.cookie_domain} if self.cookie_domain else {}),
            },
            "cookie_configs": {f"{kind}_cookie_config": cookie for kind in _COOKIES},
            "auth_type": "BASIC_AUTH"
            if self.client_authentication == "basic"
            else "URL_ENCODED_BODY",
            "auth_scopes": list(self.scopes),
            "forward_bearer_token": self.forward_access_token,
            "use_refresh_token": self.refresh_tokens,
            "default_refresh_token_expires_in": f"{duration_s(self.refresh_token_lifetime):.0f}s",
            "deny_redirect_matcher": list(_SCRIPTS),
        }
        if self.public_url is not None:
            config["allowed_redirect_domains"] = [urlsplit(self.public_url).hostname]
        if self.end_session_endpoint is not None:
            config["end_session_endpoint"] = self.end_session_endpoint
            config["post_logout_redirect_uri"] = {"uri": origin + "/"}
        header = self._id_token_header()
        if header is not None:
            config["forward_id_token"] = {"header": header}
        return config

    def _verified(self, jwks_uri: str, scope: Scope) -> Document:
        system = scope.system
        provider: dict[str, Any] = {
            "from_headers": [{"name": self._id_token_header()}],
            "forward": True,
            "audiences": [self.client_id],
            "require_expiration": True,
            "clock_skew_seconds": system.jwt_leeway_s,
            "claim_to_headers": [
                {"header_name": header.lower(), "claim_name": claim}
                for claim, header in (
                    *self.claim_mappings.items(),
                    (self.user_id_claim, APPLICATION_HEADER),
                )
            ],
            "remote_jwks": remote_jwks(Service(jwks_uri), system),
        }
        if self.issuer is not None:
            provider["issuer"] = self.issuer
        if system.jwt_token_caching:
            provider["jwt_cache_config"] = {
                "jwt_cache_size": system.jwt_token_cache_entries,
                "jwt_max_token_size": _LONGEST_TOKEN_BYTES,
            }
        rules = [{"match": {"prefix": "/"}, "requires": {"provider_name": "id-token"}}]
        return typed(_JWT, {"providers": {"id-token": provider}, "rules": rules})


_SCRIPTS: tuple[Document, ...] = (
    {
        "name": ":method",
        "string_match": {"safe_regex": {"regex": "GET|HEAD"}},
        "invert_match": True,
    },
    {
        "name": "x-requested-with",
        "string_match": {"exact": "XMLHttpRequest", "ignore_case": True},
    },
    {
        "name": "sec-fetch-mode",
        "string_match": {"safe_regex": {"regex": "cors|same-origin|websocket"}},
    },
)
"""Requests that cannot follow a redirect to a login."""
