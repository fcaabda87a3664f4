"""request-size-limit."""

from typing import Annotated, ClassVar

from pydantic import Field

from policy_engine.lua import program
from policy_engine.policy import Document, HttpFilter, Policy, Scope, Version, typed
from policy_engine.shadow import looking

_FILTER = "envoy.extensions.filters.http.body_size_limit.v3.BodySizeLimit"


class RequestSizeLimit(Policy):
    """Refuses requests with a body that is too large, with 413.

    Bodies are counted while they pass, not held back: an upstream may see the beginning of one
    whose length was not told beforehand, but never its end.
    """

    name: ClassVar[str] = "request-size-limit"
    version: ClassVar[Version] = Version(1, 0, 0)
    example: ClassVar[Document] = {"maxBytes": 1_048_576}

    max_bytes: Annotated[int, Field(ge=1, le=1 << 40)]
    """The largest body, bytes as they arrive."""

    def shadow(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One `lua` filter that counts."""
        config = looking(self.name, program("request_size_shadow.lua"), LONGEST=self.max_bytes)
        return (HttpFilter(scope.unique(self.name), config),)

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One `body_size_limit` filter."""
        config = typed(_FILTER, {"max_request_bytes": self.max_bytes})
        return (HttpFilter(scope.unique(self.name), config),)
