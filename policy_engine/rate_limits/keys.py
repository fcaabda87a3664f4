"""Whom a quota counts: parts of the request that tell callers apart.

Each part becomes one entry of a descriptor. A part that a request lacks is an entry, too, so the
request counts in a bucket of all that lack it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bus.resources.document import wrong
from policy_engine.hooks import EXCHANGE_NAMESPACE
from policy_engine.identity.caller import IDENTITY
from policy_engine.identity.claims import JWT_FILTER, PAYLOAD
from policy_engine.parameters.headers import APPLICATION_HEADER, token
from policy_engine.parameters.regex import Pattern
from policy_engine.policy import Document, Parameters, Scope, typed
from policy_engine.rate_limits.expression import checked, text, translated

_EXPRESSION = "envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor"
_METADATA_KEY = re.compile(r"[A-Za-z0-9_.\-/@ ]+")
_MISSING = "_missing"

KeyType = Literal[
    "header",
    "metadata",
    "authproperty",
    "ip",
    "apiname",
    "apiversion",
    "routename",
    "cel",
    "constant",
]
_NAMED = ("header", "metadata", "authproperty", "constant")


class Match(Parameters):
    """What a part must be like for the quota to count the request at all."""

    type: Literal["regex"] = "regex"
    """How `value` is read: as a regular expression (RE2) that is found anywhere in the part."""

    value: Annotated[Pattern, Field(max_length=1024)]
    """The expression; `^` and `$` anchor it."""


class KeyPart(Parameters):
    """One part of a key."""

    type: KeyType
    """Where the part is from: a request `header`; `metadata` that a Python policy has published; an
    `authproperty`: a claim of the verified token, or `application`; the caller's `ip`; `apiname`,
    `apiversion` and `routename`; the result of `cel`; or a `constant`."""

    key: Annotated[str, Field(max_length=256)] = ""
    """The name of the header, of the metadata, of the claim (dots lead into objects), or the
    constant itself."""

    expression: Annotated[str, Field(max_length=1024)] = ""
    """CEL that gives text, for `cel`: it may use `request.Headers`, `request.Method`,
    `request.Path`, `source.Address`, `api.Name`, `api.Version`, `api.Context`."""

    match: Match | None = None
    """Requests whose part is not like this are not counted by the quota and never refused."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.type in _NAMED and not self.key:
            raise wrong(f"key is required for type {self.type}", "key")
        if self.type == "header":
            try:
                token(self.key)
            except ValueError as error:
                raise wrong(str(error), "key") from error
        if self.type in ("metadata", "authproperty") and not _METADATA_KEY.fullmatch(self.key):
            raise wrong("may only hold letters, digits, spaces and _ . - / @", "key")
        if self.type == "cel":
            if not self.expression:
                raise wrong("expression is required for type cel", "expression")
            try:
                checked(self.expression, response=False)
            except ValueError as error:
                raise wrong(str(error), "expression") from error
        return self

    @property
    def shown(self) -> bool:
        """Whether its value may stand in events: not what may be a credential."""
        return self.type not in ("header", "cel", "metadata")


@dataclass(frozen=True, slots=True)
class Value:
    """One part of a key as text that is worked out for each request."""

    entry: str  # its name in a descriptor
    gate: str  # the name of the entry that says that it is as it must be
    format: str  # of Envoy's access logs
    missing: str | None  # what stands for it where a request lacks it; None: none lacks it
    fixed: str | None  # what it is for every request, if that is known
    pattern: str | None  # RE2; what does not hold it is not counted
    header: str | None  # the request header that it is, if it is one


