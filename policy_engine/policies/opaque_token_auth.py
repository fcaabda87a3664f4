"""opaque-token-auth.

Source: RFC 7662 (introspection), RFC 6750 (how tokens are presented and refused).
"""

import re
import time
from collections.abc import Awaitable
from typing import Annotated, Any, ClassVar

from pydantic import Field, PrivateAttr

from policy_engine.errors import PolicyNotCompiled
from policy_engine.hooks import EXCHANGE_NAMESPACE, Answer, Exchange, PythonPolicy, json_answer
from policy_engine.identity.caller import IDENTITY, claim, published_identity, texts
from policy_engine.identity.introspection import (
    Introspector,
    ProviderUnavailable,
    digest_of,
    introspector,
    number,
)
from policy_engine.identity.scopes import Scopes
from policy_engine.identity.token_issuers import IntrospectionProvider
from policy_engine.parameters.headers import APPLICATION_HEADER, EditableHeaderName, caller
from policy_engine.policy import Document, Scope, Version
from policy_engine.system import SystemParameters

_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
_LONGEST_TOKEN = 8192
_AROUND_S = 0.5  # beside asking
_KIND = "opaque"
_QUOTABLE = re.compile(r"[!#-\[\]-~]+")
"""Scopes as RFC 6749 has them; others are not named in a challenge."""

Text = Annotated[str, Field(min_length=1, max_length=1024)]
Texts = Annotated[tuple[Text, ...], Field(max_length=100)]


