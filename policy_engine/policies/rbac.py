"""rbac."""

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from policy_engine.conditions.cel import checked, holds
from policy_engine.identity.claims import all_of, any_of, claim_is, denied, refuse_unless
from policy_engine.parameters.headers import HeaderName
from policy_engine.policy import (
    Document,
    HttpFilter,
    Parameters,
    Policy,
    Refusal,
    Scope,
    Version,
    typed,
)
from policy_engine.shadow import watched

_RBAC = "envoy.extensions.filters.http.rbac.v3.RBAC"
_ACTION = "envoy.config.rbac.v3.Action"
_PATH = r"^/[^?#\s]*$"

Text = Annotated[str, Field(min_length=1, max_length=256)]
Method = Literal["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]


def _condition(expression: str) -> str:
    checked(expression)  # raises ValueError
    return expression


class Rule(Parameters):
    """Who may do what. What is left out is not looked at."""

    roles: Annotated[tuple[Text, ...], Field(max_length=100)] = ()
    """The caller has one of these roles."""

    methods: tuple[Method, ...] = ()
    """The request has one of these methods."""

    paths: Annotated[
        tuple[Annotated[str, Field(max_length=1024, pattern=_PATH)], ...], Field(max_length=100)
    ] = ()
    """The path below the API's context is one of these; `/orders/*` is `/orders` and all below."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.roles or self.methods or self.paths):
            raise ValueError("roles, methods or paths is required")
        return self


class Rbac(Policy):
    """Lets only requests pass that a role or a condition allows.

    Roles are in a claim of the token that a `jwt-auth` before this policy has verified, or in a
    header; name a header only if callers cannot set it themselves.
    """

    name: ClassVar[str] = "rbac"
    version: ClassVar[Version] = Version(1, 0, 0)
    refusals: ClassVar[tuple[Refusal, ...]] = (
        Refusal(
            denied("rbac"),
            403,
            {"error": "Forbidden", "message": "The caller is not allowed to do this"},
        ),
    )
    example: ClassVar[Document] = {
        "rolesClaim": "realm_access.roles",
        "rules": [{"roles": ["manager"]}, {"methods": ["GET", "HEAD"]}],
        "condition": "!request.url_path.endsWith('/internal')",
    }

    rules: Annotated[tuple[Rule, ...], Field(max_length=100)] = ()
    """One of these must allow the request; none: `condition` alone decides."""

    roles_claim: Text = "roles"
    """The claim that holds the roles, as a list or as text with spaces between; dots lead into
    objects, such as `realm_access.roles`."""

    roles_header: HeaderName | None = None
    """The request header that holds the roles instead, with commas between."""

    condition: (
        Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_condition)] | None
    ) = None
    """What must hold besides, in CEL, such as `request.headers['x-env'] == 'test'`. It may speak of
    `request` (`method`, `path` and `url_path` with and without query, `query`, `host`, `scheme`,
    `headers` by lower-case names, `useragent`, `referer`, `protocol`, `id`, `time`) and of `source`
    (`address`, `port`). A header that is not there makes it false: ask for `'x-env' in
    request.headers` first."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.rules and self.condition is None:
            raise ValueError("rules or condition is required")
        return self

    def shadow(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """The same rules, watched."""
        return tuple(watched(self.name, one) for one in self.filters(scope))

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One `rbac` filter for the rules and one for the condition."""
        made: list[HttpFilter] = []
        if self.rules:
            allowed = any_of(self._allowed(one, scope.context) for one in self.rules)
            made.append(HttpFilter(scope.unique(self.name), refuse_unless(self.name, allowed)))
        if self.condition is not None:
            name = scope.unique(f"{self.name}.condition")
            made.append(HttpFilter(name, _refuse_unless_holds(self.name, self.condition)))
        return tuple(made)

    def _allowed(self, rule: Rule, context: str) -> Document:
        parts: list[Document] = []
        if rule.roles:
            parts.append(any_of(self._role(one) for one in rule.roles))
        if rule.methods:
            parts.append(any_of(_header(":method", {"exact": one}) for one in rule.methods))
        if rule.paths:
            below = "" if context == "/" else context
            parts.append(any_of(part for one in rule.paths for part in _paths(below, one)))
        return all_of(parts)

    def _role(self, role: str) -> Document:
        if self.roles_header is None:
            return claim_is(self.roles_claim, role, separator=" ")
        pattern = rf"(.*,)?[ \t]*{re.escape(role)}[ \t]*(,.*)?"
        return _header(self.roles_header.lower(), {"safe_regex": {"regex": pattern}})


def _header(name: str, value: Document) -> Document:
    return {"header": {"name": name, "string_match": value}}


def _paths(context: str, path: str) -> list[Document]:
    if not path.endswith("/*"):
        return [{"url_path": {"path": {"exact": context + path}}}]
    whole = context + path[:-2]
    above = [{"url_path": {"path": {"exact": whole}}}] if whole else []
    return [*above, {"url_path": {"path": {"prefix": f"{whole}/"}}}]


def _refuse_unless_holds(name: str, condition: str) -> Document:
    def action(kind: str) -> Document:
        return {
            "action": {
                "name": "envoy.filters.rbac.action",
                "typed_config": typed(_ACTION, {"name": name, "action": kind}),
            }
        }

    passes = {"predicate": holds(condition), "on_match": action("ALLOW")}
    matcher = {"matcher_list": {"matchers": [passes]}, "on_no_match": action("DENY")}
    return typed(_RBAC, {"matcher": matcher})
