"""cors.

Source: https://fetch.spec.whatwg.org/#http-cors-protocol
"""

import re
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from policy_engine.lua import Value, constants, lua, program
from policy_engine.parameters.headers import HeaderName, header_mutation
from policy_engine.policy import (
    DirectAnswer,
    Document,
    HttpFilter,
    Policy,
    Preflight,
    Purpose,
    Scope,
    Version,
    typed,
)

_FILTER = "envoy.extensions.filters.http.cors.v3"
_LABELS = r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*"
_ORIGIN = re.compile(
    rf"[A-Za-z][A-Za-z0-9+.-]*://((\*\.)?{_LABELS}|\[[0-9A-Fa-f:.]+\])(:[0-9]{{1,5}})?"
)
_PREFIX = "access-control-"
_ASKED_METHOD = "access-control-request-method"
_ASKED_HEADERS = "access-control-request-headers"
_PARKED_METHOD = "x-signalbox-cors-method"  # where the asked method is while the filter looks
_SIMPLE_ANSWERS = (
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-expose-headers",
)
_ORIGIN_ONCE = (  # what is empty is not appended
    "%CEL('vary' in response.headers"
    " && response.headers['vary'].matches('(?i)^(.*[, ])?origin([, ].*)?$') ? '' : 'Origin')%"
)
_METHODS = Literal["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "*"]


def _origin(origin: str) -> str:
    if origin not in ("*", "null") and not _ORIGIN.fullmatch(origin):
        raise ValueError(
            f"{origin!r} is not an origin: scheme and host, without a path, such as "
            "https://app.example.com or https://*.example.com; or *"
        )
    return origin


class Cors(Policy):
    """Lets web pages of other origins call the API, and answers their preflights.

    What the upstream itself says about CORS is taken off its answers. Of several that a request
    meets, the first decides.
    """

    name: ClassVar[str] = "cors"
    version: ClassVar[Version] = Version(1, 0, 3)
    purpose: ClassVar[Purpose] = "changes"
    example: ClassVar[Document] = {
        "allowedOrigins": ["https://app.example.com", "https://*.example.org"],
        "allowedMethods": ["GET", "POST"],
        "allowedHeaders": ["Content-Type", "Authorization"],
        "exposedHeaders": ["X-Request-Id"],
        "allowCredentials": True,
        "maxAge": 600,
    }

    allowed_origins: Annotated[
        tuple[Annotated[str, AfterValidator(_origin)], ...], Field(min_length=1, max_length=100)
    ]
    """Who may call: origins as browsers send them, `https://*.example.org` for every subdomain at
    any depth, `*` for anybody."""

    allowed_methods: tuple[_METHODS, ...] = (
        "GET",
        "POST",
        "PUT",
        "DELETE",
        "OPTIONS",
    )
    """Methods a preflight may ask for; `*` for any."""

    allowed_headers: Annotated[tuple[HeaderName, ...], Field(max_length=100)] = ()
    """Request headers a preflight may ask for, in any case; `*` for any."""

    exposed_headers: Annotated[tuple[HeaderName, ...], Field(max_length=100)] = ()
    """Response headers that pages may read."""

    allow_credentials: bool = False
    """Whether browsers may send cookies and credentials, and pages read the answers."""

    max_age: Annotated[int, Field(ge=0, le=86_400 * 365)] = 3600
    """How long browsers may remember a preflight's answer, seconds."""

    forward_preflight: bool = False
    """Whether the upstream answers preflights. The API needs an OPTIONS operation for them then;
    the gateway still decides which origins are allowed."""

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """What answers to other than preflights say."""
        own = scope.unique(self.name)
        after = f"{own}.headers"
        if self._anybody:
            return (HttpFilter(after, header_mutation(response=self._static_answer())),)
        cors = HttpFilter(own, typed(f"{_FILTER}.Cors"), self._policy())
        vary = _append("vary", _ORIGIN_ONCE)
        answers = header_mutation(response=[*self._stripped(), vary])
        if not self.forward_preflight:
            return (cors, HttpFilter(after, answers))
        # the filter answers preflights itself, unless they do not look like any
        park = header_mutation([_copy(_ASKED_METHOD, _PARKED_METHOD), {"remove": _ASKED_METHOD}])
        unpark = [_copy(_PARKED_METHOD, _ASKED_METHOD), {"remove": _PARKED_METHOD}]
        restore = header_mutation(unpark, [*self._stripped(), vary])
        return (HttpFilter(f"{own}.parked", park), cors, HttpFilter(after, restore))

    def conditional(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One `lua` filter, which answers preflights too."""
        origins: list[Value] = [_for_lua(one) for one in self.allowed_origins]
        headers = dict(self._preflight_headers())
        asked = {
            "%REQ(origin)%": "%origin",
            f"%REQ({_ASKED_METHOD})%": "%method",
            f"%REQ({_ASKED_HEADERS})%": "%headers",
        }
        told: dict[str, Value] = {name: asked.get(one, one) for name, one in headers.items()}
        source = constants(
            ANYBODY=self._anybody,
            ORIGINS=origins,
            CREDENTIALS=self.allow_credentials,
            EXPOSED=", ".join(self.exposed_headers) or None,
            METHODS=None if "*" in self.allowed_methods else list(self.allowed_methods),
            HEADERS=None
            if "*" in self.allowed_headers
            else [one.lower() for one in self.allowed_headers],
            PREFLIGHT=told,
            FORWARD=self.forward_preflight,
        )
        return (HttpFilter(scope.unique(self.name), lua(source + program("cors.lua"))),)

    def preflights(self) -> tuple[Preflight, ...]:
        """The answers to preflights: one that allows, one that says nothing."""
        if self.forward_preflight:
            return ()
        asked = (_present("origin"), _present(_ASKED_METHOD))
        allowed = Preflight(
            f"{self.name}-allowed",
            (_matching("origin", self._origin_pattern()), *self._asked()),
            DirectAnswer(204, headers=tuple(self._preflight_headers().items())),
        )
        silent = DirectAnswer(204, headers=() if self._anybody else (("vary", "Origin"),))
        return (allowed, Preflight(f"{self.name}-refused", asked, silent))

    @property
    def _anybody(self) -> bool:
        """Whether the answer is the same for every origin."""
        return "*" in self.allowed_origins and not self.allow_credentials

    def _origin_pattern(self) -> str:
        if "*" in self.allowed_origins:
            return ".*"
        return "|".join(_origin_pattern(origin) for origin in self.allowed_origins)

    def _asked(self) -> tuple[Document, ...]:
        methods = ".+"
        if "*" not in self.allowed_methods:
            methods = "|".join(self.allowed_methods)
        if "*" in self.allowed_headers:
            return (_matching(_ASKED_METHOD, methods),)
        one = "|".join(re.escape(name) for name in self.allowed_headers)
        headers = {
            **_matching(_ASKED_HEADERS, rf"(?i)[\s,]*(({one})[\s,]*(,[\s,]*({one})[\s,]*)*)?"),
            "treat_missing_header_as_empty": True,
        }
        return (_matching(_ASKED_METHOD, methods), headers)

    def _preflight_headers(self) -> dict[str, str]:
        """Of the answer that allows; wildcards are spelled out when credentials are allowed."""
        headers = {"access-control-allow-origin": "*" if self._anybody else "%REQ(origin)%"}
        headers["access-control-allow-methods"] = (
            f"%REQ({_ASKED_METHOD})%"
            if "*" in self.allowed_methods
            else ", ".join(self.allowed_methods)
        )
        if "*" in self.allowed_headers:
            headers["access-control-allow-headers"] = f"%REQ({_ASKED_HEADERS})%"
        elif self.allowed_headers:
            headers["access-control-allow-headers"] = ", ".join(self.allowed_headers)
        if self.allow_credentials:
            headers["access-control-allow-credentials"] = "true"
        headers["access-control-max-age"] = str(self.max_age)
        varies = [] if self._anybody else ["Origin"]
        varies += [_ASKED_METHOD] if "*" in self.allowed_methods else []
        varies += [_ASKED_HEADERS] if "*" in self.allowed_headers else []
        return headers | ({"vary": ", ".join(varies)} if varies else {})

    def _policy(self) -> Document:
        """For the filter; it needs nothing of preflights, which have routes of their own."""
        origins: list[Document] = [{"safe_regex": {"regex": ".*"}}]
        if "*" not in self.allowed_origins:
            origins = [
                {"safe_regex": {"regex": _origin_pattern(one)}} if "*" in one else {"exact": one}
                for one in self.allowed_origins
            ]
        policy: Document = {"allow_origin_string_match": origins}
        if self.exposed_headers:
            policy["expose_headers"] = ", ".join(self.exposed_headers)
        if self.allow_credentials:
            policy["allow_credentials"] = True
        return typed(f"{_FILTER}.CorsPolicy", policy)

    def _stripped(self) -> list[Document]:
        """The upstream's own CORS headers; what it says of a preflight stays if it is asked."""
        if self.forward_preflight:
            return [{"remove": name} for name in _SIMPLE_ANSWERS]
        return [{"remove_on_match": {"key_matcher": {"prefix": _PREFIX}}}]

    def _static_answer(self) -> list[Document]:
        said = [_set("access-control-allow-origin", "*")]
        if self.exposed_headers:
            said.append(_set("access-control-expose-headers", ", ".join(self.exposed_headers)))
        return [*self._stripped(), *said]


def _origin_pattern(origin: str) -> str:
    scheme, wildcard, host = origin.partition("://*.")
    if not wildcard:
        return re.escape(origin)
    return rf"{re.escape(scheme)}://{_LABELS}\.{re.escape(host)}"


def _for_lua(origin: str) -> Value:
    scheme, wildcard, host = origin.partition("://*.")
    if origin == "*":
        return {"any": True}
    return {"scheme": f"{scheme}://", "suffix": f".{host}"} if wildcard else {"exact": origin}


def _matching(header: str, pattern: str) -> Document:
    return {"name": header, "string_match": {"safe_regex": {"regex": pattern}}}


def _present(header: str) -> Document:
    return {"name": header, "present_match": True}


def _set(name: str, value: str) -> Document:
    return {
        "append": {
            "header": {"key": name, "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    }


def _append(name: str, value: str) -> Document:
    return {
        "append": {
            "header": {"key": name, "value": value},
            "append_action": "APPEND_IF_EXISTS_OR_ADD",
        }
    }


def _copy(source: str, target: str) -> Document:
    return _set(target, f"%REQ({source})%")
