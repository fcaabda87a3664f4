"""redirect."""

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from policy_engine.lua import constants, lua, program
from policy_engine.parameters.paths import PathValue, guarded_segments, prefix_rewrite
from policy_engine.policy import (
    Document,
    HttpFilter,
    Parameters,
    Policy,
    Purpose,
    Redirect,
    Scope,
    Version,
)
from policy_engine.shadow import noting

_HOSTNAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?|\[[0-9A-Fa-f:.]+\]")

# The listener routes by host without a port, so the port of the request is not known here: where
# scheme, host and port stay, a relative reference (RFC 9110, 10.2.2) keeps all three.
_STAY = """\
function envoy_on_request(handle)
  if SCHEME == nil or SCHEME == handle:headers():get(":scheme") then
    handle:streamInfo():dynamicMetadata():set("signalbox.redirect", "stay", true)
  end
end

function envoy_on_response(handle)
  local headers, location = handle:headers(), handle:headers():get("location")
  if location and handle:streamInfo():dynamicMetadata():get("signalbox.redirect") then
    headers:replace("location", (location:gsub("^%a+://[^/]*", "")))
  end
end
"""


def _hostname(host: str) -> str:
    if not _HOSTNAME.fullmatch(host):
        raise ValueError(f"{host!r} is not a host name or IP address; the port has its own field")
    return host


class RedirectPath(Parameters):
    """The path of the new place."""

    mode: Literal["full", "prefix"]
    """What `value` replaces: the `full` path, or the `prefix` that the policy stands for, which is
    the API's context and, attached to an operation, the operation's path up to its `*`. The query
    is kept."""

    value: PathValue
    """The new path or prefix, as the caller sees it: it begins with `/`."""


class RedirectPolicy(Policy):
    """Sends the caller to another place; no upstream is called and no later policy runs.

    What is not set is kept from the request. Where neither host nor port is set, and the scheme is
    the request's own, the answer is a path, which callers take relative to where they are, port
    included. Another scheme comes with its default port, as in redirects of the Gateway API: what
    listens on the old port does not speak it. So does a `hostname`. Name any other `port`.
    """

    name: ClassVar[str] = "redirect"
    version: ClassVar[Version] = Version(0, 9, 2)
    purpose: ClassVar[Purpose] = "answers"
    example: ClassVar[Document] = {
        "statusCode": 301,
        "scheme": "https",
        "hostname": "orders.example.com",
        "path": {"mode": "prefix", "value": "/v2/orders"},
    }

    status_code: Literal[301, 302, 303, 307, 308] = 302
    """The status: permanent (301, 308) or not; 307 and 308 keep method and body."""

    scheme: Literal["http", "https"] | None = None
    """The new scheme."""

    hostname: Annotated[
        str | None, Field(min_length=1, max_length=253), AfterValidator(_hostname)
    ] = None
    """The new host, without a port."""

    port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    """The new port."""

    path: RedirectPath | None = None
    """The new path."""

    @model_validator(mode="after")
    def _elsewhere(self) -> Self:
        if not (self.scheme or self.hostname or self.port or self.path):
            raise ValueError("one of scheme, hostname, port and path is required")
        return self

    def shadow(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """Every request is reported."""
        note = noting(self.name, f"redirects with {self.status_code}")
        return (HttpFilter(scope.unique(self.name), note),)

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """None: the route answers. Where the caller stays, one `lua` that makes it a path."""
        if self.hostname is not None or self.port is not None:
            return ()
        source = constants(SCHEME=self.scheme) + _STAY
        return (HttpFilter(scope.unique(self.name), lua(source)),)

    def conditional(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One `lua` filter, which answers."""
        prefix = full = None
        value = ""
        match self.path:
            case RedirectPath(mode="full", value=path):
                full = path
            case RedirectPath(value=path):
                prefix, value = _guarded(scope), path.rstrip("/")
        source = constants(
            STATUS=str(self.status_code),
            SCHEME=self.scheme,
            HOST=self.hostname,
            PORT=self.port,
            FULL=full,
            PREFIX=prefix,
            VALUE=value,
        )
        return (HttpFilter(scope.unique(self.name), lua(source + program("redirect.lua"))),)

    def redirect(self, scope: Scope) -> Redirect:
        """The redirect, always."""
        action: Document = {}
        if self.scheme is not None:
            action["scheme_redirect"] = self.scheme
        if self.hostname is not None:
            action["host_redirect"] = self.hostname
        if self.port is not None:
            action["port_redirect"] = self.port
        match self.path:
            case RedirectPath(mode="full", value=value):
                action["path_redirect"] = value
            case RedirectPath(value=value):
                action["regex_rewrite"] = prefix_rewrite(scope, value)
        return Redirect(self.status_code, action)


def _guarded(scope: Scope) -> str:
    """A Lua pattern of what the policy stands for."""
    context = "" if scope.context == "/" else re.sub(r"(\W)", r"%\1", scope.context)
    parts = (
        "/[^/]+" if part.startswith("{") else "/" + re.sub(r"(\W)", r"%\1", part)
        for part in guarded_segments(scope)
    )
    return "^" + context + "".join(parts)
