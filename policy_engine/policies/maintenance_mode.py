"""maintenance-mode."""

import json
import math
from ipaddress import ip_network
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from bus.resources.document import PositiveDuration, duration_s
from policy_engine.lua import constants, lua
from policy_engine.policy import (
    DirectAnswer,
    Document,
    HttpFilter,
    Policy,
    Purpose,
    Scope,
    Version,
    literal,
    typed,
)
from policy_engine.shadow import noting, watched

_RBAC = "envoy.extensions.filters.http.rbac.v3.RBAC"
_ANSWER = """\
function envoy_on_request(handle)
  local found = handle:streamInfo():dynamicMetadata():get("envoy.filters.http.rbac") or {}
  if found[RESULT] ~= "allowed" then
    handle:respond({[":status"] = "503", ["content-type"] = TYPE, ["retry-after"] = AFTER}, BODY)
  end
end
"""


def _network(text: str) -> str:
    try:
        ip_network(text)
    except ValueError as error:
        raise ValueError(f"is not an address or a network: {error}") from None
    return text


class MaintenanceMode(Policy):
    """Answers 503 with `Retry-After` while the API is under maintenance.

    Callers from addresses that are allowed pass, to try what was changed.
    """

    name: ClassVar[str] = "maintenance-mode"
    version: ClassVar[Version] = Version(1, 0, 0)
    purpose: ClassVar[Purpose] = "answers"
    example: ClassVar[Document] = {"message": "Back at noon", "retryAfter": "30m"}

    message: Annotated[str, Field(max_length=1024)] = "The API is under maintenance"
    """The `message` of the JSON body."""

    retry_after: PositiveDuration = "5m"
    """When callers may try again; told in whole seconds."""

    allow: Annotated[
        tuple[Annotated[str, AfterValidator(_network)], ...], Field(max_length=100)
    ] = ()
    """Who passes: addresses and networks, such as `10.0.0.0/8` and `2001:db8::/32`. Behind trusted
    proxies it is the address that they tell."""

    def shadow(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """Every request is reported, apart from callers that may pass."""
        name = scope.unique(self.name)
        if not self.allow:
            return (HttpFilter(name, noting(self.name, "under maintenance")),)
        watch = typed(_RBAC, {"rules": self._allowed})
        return (watched(self.name, HttpFilter(name, watch)),)

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """None if nobody passes; else `rbac`, which notes who may, and `lua`, which answers."""
        if not self.allow:
            return ()
        name = scope.unique(self.name)
        note = f"{name}.".replace(".", "_")
        rbac = typed(_RBAC, {"shadow_rules": self._allowed, "shadow_rules_stat_prefix": note})
        source = constants(
            RESULT=f"{note}shadow_engine_result",
            TYPE="application/json",
            AFTER=self._after,
            BODY=self._body,
        )
        return (
            HttpFilter(f"{name}.allowed", rbac),
            HttpFilter(name, lua(source + _ANSWER)),
        )

    def answer(self) -> DirectAnswer | None:
        """The answer, if nobody passes."""
        if self.allow:
            return None
        headers = (("content-type", "application/json"), ("retry-after", literal(self._after)))
        return DirectAnswer(503, self._body, headers)

    @property
    def _allowed(self) -> Document:
        principals = [
            {
                "remote_ip": {
                    "address_prefix": str(one.network_address),
                    "prefix_len": one.prefixlen,
                }
            }
            for one in (ip_network(text) for text in self.allow)
        ]
        allowed = {"permissions": [{"any": True}], "principals": principals}
        return {"action": "ALLOW", "policies": {"allowed": allowed}}

    @property
    def _after(self) -> str:
        return str(math.ceil(duration_s(self.retry_after)))

    @property
    def _body(self) -> str:
        return json.dumps({"error": "Service Unavailable", "message": self.message})