@dataclass(frozen=True)
class Key:
    """The parts of one quota's key, as entries of a descriptor: `p0`, `p1`, ..."""

    parts: tuple[KeyPart, ...]
    scope: Scope

    @cached_property
    def actions(self) -> list[Document]:
        """Envoy's rate limit actions, gates first."""
        made = [
            gate(f"m{number}", self._matches(part))
            for number, part in enumerate(self.parts)
            if part.match is not None
        ]
        for number, part in enumerate(self.parts):
            made.append(
                {
                    "generic_key": {
                        "descriptor_key": f"p{number}",
                        "descriptor_value": self._told(part)[0],
                        "default_value": _missing(part),
                    }
                }
            )
        return made

    @cached_property
    def values(self) -> tuple[Value, ...]:
        """The same parts where no descriptors are made."""
        return tuple(
            Value(
                entry=f"p{number}",
                gate=f"m{number}",
                format=self._told(part)[0],
                missing=None if part.type == "routename" else _missing(part),
                fixed=None if part.match is not None else self._constant(part),
                pattern=None if part.match is None else part.match.value,
                header=_header(part),
            )
            for number, part in enumerate(self.parts)
        )

    @cached_property
    def entries(self) -> list[Document]:
        """What such a descriptor looks like to Envoy's own limiter: any value of each part."""
        gates = [
            {"key": f"m{number}", "value": "1"}
            for number, part in enumerate(self.parts)
            if part.match is not None
        ]
        return [*gates, *({"key": f"p{number}"} for number in range(len(self.parts)))]

    @property
    def identity(self) -> str:
        """Equal for keys that count alike: it is part of the bucket's name."""
        return ",".join(
            f"{part.type}:{part.key or part.expression}"
            + (f"~{part.match.value}" if part.match is not None else "")
            for part in self.parts
        )

    @property
    def of_the_api(self) -> bool:
        """Whether the API, not the operation, is what is counted."""
        return any(part.type == "apiname" for part in self.parts)

    @property
    def may_bypass(self) -> bool:
        """Whether there are requests that it does not count."""
        return any(part.match is not None for part in self.parts)

    @property
    def shown(self) -> bool:
        """Whether events may tell its values."""
        return all(part.shown for part in self.parts)

    def _matches(self, part: KeyPart) -> str:
        """CEL that is true when the part is as it must be; it may fail, which is no match."""
        pattern = text(part.match.value if part.match is not None else "")
        return f"({self._told(part)[1]}).matches({pattern})"

    def _told(self, part: KeyPart) -> tuple[str, str]:
        """The part as Envoy's format string and as CEL."""
        scope, key = self.scope, part.key
        match part.type:
            case "header":
                found = f"%REQ({key})%", f"request.headers[{text(key.lower())}]"
            case "metadata":
                namespace = text(EXCHANGE_NAMESPACE)
                found = (
                    f"%DYNAMIC_METADATA({EXCHANGE_NAMESPACE}:{key})%",
                    f"metadata.filter_metadata[{namespace}][{text(key)}]",
                )
            case "authproperty" if key == "application":
                name = APPLICATION_HEADER
                found = f"%REQ({name})%", f"request.headers[{text(name)}]"
            case "authproperty":
                found = _cel(_claim(key))
            case "ip" if scope.system.ratelimit_ip == "forwarded":
                found = _cel(_FORWARDED_IP)
            case "ip":
                found = "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "source.address"
            case "routename":
                found = "%ROUTE_NAME%", "xds.route_name"
            case "cel":
                found = _cel(translated(part.expression, scope))
            case "apiname" | "apiversion" | "constant":
                value = self._constant(part) or ""
                found = value.replace("%", "%%"), text(value)
        return found

    def _constant(self, part: KeyPart) -> str | None:
        """What the part is for every request, or None."""
        scope = self.scope
        match part.type:
            case "apiname":
                return scope.api_name or "-"
            case "apiversion":
                return scope.api_version or "-"
            case "constant":
                return part.key
            case _:
                return None


def _header(part: KeyPart) -> str | None:
    if part.type == "header":
        return part.key.lower()
    own = part.type == "authproperty" and part.key == "application"
    return APPLICATION_HEADER if own else None


def _missing(part: KeyPart) -> str:
    return f"{_MISSING}_{part.type}_{part.key}".replace("%", "_")


def _cel(expression: str) -> tuple[str, str]:
    return f"%CEL({expression})%", expression


def gate(key: str, condition: str) -> Document:
    """An action that drops its descriptor unless CEL `condition` holds; its entry's value is 1."""
    return {
        "extension": {
            "name": "gate",
            "typed_config": typed(
                _EXPRESSION,
                {
                    "descriptor_key": key,
                    "text": f"1 / (({condition}) ? 1 : 0)",
                    "skip_if_error": True,
                },
            ),
        }
    }


def _claim(name: str) -> str:
    """CEL: claim `name` of the token that jwt-auth, or else opaque-token-auth, has verified."""

    def below(root: str, path: Sequence[str]) -> str:
        return root + "".join(f"[{text(one)}]" for one in path)

    payload = f"metadata.filter_metadata[{text(JWT_FILTER)}]"
    opaque = f"metadata.filter_metadata[{text(EXCHANGE_NAMESPACE)}]"
    path = name.split(".")
    return (
        f"{text(JWT_FILTER)} in metadata.filter_metadata"
        f" ? {below(payload, [PAYLOAD, *path])} : {below(opaque, [IDENTITY, 'claims', *path])}"
    )


# Envoy has put the address it sees behind what the caller sent: a list is the caller's word
_FORWARDED_IP = (
    "request.headers['x-forwarded-for'].contains(',') || !('x-real-ip' in request.headers)"
    " ? request.headers['x-forwarded-for'] : request.headers['x-real-ip']"
)
