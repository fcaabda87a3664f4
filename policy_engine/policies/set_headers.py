"""set-headers."""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from policy_engine.parameters.headers import (
    EditableHeaderName,
    HeaderValue,
    header_mutation,
    overwrite,
)
from policy_engine.policy import Document, HttpFilter, Parameters, Policy, Purpose, Scope, Version


class HeaderSetting(Parameters):
    """One header and the value it gets."""

    name: EditableHeaderName
    """The header, in any case; pseudo headers, `host` and connection headers cannot be set."""

    value: HeaderValue
    """Its value, taken literally, also `%`; may be empty."""


class HeaderSettings(Parameters):
    """The headers to set in one direction."""

    headers: Annotated[tuple[HeaderSetting, ...], Field(min_length=1, max_length=100)]
    """Set in written order; of two with the same name the later one stays."""


class SetHeaders(Policy):
    """Sets headers on the request to the upstream and on the response to the caller.

    A header that is already there is replaced, all of its values. Responses are those of the
    upstream and refusals of the gateway alike.
    """

    name: ClassVar[str] = "set-headers"
    version: ClassVar[Version] = Version(1, 1, 0)
    purpose: ClassVar[Purpose] = "changes"
    example: ClassVar[Document] = {
        "request": {"headers": [{"name": "X-Tenant", "value": "acme"}]},
        "response": {"headers": [{"name": "Cache-Control", "value": "no-store"}]},
    }

    request: HeaderSettings | None = None
    """Headers of the request, as the upstream sees them."""

    response: HeaderSettings | None = None
    """Headers of the response, as the caller sees them."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.request is None and self.response is None:
            raise ValueError("request or response is required")
        return self

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One `header_mutation` filter."""
        config = header_mutation(_mutations(self.request), _mutations(self.response))
        return (HttpFilter(scope.unique(self.name), config),)


def _mutations(settings: HeaderSettings | None) -> list[Document]:
    if settings is None:
        return []
    return [overwrite(one.name, one.value) for one in settings.headers]
