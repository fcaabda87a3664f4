"""mirror."""

from typing import Annotated, ClassVar

from pydantic import Field

from policy_engine.policy import (
    Document,
    HttpFilter,
    Mirror,
    Policy,
    Purpose,
    Routing,
    Scope,
    Version,
)


class MirrorPolicy(Policy):
    """Sends copies of requests to another upstream definition and drops its answers.

    Callers notice nothing of it, neither of its time nor of its failures. Copies have the path of
    the request, so the definition needs the base path of the upstream that answers. Several add up.
    """

    name: ClassVar[str] = "mirror"
    version: ClassVar[Version] = Version(1, 0, 0)
    purpose: ClassVar[Purpose] = "changes"
    example: ClassVar[Document] = {"targetUpstream": "orders-v2", "percentage": 10.0}

    target_upstream: Annotated[str, Field(min_length=1, max_length=100)]
    """The name of one of the API's `upstreamDefinitions`."""

    percentage: Annotated[float, Field(gt=0, le=100)] = 100.0
    """How many requests are copied, percent."""

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """None: the route copies."""
        del scope
        return ()

    def routing(self) -> Routing:
        """The copies."""
        return Routing(mirrors=(Mirror(self.target_upstream, round(self.percentage * 10_000)),))

    def upstream_refs(self) -> dict[str, str]:
        """The definition."""
        return {"targetUpstream": self.target_upstream}
