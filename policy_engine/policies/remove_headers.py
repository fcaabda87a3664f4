"""remove-headers."""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from policy_engine.parameters.headers import EditableHeaderName, header_mutation
from policy_engine.policy import Document, HttpFilter, Parameters, Policy, Purpose, Scope, Version


class NamedHeader(Parameters):
    """One header."""

    name: EditableHeaderName
    """The header, in any case; pseudo headers, `host` and connection headers cannot be removed."""


class NamedHeaders(Parameters):
    """The headers to remove in one direction."""

    headers: Annotated[tuple[NamedHeader, ...], Field(min_length=1, max_length=100)]
    """Each is removed with all of its values; one that is not there is no error."""


class RemoveHeaders(Policy):
    """Removes headers from the request to the upstream and from the response to the caller."""

    name: ClassVar[str] = "remove-headers"
    version: ClassVar[Version] = Version(1, 0, 1)
    purpose: ClassVar[Purpose] = "changes"
    example: ClassVar[Document] = {
        "request": {"headers": [{"name": "X-Debug"}]},
        "response": {"headers": [{"name": "X-Powered-By"}]},
    }

    request: NamedHeaders | None = None
    """Headers of the request that the upstream does not get."""

    response: NamedHeaders | None = None
    """Headers of the response that the caller does not get."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.request is None and self.response is None:
            raise ValueError("request or response is required")
        return self

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One `header_mutation` filter."""
        config = header_mutation(_mutations(self.request), _mutations(self.response))
        return (HttpFilter(scope.unique(self.name), config),)


def _mutations(named: NamedHeaders | None) -> list[Document]:
    return [] if named is None else [{"remove": one.name.lower()} for one in named.headers]
