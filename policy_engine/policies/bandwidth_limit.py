"""bandwidth-limit."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from policy_engine.policy import Document, HttpFilter, Policy, Purpose, Scope, Version, typed

_FILTER = "envoy.extensions.filters.http.bandwidth_limit.v3.BandwidthLimit"
_MODES = {"request": "REQUEST", "response": "RESPONSE", "both": "REQUEST_AND_RESPONSE"}


class BandwidthLimit(Policy):
    """Slows bodies down so that together they need no more than a given bandwidth.

    The bandwidth is shared by all requests of what the policy is attached to, in each router by
    itself. Nothing is refused.
    """

    name: ClassVar[str] = "bandwidth-limit"
    version: ClassVar[Version] = Version(1, 0, 0)
    purpose: ClassVar[Purpose] = "changes"
    example: ClassVar[Document] = {"kibibytesPerSecond": 512, "direction": "response"}

    kibibytes_per_second: Annotated[int, Field(ge=1, le=100_000_000)]
    """The bandwidth, KiB/s, for each direction."""

    direction: Literal["request", "response", "both"] = "both"
    """Which bodies are slowed down: those of `request`, of `response`, or of `both`."""

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One `bandwidth_limit` filter."""
        limit = {
            "stat_prefix": "bandwidth_limit",
            "enable_mode": _MODES[self.direction],
            "limit_kbps": self.kibibytes_per_second,
        }
        return (HttpFilter(scope.unique(self.name), typed(_FILTER, limit)),)
