"""jwt-auth.

Source: RFC 7519 (tokens), RFC 6750 (how they are presented and refused).
"""

import json
from typing import Annotated, ClassVar

from pydantic import Field

from policy_engine.errors import PolicyNotCompiled
from policy_engine.identity.claims import (
    HEADER,
    NAMELESS,
    PAYLOAD,
    RBAC,
    all_of,
    any_of,
    claim_is,
    denied,
    is_there,
    moved,
    refuse_unless,
    refused_unless,
    signed_with,
)
from policy_engine.identity.keys import ALGORITHMS
from policy_engine.identity.remote_keys import remote_jwks
from policy_engine.identity.scopes import Scopes
from policy_engine.identity.token_issuers import KeyManager, RemoteKeys
from policy_engine.lua import lua
from policy_engine.parameters.headers import APPLICATION_HEADER, EditableHeaderName, header_mutation
from policy_engine.policy import (
    Document,
    HttpFilter,
    Parameters,
    Policy,
    Refusal,
    Scope,
    Service,
    Version,
    typed,
)
from policy_engine.shadow import watched
from policy_engine.system import SystemParameters

_JWT = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
_DETAILS = "jwt_authn_access_denied{"
_LONGEST_TOKEN_BYTES = 8192
_MISSING = (("www-authenticate", "Bearer"),)
_INVALID = (("www-authenticate", 'Bearer error="invalid_token"'),)
_INSUFFICIENT = (("www-authenticate", 'Bearer error="insufficient_scope"'),)

_NONE = "(none)"
_NO_PROVIDER: Document = {
    "issuer": _NONE,
    "from_headers": [{"name": "x-signalbox-no-token"}],  # callers cannot send private headers
    # Envoy wants a key: the point of P-256 whose x is SHA-256 of `nobody` has no known private key
    "local_jwks": {
        "inline_string": '{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256",'
        '"x":"Y4KzzIgUErd7_K7tAmABwA2eMCXmbCD25-kvB5hRRio",'
        '"y":"zjsi3SLhgazDHIRUBUs2igvb3wh1P8T0x5fsQRNmZlc"}]}'
    },
}
"""Whose token requests lack that do not come with the scheme."""

Text = Annotated[str, Field(min_length=1, max_length=1024)]
Texts = Annotated[tuple[Text, ...], Field(max_length=100)]


class ClaimValues(Parameters):
    """A claim and what it may be."""

    claim: Text
    """The claim's name; dots lead into objects, such as `realm_access.roles`."""

    values: Annotated[tuple[Text, ...], Field(min_length=1, max_length=100)]
    """One of these: what the claim is, or what is in it if it is a list."""


class Claims(Parameters):
    """Claims that a token must have."""

    all_of: Annotated[tuple[ClaimValues, ...], Field(max_length=50)] = ()
    """All of these must hold."""

    any_of: Annotated[tuple[ClaimValues, ...], Field(max_length=50)] = ()
    """At least one of these must hold."""


def _refusals(system: SystemParameters) -> tuple[Refusal, ...]:
    body: Document | str
    match system.jwt_error_format:
        case "plain":
            body = system.jwt_error_message
        case "minimal":
            body = "Unauthorized"
        case _:
            body = {"error": "Unauthorized", "message": system.jwt_error_message}
    status = system.jwt_failure_status
    return (
        Refusal(f"{_DETAILS}Jwt_is_missing}}", status, body, headers=_MISSING),
        Refusal(_DETAILS, status, body, prefix=True, headers=_INVALID),
        Refusal(denied("jwt-auth"), status, body, headers=_INSUFFICIENT),
    )


