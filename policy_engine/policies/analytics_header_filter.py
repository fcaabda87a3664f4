"""analytics-header-filter."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from bus.usage import HEADER_FILTER_NAMESPACE
from policy_engine.parameters.headers import HeaderName
from policy_engine.policy import (
    Document,
    HttpFilter,
    Parameters,
    Policy,
    Purpose,
    Scope,
    Version,
    typed,
)

_SET_METADATA = "envoy.extensions.filters.http.set_metadata.v3.Config"


class Filter(Parameters):
    """Which headers may be recorded."""

    mode: Literal["allow", "deny"]
    """`allow`: only these headers; `deny`: all but these."""

    headers: Annotated[tuple[HeaderName, ...], Field(max_length=100)] = ()
    """The headers, in any case of their letters; none: all are recorded, in both modes."""


class AnalyticsHeaderFilter(Policy):
    """Narrows which headers usage events record; traffic is not changed.

    What can be recorded at all is set by whoever runs the gateway (`usage_request_headers`,
    `usage_response_headers`): nothing, unless they say so, and never headers that hold secrets.
    Where the policy stands several times on the way of a request, all must let a header through.
    """

    name: ClassVar[str] = "analytics-header-filter"
    version: ClassVar[Version] = Version(1, 0, 1)
    purpose: ClassVar[Purpose] = "changes"
    example: ClassVar[Document] = {
        "request": {"mode": "allow", "headers": ["User-Agent", "Accept-Language"]},
        "response": {"mode": "deny", "headers": ["X-Internal-Cost"]},
    }

    request: Filter | None = None
    """Headers of requests."""

    response: Filter | None = None
    """Headers of answers."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.request is None and self.response is None:
            raise ValueError("request or response is required")
        return self

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One `set_metadata` filter: the access log carries it to who writes usage events."""
        name = scope.unique(self.name)
        said = {
            direction: {"mode": one.mode, "headers": sorted({each.lower() for each in one.headers})}
            for direction, one in (("request", self.request), ("response", self.response))
            if one is not None and one.headers
        }
        if not said:
            return ()
        metadata = {
            "metadata_namespace": HEADER_FILTER_NAMESPACE,
            "allow_overwrite": True,  # of other uses of the policy; each has a key of its own
            "value": {name: said},
        }
        return (HttpFilter(name, typed(_SET_METADATA, {"metadata": [metadata]})),)
