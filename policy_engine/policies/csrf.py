"""csrf.

Source: https://cheatsheetseries.owasp.org/cheatsheets/Cross-Site_Request_Forgery_Prevention_Cheat_Sheet.html
"""

import re
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from policy_engine.lua import program
from policy_engine.policy import (
    Document,
    HttpFilter,
    Policy,
    Refusal,
    Scope,
    Version,
    typed,
)
from policy_engine.shadow import looking

_POLICY = "envoy.extensions.filters.http.csrf.v3.CsrfPolicy"
_LABELS = r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*"
_HOST = re.compile(rf"((\*\.)?{_LABELS}|\[[0-9A-Fa-f:.]+\])(:[0-9]{{1,5}})?")


def _host(host: str) -> str:
    if not _HOST.fullmatch(host):
        raise ValueError(
            f"{host!r} is not a host: a name with a port if it is not the usual one, without a "
            "scheme, such as app.example.com or *.example.com:8443"
        )
    return host


class Csrf(Policy):
    """Refuses requests that other web sites make browsers send.

    `POST`, `PUT`, `DELETE` and `PATCH` need an `Origin`, or else a `Referer`, of the API's own host
    or of one of `additionalOrigins`; other methods pass. For APIs that browsers call with cookies.
    Where they reach the API by another port than the scheme's, name host and port there too: the
    port that a request was sent to is not known here.
    """

    name: ClassVar[str] = "csrf"
    version: ClassVar[Version] = Version(1, 0, 0)
    refusals: ClassVar[tuple[Refusal, ...]] = (
        Refusal(
            "csrf_origin_mismatch",
            403,
            {"error": "Forbidden", "message": "Requests from this origin are not allowed"},
        ),
    )
    example: ClassVar[Document] = {"additionalOrigins": ["app.example.com", "*.example.org"]}

    additional_origins: Annotated[
        tuple[Annotated[str, AfterValidator(_host)], ...], Field(max_length=100)
    ] = ()
    """Hosts whose pages may call, beside the API's own: in any case, with a port if it is not the
    scheme's, `*.example.org` for every subdomain at any depth."""

    def shadow(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One `lua` filter: what Envoy's own shadow of this sees is told by no request."""
        wild = [one[1:].lower() for one in self.additional_origins if one.startswith("*.")]
        hosts = [one.lower() for one in self.additional_origins if not one.startswith("*.")]
        script = program("csrf_shadow.lua")
        config = looking(self.name, script, HOSTS=[*hosts], SUFFIXES=[*wild])
        return (HttpFilter(scope.unique(self.name), config),)

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One `csrf` filter."""
        config: Document = {
            "filter_enabled": {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
        }
        if self.additional_origins:
            config["additional_origins"] = [_matching(one) for one in self.additional_origins]
        return (HttpFilter(scope.unique(self.name), typed(_POLICY, config)),)


def _matching(host: str) -> Document:
    if host.startswith("*."):
        return {"safe_regex": {"regex": rf"(?i){_LABELS}\.{re.escape(host[2:])}"}}
    return {"exact": host, "ignore_case": True}
