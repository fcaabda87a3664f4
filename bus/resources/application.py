"""An application: a program that calls APIs, with its keys and subscriptions."""

from typing import Annotated

from pydantic import AfterValidator, Field

from bus.resources.document import Document

Text = Annotated[str, Field(max_length=255)]


def _attributes(attributes: dict[str, str]) -> dict[str, str]:
    if len(attributes) > 100:
        raise ValueError("must hold at most 100 attributes")
    return attributes


Attributes = Annotated[dict[str, Text], AfterValidator(_attributes)]


class Application(Document):
    """One application. Its keys are those whose display name is its name or its id."""

    id: str
    name: Annotated[str, Field(min_length=1, max_length=100)]
    owner: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    """The user who may give it keys, beside admins; None: admins only."""
    description: Annotated[str, Field(max_length=1024)] | None = None
    attributes: Attributes = Field(default_factory=dict)

    @property
    def callers(self) -> tuple[str, ...]:
        """Names under which keys and tokens may say that it calls."""
        return tuple(dict.fromkeys((self.id, self.name)))
