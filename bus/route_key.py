"""The name of a route, which Envoy carries from the route table to the access log.

`METHOD|context+path|vhost|api`: the contract's route key and the API's handle. A `|` or `%` inside
a part is percent-encoded, so that the name splits one way only.
"""

from dataclasses import dataclass
from typing import Self


def _escape(part: str) -> str:
    return part.replace("%", "%25").replace("|", "%7C")


def _unescape(part: str) -> str:
    return part.replace("%7C", "|").replace("%25", "%")


@dataclass(frozen=True, slots=True)
class RouteKey:
    """Which operation of which API a request was routed to."""

    method: str
    path: str  # context and operation path as declared, e.g. /weather/v1/{city}
    vhost: str  # the host as declared, `*` for any
    api: str  # the API's handle (metadata.name)
    discriminator: str = ""  # tells apart operations that differ in header matches only

    def __str__(self) -> str:
        parts = (self.method, self.path, self.vhost, self.api)
        tail = (self.discriminator,) if self.discriminator else ()
        return "|".join(_escape(part) for part in (*parts, *tail))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The key that `text` names; None when it is not a route key (no route, Envoy's own)."""
        parts = [_unescape(part) for part in text.split("|")]
        if len(parts) not in (4, 5):
            return None
        return cls(*parts)
