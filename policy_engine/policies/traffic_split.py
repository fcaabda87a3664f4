"""traffic-split."""

from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from policy_engine.parameters.headers import HeaderName
from policy_engine.policy import (
    Document,
    HttpFilter,
    Parameters,
    Policy,
    Purpose,
    Routing,
    Scope,
    Share,
    Version,
)


class SplitTarget(Parameters):
    """One part of the requests."""

    upstream: Annotated[str, Field(min_length=1, max_length=100)]
    """The name of one of the API's `upstreamDefinitions`."""

    weight: Annotated[int, Field(ge=0, le=1_000_000)]
    """Its part of the sum of all weights; 0 for none."""


class Sticky(Parameters):
    """By what a caller is known, to go where it went before."""

    header: HeaderName | None = None
    """The header that names the caller; requests without it are split by chance."""

    cookie: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] | None = None
    """The cookie that names the caller, such as the session of the application. The gateway sets
    none: requests without it are split by chance."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.header is None) == (self.cookie is None):
            raise ValueError("exactly one of header and cookie must be given")
        return self


class TrafficSplit(Policy):
    """Splits requests over upstream definitions by weight, such as for a canary.

    It takes the place of the API's upstream. All definitions need the same base path. Of several,
    and of `dynamic-endpoint`, the one that runs last decides.
    """

    name: ClassVar[str] = "traffic-split"
    version: ClassVar[Version] = Version(1, 0, 0)
    purpose: ClassVar[Purpose] = "changes"
    example: ClassVar[Document] = {
        "targets": [
            {"upstream": "orders-v1", "weight": 95},
            {"upstream": "orders-v2", "weight": 5},
        ],
        "sticky": {"cookie": "session"},
    }

    targets: Annotated[tuple[SplitTarget, ...], Field(min_length=1, max_length=20)]
    """The parts."""

    sticky: Sticky | None = None
    """Whether a caller stays where it was sent first; as long as the weights stay."""

    @model_validator(mode="after")
    def _somewhere(self) -> Self:
        if not any(target.weight for target in self.targets):
            raise ValueError("targets: at least one weight must be above 0")
        return self

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """None: the route splits."""
        del scope
        return ()

    def routing(self) -> Routing:
        """The parts that get something."""
        shares = tuple(Share(one.upstream, one.weight) for one in self.targets if one.weight)
        return Routing(shares=shares, sticky=self.sticky is not None)

    def route_fields(self, scope: Scope) -> Document:
        """What a caller is known by."""
        del scope
        if self.sticky is None:
            return {}
        if self.sticky.header is not None:
            return {"hash_policy": [{"header": {"header_name": self.sticky.header.lower()}}]}
        return {"hash_policy": [{"cookie": {"name": self.sticky.cookie}}]}

    def upstream_refs(self) -> dict[str, str]:
        """The definitions."""
        return {f"targets[{at}].upstream": one.upstream for at, one in enumerate(self.targets)}