class OpaqueTokenAuth(PythonPolicy):
    """Lets only requests with a live opaque token of a trusted provider pass.

    Whoever has issued the token is asked what it is worth (RFC 7662) and remembered for a while.
    Providers are set up by whoever runs the gateway (`[policies] introspection_providers`), as are
    the header of the token and what stands before it. A request without a token, or with one that
    is not good for it, is answered 401; 403 when the token lacks one of `scopes`, which the
    challenge names; 503 while no provider answers: nobody passes unseen. Who is in `userIdClaim` is
    the application on usage events.
    """

    name: ClassVar[str] = "opaque-token-auth"
    version: ClassVar[Version] = Version(1, 1, 0)
    why_python: ClassVar[str] = "the token's issuer is asked, and its answer is looked at and kept"
    authenticates: ClassVar[bool] = True
    namespaces: ClassVar[tuple[str, ...]] = (EXCHANGE_NAMESPACE,)
    example: ClassVar[Document] = {
        "issuers": ["company"],
        "audiences": ["orders"],
        "scopes": {"allOf": ["orders:read"]},
        "requiredClaims": {"tenant": "acme"},
        "claimMappings": {"username": "X-User"},
        "forwardToken": False,
    }

    issuers: Texts = ()
    """The names or issuers of the providers that are asked; none: all, in their order."""

    audiences: Texts = ()
    """A token must be meant for one of these; none: for anybody."""

    scopes: Scopes | None = None
    """Scopes that a token must have, in `scope` or `scp`; without them, 403."""

    required_scopes: Texts = ()
    """Deprecated: at least one of these, else 401; not looked at when there are `scopes`."""

    required_claims: dict[Text, str] = {}
    """Claims and what each must be, or hold if it is a list. Dots lead into objects."""

    claim_mappings: dict[Text, EditableHeaderName] = {}
    """Claims, and the headers in which the upstream gets them; what the caller sent there is
    removed."""

    auth_header_prefix: Annotated[str, Field(max_length=64, pattern="^[!-~]*$")] | None = None
    """What stands before the token, in any case; without it, what the gateway is set to
    (`Bearer`)."""

    header_name: EditableHeaderName | None = None
    """The header that holds the token; without it, what the gateway is set to (`Authorization`)."""

    user_id_claim: Text = "sub"
    """The claim that says who calls; without it in the token, `client_id`."""

    forward_token: bool = True
    """Whether the upstream gets the token."""

    forwarded_token_header: EditableHeaderName = "x-forwarded-authorization"  # noqa: S105
    """The header in which the upstream gets the token; it is taken off where it was."""

    _asked: tuple[SystemParameters, tuple[Introspector, ...]] | None = PrivateAttr(default=None)

    def patience_s(self, system: SystemParameters) -> float:
        """As long as every provider may take."""
        asked = len(self._providers(system)) or 1
        return asked * system.introspection_timeout_s + _AROUND_S

    def check(self, scope: Scope) -> None:
        """The providers are there. Raises PolicyNotCompiled."""
        known = scope.system.introspection_providers
        if not known:
            raise PolicyNotCompiled(
                self.name,
                "the gateway has no introspection provider: set introspection_providers in"
                " [policies]",
            )
        names = {text for one in known for text in (one.name, one.issuer) if text}
        for index, issuer in enumerate(self.issuers):
            if issuer not in names:
                raise PolicyNotCompiled(
                    self.name,
                    f"the gateway has no introspection provider {issuer!r};"
                    f" it has {', '.join(sorted(one.name for one in known))}",
                    parameter=f"issuers[{index}]",
                )

    def on_request_headers(self, exchange: Exchange) -> Answer | Awaitable[Answer | None] | None:
        """Waits only when a provider has to be asked."""
        headers, system = exchange.request.headers, exchange.system
        name = (self.header_name or system.jwt_header_name).lower()
        values = headers.all(name)
        if not values and (known := published_identity(exchange)) and known["type"] == _KIND:
            return self._of_known(exchange, known)  # at another level, which has taken it off
        token = self._token(values, system)
        if isinstance(token, Answer):
            return token
        asked = [one for one in self._introspectors(system) if one.is_for(token)]
        digest, now = digest_of(token), time.time()
        for one in asked:
            claims = one.remembered(digest, now)
            if claims is None:
                return self._ask(exchange, token, digest, asked)
            if claims:
                return self._judged(exchange, one.provider.name, claims, name)
        return _refused("invalid_token", "the token is not live")

    async def _ask(
        self, exchange: Exchange, token: str, digest: bytes, asked: list[Introspector]
    ) -> Answer | None:
        name = (self.header_name or exchange.system.jwt_header_name).lower()
        away: ProviderUnavailable | None = None
        for one in asked:
            try:
                claims = one.remembered(digest, time.time())
                if claims is None:
                    claims = await one.ask(token, digest, exchange.outside)
            except ProviderUnavailable as error:
                away = error
                continue
            if claims:
                return self._judged(exchange, one.provider.name, claims, name)
        if away is not None:
            return _unavailable(str(away))
        return _refused("invalid_token", "the token is not live")

    def _token(self, values: tuple[str, ...], system: SystemParameters) -> str | Answer:
        """The one token of a request."""
        if not values:
            return _refused("", "no token")
        if len(values) > 1:
            return _refused("invalid_request", "several tokens")
        prefix = self.auth_header_prefix
        scheme = system.jwt_auth_header_scheme if prefix is None else prefix
        token = values[0].strip()
        if scheme:
            before, _, token = token.partition(" ")
            token = token.strip()
            if before.lower() != scheme.lower():
                return _refused("", "no token")
        if len(token) > _LONGEST_TOKEN or not _TOKEN.fullmatch(token):
            return _refused("invalid_token", "not a token")
        return token

    def _judged(
        self, exchange: Exchange, provider: str, claims: dict[str, Any], name: str
    ) -> Answer | None:
        """Whether a live token is good for this request; if so, who calls is made known."""
        refusal = self._refusal(claims, exchange.system.jwt_leeway_s)
        if refusal is not None:
            return refusal
        exchange.published[IDENTITY] = {
            "type": _KIND,
            "provider": provider,
            "claims": {key: value for key, value in claims.items() if key != "active"},
        }
        self._tell(exchange, claims)
        headers = exchange.request.headers
        value = headers.get(name) or ""
        target = self.forwarded_token_header.lower()
        if self.forward_token:
            if target != name:
                headers.set(target, value)
                headers.remove(name)
        else:
            headers.remove(target)
            headers.remove(name)
        return None

    def _of_known(self, exchange: Exchange, known: dict[str, Any]) -> Answer | None:
        if known["provider"] not in {one.name for one in self._providers(exchange.system)}:
            return _refused("invalid_token", "the token is of another provider")
        refusal = self._refusal(known["claims"], exchange.system.jwt_leeway_s)
        if refusal is None:
            self._tell(exchange, known["claims"])
            if not self.forward_token:
                exchange.request.headers.remove(self.forwarded_token_header)
        return refusal

    def _refusal(self, claims: dict[str, Any], leeway_s: int) -> Answer | None:
        now = time.time()
        expires, begins = number(claims.get("exp")), number(claims.get("nbf"))
        if (expires is not None and expires + leeway_s <= now) or (
            begins is not None and begins - leeway_s > now
        ):
            return _refused("invalid_token", "the token is not valid now")
        if self.audiences and not set(self.audiences).intersection(texts(claims.get("aud"))):
            return _refused("invalid_token", "the token is for another audience")
        for wanted, value in self.required_claims.items():
            if value not in texts(claim(claims, wanted)):
                return _refused("invalid_token", f"the token's claim {wanted!r} is another")
        if self.scopes is not None:
            return _insufficient(self.scopes.lacking(_scopes(claims)))
        if self.required_scopes and not _scopes(claims).intersection(self.required_scopes):
            return _refused("insufficient_scope", "the token lacks a scope")
        return None

    def _tell(self, exchange: Exchange, claims: dict[str, Any]) -> None:
        headers = exchange.request.headers
        who = claim(claims, self.user_id_claim) or claims.get("client_id")
        headers.set(APPLICATION_HEADER, caller(",".join(texts(who))))
        for wanted, header in self.claim_mappings.items():
            value = ",".join(texts(claim(claims, wanted)))
            if value:
                headers.set(header, caller(value))
            else:
                headers.remove(header)

    def _providers(self, system: SystemParameters) -> tuple[IntrospectionProvider, ...]:
        known = system.introspection_providers
        if not self.issuers:
            return known
        wanted = set(self.issuers)
        return tuple(one for one in known if one.name in wanted or one.issuer in wanted)

    def _introspectors(self, system: SystemParameters) -> tuple[Introspector, ...]:
        if self._asked is None or self._asked[0] is not system:
            found = tuple(introspector(one, system) for one in self._providers(system))
            self._asked = (system, found)
        return self._asked[1]


