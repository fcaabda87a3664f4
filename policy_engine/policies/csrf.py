"""csrf.

Source: https://cheatsheetseries.owasp.org/cheatsheets/Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html,
https://www.w3.org/TR/fetch-metadata/
"""

import re
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from policy_engine.lua import Value, constants, lua, program
from policy_engine.policy import Document, HttpFilter, Policy, Scope, Version
from policy_engine.shadow import looking

_LABELS = r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*"
_HOST = re.compile(rf"((\*\.)?{_LABELS}|\[[0-9A-Fa-f:.]+\])(:[0-9]{{1,5}})?")
_REFUSAL = """\
local function report(handle)
handle:respond({[":status"] = "403", ["content-type"] = "application/json"},
'{"error":"Forbidden","message":"Requests from this origin are not allowed"}')
end
"""


def _host(host: str) -> str:
    if not _HOST.fullmatch(host):
        raise ValueError(
            f"{host!r} is not a host: a name with a port if it is not the usual one, without a "
            "scheme, such as app.example.com or *.example.com:8443"
        )
    return host


class Csrf(Policy):
    """Refuses requests that other web sites make browsers send.

    `POST`, `PUT`, `DELETE` and `PATCH` must come from a page of the API's own origin or of one of
    `additionalOrigins`, or are refused with 403; other methods pass. For APIs that browsers call
    with cookies. Browsers say themselves in `Sec-Fetch-Site` whether the origin is the same, the
    port included. Where that is missing, as it is from browsers over plain HTTP, `Origin`, or else
    `Referer`, must be of the API's own host: without a port, or with the one that the gateway
    listens on. Where browsers then reach the gateway by yet another port, name host and port in
    `additionalOrigins`.
    """

    name: ClassVar[str] = "csrf"
    version: ClassVar[Version] = Version(1, 1, 0)
    example: ClassVar[Document] = {"additionalOrigins": ["app.example.com", "*.example.org"]}

    additional_origins: Annotated[
        tuple[Annotated[str, AfterValidator(_host)], ...], Field(max_length=100)
    ] = ()
    """Hosts whose pages may call, beside the API's own: in any case, with a port if it is not the
    scheme's, `*.example.org` for every subdomain at any depth."""

    def shadow(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """The same `lua` filter, which reports."""
        config = looking(self.name, program("csrf.lua"), **self._known())
        return (HttpFilter(scope.unique(self.name), config),)

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One `lua` filter: Envoy's own `csrf` compares with a host that has lost its port."""
        source = constants(**self._known()) + _REFUSAL + program("csrf.lua")
        return (HttpFilter(scope.unique(self.name), lua(source)),)

    def _known(self) -> dict[str, Value]:
        wild = [one[1:].lower() for one in self.additional_origins if one.startswith("*.")]
        hosts = [one.lower() for one in self.additional_origins if not one.startswith("*.")]
        return {"HOSTS": [*hosts], "SUFFIXES": [*wild]}