class JwtAuth(Policy):
    """Lets only requests with a valid JSON Web Token of a trusted key manager pass.

    Key managers are set up by whoever runs the gateway (`[policies] key_managers`). Tokens are
    signed with RS256, PS256 or ES256. Who is in `userIdClaim` is the application on usage events.
    """

    name: ClassVar[str] = "jwt-auth"
    version: ClassVar[Version] = Version(1, 3, 1)
    refusals: ClassVar[tuple[Refusal, ...]] = _refusals(SystemParameters())
    example: ClassVar[Document] = {
        "issuers": ["company"],
        "audiences": ["orders"],
        "scopes": {"anyOf": ["orders:read", "orders:write"]},
        "claims": {"allOf": [{"claim": "realm_access.roles", "values": ["clerk", "manager"]}]},
        "claimMappings": {"email": "X-User-Email"},
    }

    issuers: Texts = ()
    """The names of the key managers whose tokens are accepted; none: those of all."""

    audiences: Texts = ()
    """A token must be meant for one of these; none: for anybody."""

    scopes: Scopes | None = None
    """Scopes that a token must have."""

    claims: Claims | None = None
    """Claims that a token must have."""

    required_scopes: Texts = ()
    """Deprecated: at least one of these; not looked at when there are `scopes`."""

    required_claims: dict[Text, str] = {}
    """Deprecated: claims and what each must be."""

    claim_mappings: dict[Text, EditableHeaderName] = {}
    """Claims, and the headers in which the upstream gets them; what the caller sent there is
    removed."""

    auth_header_prefix: Annotated[str, Field(max_length=64, pattern="^[!-~]*$")] | None = None
    """What stands before the token, in any case; without it, what the gateway is set to
    (`Bearer`)."""

    header_name: EditableHeaderName | None = None
    """The header that holds the token; without it, what the gateway is set to (`Authorization`)."""

    user_id_claim: Text = "sub"
    """The claim that says who calls."""

    forward_token: bool = True
    """Whether the upstream gets the token."""

    forwarded_token_header: EditableHeaderName = "x-forwarded-authorization"  # noqa: S105
    """The header in which the upstream gets the token; it is taken off where it was."""

    forward_token_strip_scheme: bool = False
    """Whether the upstream gets the token without what stands before it."""

    @classmethod
    def dressed(cls, system: SystemParameters) -> tuple[Refusal, ...]:
        """With the status and the words that the gateway is set to."""
        return _refusals(system)

    def shadow(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """`jwt_authn` verifies and lets everybody pass, a watched `rbac` says who would not.

        What it verifies is kept apart: no other policy takes it for a caller's identity.
        """
        made = self.filters(scope)
        verifying, claims = made[0], [one for one in made if one.name.endswith(".claims")]
        places = {PAYLOAD: f"shadow {verifying.name}", HEADER: f"shadow header {verifying.name}"}
        providers = {
            name: {key: value for key, value in one.items() if key != "claim_to_headers"}
            | {"payload_in_metadata": places[PAYLOAD], "header_in_metadata": places[HEADER]}
            for name, one in verifying.config["providers"].items()
            if name != _NONE
        }
        wanted: list[Document] = [{"provider_name": name} for name in providers]
        requires = {"requires_any": {"requirements": [*wanted, {"allow_missing_or_failed": {}}]}}
        rules = [{"match": verifying.config["rules"][0]["match"], "requires": requires}]
        verified = is_there([places[HEADER], "alg"])
        policies = {"token": refused_unless(verified)}
        for one in claims:
            (rule,) = one.config["rules"]["policies"].values()
            fit = moved(rule["principals"][0]["not_id"], places)
            policies["claims"] = refused_unless(any_of([{"not_id": verified}, fit]))
        rbac = typed(RBAC, {"rules": {"action": "DENY", "policies": policies}})
        return (
            HttpFilter(verifying.name, typed(_JWT, {"providers": providers, "rules": rules})),
            watched(self.name, HttpFilter(f"{verifying.name}.watched", rbac)),
        )

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """`jwt_authn` verifies, `rbac` looks at the claims, a last one passes the token on."""
        managers = self._managers(scope)
        providers = {one.name: self._provider(one, scope.system) for one in managers}
        wanted: list[Document] = [{"provider_name": name} for name in providers]
        requires = wanted[0] if len(wanted) == 1 else {"requires_any": {"requirements": wanted}}
        name = scope.unique(self.name)
        made = [HttpFilter(name, self._verifying(providers, requires, scope.system))]
        if any(one.jwks.remote is not None for one in managers):
            for provider in providers.values():  # local keys say their algorithm themselves
                provider["header_in_metadata"] = HEADER
        conditions = self._conditions(managers)
        if conditions:
            made.append(HttpFilter(f"{name}.claims", refuse_unless(self.name, all_of(conditions))))
        made += self._passing_on(name, scope)
        return tuple(made)

    def services(self, scope: Scope) -> tuple[Service, ...]:
        """The servers that publish keys."""
        remotes = (one.jwks.remote for one in self._managers(scope))
        return tuple(_service(one) for one in remotes if one is not None)

    def _managers(self, scope: Scope) -> tuple[KeyManager, ...]:
        known = {one.name: one for one in scope.system.key_managers}
        if not known:
            raise PolicyNotCompiled(
                self.name, "the gateway has no key manager: set key_managers in [policies]"
            )
        for index, one in enumerate(self.issuers):
            if one not in known:
                raise PolicyNotCompiled(
                    self.name,
                    f"the gateway has no key manager {one!r}; it has {', '.join(sorted(known))}",
                    parameter=f"issuers[{index}]",
                )
        return tuple(known[one] for one in dict.fromkeys(self.issuers or known))

    def _place(self, system: SystemParameters) -> tuple[str, str]:
        """The header that holds the token, and what stands before it."""
        prefix = self.auth_header_prefix
        return (
            (self.header_name or system.jwt_header_name).lower(),
            system.jwt_auth_header_scheme if prefix is None else prefix,
        )

    def _verifying(
        self, providers: dict[str, Document], requires: Document, system: SystemParameters
    ) -> Document:
        """`jwt_authn`. Schemes are in any case, Envoy's prefixes of values are not."""
        header, scheme = self._place(system)
        match: Document = {"prefix": "/"}
        rules = [{"match": match, "requires": requires}]
        if scheme:
            starts = {"prefix": f"{scheme} ", "ignore_case": True}
            match = {"prefix": "/", "headers": [{"name": header, "string_match": starts}]}
            otherwise = {"match": {"prefix": "/"}, "requires": {"provider_name": _NONE}}
            rules = [{"match": match, "requires": requires}, otherwise]
            providers = providers | {_NONE: _NO_PROVIDER}
        return typed(_JWT, {"providers": providers, "rules": rules})

    def _provider(self, manager: KeyManager, system: SystemParameters) -> Document:
        header, scheme = self._place(system)
        provider: Document = {
            "from_headers": [{"name": header, **({"value_prefix": " "} if scheme else {})}],
            "forward": True,  # a later filter takes it off
            "payload_in_metadata": PAYLOAD,
            "clock_skew_seconds": system.jwt_leeway_s,
            "claim_to_headers": [
                _claim_to_header(claim, header)
                for claim, header in (
                    *self.claim_mappings.items(),
                    (self.user_id_claim, APPLICATION_HEADER),
                )
            ],
            **_keys(manager, system),
        }
        if manager.issuer and system.jwt_validate_issuer:
            provider["issuer"] = manager.issuer
        if self.audiences:
            provider["audiences"] = list(self.audiences)
        if system.jwt_token_caching:
            provider["jwt_cache_config"] = {
                "jwt_cache_size": system.jwt_token_cache_entries,
                "jwt_max_token_size": _LONGEST_TOKEN_BYTES,
            }
        return provider

    def _conditions(self, managers: tuple[KeyManager, ...]) -> list[Document]:
        every = self.scopes.all_of if self.scopes is not None else ()
        some = self.scopes.any_of if self.scopes is not None else self.required_scopes
        conditions = [self._scope(one, managers) for one in every]
        if some:
            conditions.append(any_of(self._scope(one, managers) for one in some))
        claims = self.claims or Claims()
        conditions += [_claim(one) for one in claims.all_of]
        if claims.any_of:
            conditions.append(any_of(_claim(one) for one in claims.any_of))
        conditions += [claim_is(claim, value) for claim, value in self.required_claims.items()]
        if any(one.jwks.remote is not None for one in managers):
            conditions.append(signed_with(ALGORITHMS))
        return conditions

    def _scope(self, scope: str, managers: tuple[KeyManager, ...]) -> Document:
        """Scope `scope` in the claim of whoever has issued the token."""
        places = {(one.scope_claim, one.scope_claim_separator) for one in managers}
        if len(places) > 1 and not all(one.issuer for one in managers):
            raise PolicyNotCompiled(
                self.name,
                "key managers with different scope claims need an issuer each",
            )
        ways: list[Document] = []
        for one in managers:
            has = claim_is(one.scope_claim, scope, separator=one.scope_claim_separator)
            way = has if len(places) == 1 else all_of((claim_is("iss", one.issuer), has))
            if way not in ways:
                ways.append(way)
        return any_of(ways)

    def _passing_on(self, name: str, scope: Scope) -> list[HttpFilter]:
        header, scheme = self._place(scope.system)
        target = self.forwarded_token_header.lower()
        again = scope.level == "api" and scope.repeats(self.name)  # an operation looks at it too
        stays = again or (self.forward_token and target == header)
        strip = bool(self.forward_token_strip_scheme and scheme and self.forward_token)
        mutations: list[Document] = []
        if self.forward_token and target != header and not strip:
            mutations.append(
                {
                    "append": {
                        "header": {"key": target, "value": f"%REQ({header})%"},
                        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                    }
                }
            )
        elif not self.forward_token and target != header:
            mutations.append({"remove": target})
        if not stays:
            mutations.append({"remove": header})
        mutations.append(NAMELESS)
        made: list[HttpFilter] = []
        if strip and not (again and target == header):
            script = _STRIP.format(
                source=json.dumps(header), target=json.dumps(target), skip=len(scheme) + 2
            )
            made.append(HttpFilter(f"{name}.stripped", lua(script)))
        made.append(HttpFilter(f"{name}.forwarded", header_mutation(mutations)))
        return made


_STRIP = """\
function envoy_on_request(handle)
  local headers = handle:headers()
  local value = headers:get({source})
  if value ~= nil then headers:replace({target}, (value:sub({skip}):gsub("^ +", ""))) end
end
"""


def _claim(wanted: ClaimValues) -> Document:
    return any_of(claim_is(wanted.claim, value) for value in wanted.values)


def _claim_to_header(claim: str, header: str) -> Document:
    return {"header_name": header.lower(), "claim_name": claim}


def _keys(manager: KeyManager, system: SystemParameters) -> Document:
    remote, local = manager.jwks.remote, manager.jwks.local
    if remote is None:
        assert local is not None
        text = json.dumps(local.keys, sort_keys=True, separators=(",", ":"))
        return {"local_jwks": {"inline_string": text}}
    pause = f"{system.jwks_fetch_retry_interval_s:.3f}s"
    return {
        "remote_jwks": {
            **remote_jwks(_service(remote), system),
            "retry_policy": {
                "num_retries": system.jwks_fetch_retries,
                "retry_back_off": {"base_interval": pause, "max_interval": pause},
            },
        }
    }


def _service(remote: RemoteKeys) -> Service:
    return Service(remote.uri, remote.authorities, not remote.skip_tls_verify)