def _scopes(claims: dict[str, Any]) -> set[str]:
    named = claims.get("scope", claims.get("scp"))
    return set(named.split()) if isinstance(named, str) else set(texts(named))


def _refused(error: str, reason: str) -> Answer:
    challenge = f'Bearer error="{error}"' if error else "Bearer"
    body = {"error": "Unauthorized", "message": "Authentication failed"}
    answer = json_answer(401, body, reason=reason)
    headers = (*answer.headers, ("www-authenticate", challenge))
    return Answer(answer.status, answer.body, headers, reason)


def _insufficient(lacking: tuple[str, ...]) -> Answer | None:
    """Source: RFC 6750, section 3.1."""
    if not lacking:
        return None
    named = " ".join(one for one in lacking if _QUOTABLE.fullmatch(one))
    scope = f', scope="{named}"' if named else ""
    body = {"error": "Forbidden", "message": "The token lacks a scope"}
    answer = json_answer(403, body, reason=f"the token lacks scope {', '.join(lacking)}")
    challenge = ("www-authenticate", f'Bearer error="insufficient_scope"{scope}')
    return Answer(answer.status, answer.body, (*answer.headers, challenge), answer.reason)


def _unavailable(reason: str) -> Answer:
    body = {
        "error": "Service Unavailable",
        "message": "Authentication is not available. Please try again later.",
    }
    return json_answer(503, body, reason=reason)
