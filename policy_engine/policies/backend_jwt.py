"""backend-jwt.

Source: RFC 7519.
"""

import time
from collections import OrderedDict
from typing import Annotated, Any, ClassVar

import orjson
from pydantic import Field, JsonValue, PrivateAttr, field_validator

from policy_engine.errors import PolicyNotCompiled
from policy_engine.hooks import Answer, Exchange, PythonPolicy, json_answer
from policy_engine.identity.caller import NAMESPACES, Identity, claim, identity, whole
from policy_engine.identity.signing import SigningKey, has_signing_key, signing_key
from policy_engine.parameters.headers import EditableHeaderName
from policy_engine.policy import Document, Scope, Version
from policy_engine.system import SystemParameters

_OURS = ("iss", "sub", "iat", "exp")
_TOKENS_MAX = 10_000  # that each use of the policy remembers, about 1 KB each
_LEFT = 0.2  # of its time, that a token has at least when it is sent

ClaimName = Annotated[str, Field(min_length=1, max_length=256)]


def _others(names: list[str]) -> None:
    taken = sorted(set(names).intersection(_OURS))
    if taken:
        raise ValueError(f"the gateway itself says {taken[0]!r}")


class BackendJwt(PythonPolicy):
    """Tells the upstream who calls, in a JSON Web Token that the gateway signs.

    Stands behind the policy that authenticates: `jwt-auth`, `opaque-token-auth`, `basic-auth`,
    `api-key-auth`. The token says `iss` (the gateway), `sub` (who calls), `iat`, `exp`; of callers
    with a token also `auth_type` (`jwt` or `opaque`), `original_iss`, `aud` and `credential_id`
    (their `client_id` or `azp`). What the caller sends in the header is removed. Upstreams verify
    it with the keys at `/_gateway-health/jwks`. Key, algorithm, issuer and expiry are set by
    whoever runs the gateway (`[policies] backend_jwt_*`).
    """

    name: ClassVar[str] = "backend-jwt"
    version: ClassVar[Version] = Version(1, 0, 1)
    why_python: ClassVar[str] = "it signs with the gateway's private key"
    namespaces: ClassVar[tuple[str, ...]] = NAMESPACES
    example: ClassVar[Document] = {
        "header": "X-JWT-Assertion",
        "requireAuthentication": True,
        "claimMappings": {"tenant": "organization"},
        "customClaims": {"env": "production"},
    }

    header: EditableHeaderName = "x-jwt-assertion"
    """The header in which the upstream gets the token."""

    require_authentication: bool = False
    """Whether requests of unknown callers are refused (401); otherwise they go on without a
    token."""

    claim_mappings: dict[ClaimName, ClaimName] = {}
    """Claims of the caller's token, dots leading into objects, and what they are called in the
    gateway's."""

    custom_claims: dict[ClaimName, JsonValue] = {}
    """Claims that every token has, and their values."""

    audiences: Annotated[tuple[ClaimName, ...], Field(max_length=20)] = ()
    """For whom the token is; none: for whom the caller's own token is."""

    _key: tuple[SystemParameters, SigningKey] | None = PrivateAttr(default=None)
    _tokens: OrderedDict[bytes, tuple[float, str]] = PrivateAttr(default_factory=OrderedDict)

    @field_validator("claim_mappings")
    @classmethod
    def _mapped(cls, mappings: dict[str, str]) -> dict[str, str]:
        _others(list(mappings.values()))
        return mappings

    @field_validator("custom_claims")
    @classmethod
    def _custom(cls, claims: dict[str, JsonValue]) -> dict[str, JsonValue]:
        _others(list(claims))
        return claims

    def check(self, scope: Scope) -> None:
        """There is a key. Raises PolicyNotCompiled."""
        if not has_signing_key(scope.system):
            raise PolicyNotCompiled(
                self.name,
                "the gateway has no key to sign with: set backend_jwt_key_path in [policies]",
            )

    def on_request_headers(self, exchange: Exchange) -> Answer | None:
        """Signs only what it has not signed lately."""
        headers = exchange.request.headers
        headers.remove(self.header)
        who = identity(exchange)
        if who is not None:
            headers.set(self.header, self._token(self._said(who), exchange.system))
        elif self.require_authentication:
            body = {"error": "Unauthorized", "message": "Authentication required"}
            return json_answer(401, body, reason="nobody is authenticated")
        return None

    def _said(self, who: Identity) -> dict[str, Any]:
        claims: dict[str, Any] = {"sub": who.subject}
        if who.kind:
            about = {
                "auth_type": who.kind,
                "original_iss": who.claims.get("iss"),
                "aud": who.claims.get("aud"),
                "credential_id": who.claims.get("client_id") or who.claims.get("azp"),
            }
            claims |= {name: value for name, value in about.items() if value}
        for name, target in self.claim_mappings.items():
            if (value := claim(who.claims, name)) is not None:
                claims[target] = whole(value)
        claims |= self.custom_claims
        if self.audiences:
            claims["aud"] = list(self.audiences) if len(self.audiences) > 1 else self.audiences[0]
        return claims

    def _token(self, claims: dict[str, Any], system: SystemParameters) -> str:
        if self._key is None or self._key[0] is not system:
            self._key = (system, signing_key(system))
            self._tokens.clear()
        same = orjson.dumps(claims)
        now = time.time()
        kept = self._tokens.get(same)
        if kept is not None and kept[0] > now:
            return kept[1]
        issued, lasts_s = int(now), system.backend_jwt_expiry_s
        times = {"iss": system.backend_jwt_issuer, "iat": issued, "exp": issued + lasts_s}
        token = self._key[1].token({**claims, **times})
        self._tokens[same] = (issued + lasts_s * (1 - _LEFT), token)
        self._tokens.move_to_end(same)
        if len(self._tokens) > _TOKENS_MAX:
            self._tokens.popitem(last=False)
        return token
