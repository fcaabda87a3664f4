"""dynamic-endpoint."""

from typing import Annotated, ClassVar

from pydantic import Field

from policy_engine.policy import (
    Document,
    HttpFilter,
    Policy,
    Purpose,
    Routing,
    Scope,
    Share,
    Version,
)


class DynamicEndpoint(Policy):
    """Sends requests to another upstream definition of the API than its upstream.

    The definition's base path is put before the path below the context, which other policies may
    have rewritten. It holds on production and on sandbox hosts alike; whether the upstream sees its
    own host is decided by the `hostRewrite` of the upstream it stands in for. Of several the one
    that runs last decides, so an operation's goes before the API's.
    """

    name: ClassVar[str] = "dynamic-endpoint"
    version: ClassVar[Version] = Version(1, 0, 1)
    purpose: ClassVar[Purpose] = "changes"
    example: ClassVar[Document] = {"targetUpstream": "orders-v2"}

    target_upstream: Annotated[str, Field(min_length=1, max_length=100)]
    """The name of one of the API's `upstreamDefinitions`."""

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """None: the route has another cluster."""
        del scope
        return ()

    def routing(self) -> Routing:
        """All requests, for the one definition."""
        return Routing(shares=(Share(self.target_upstream),))

    def upstream_refs(self) -> dict[str, str]:
        """The definition."""
        return {"targetUpstream": self.target_upstream}
