"""Scopes that policies ask of tokens."""

from collections.abc import Collection
from typing import Annotated

from pydantic import Field

from policy_engine.policy import Parameters

Names = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=1024)], ...], Field(max_length=100)
]


class Scopes(Parameters):
    """Scopes that a token must have."""

    all_of: Names = ()
    """All of these."""

    any_of: Names = ()
    """At least one of these."""

    def lacking(self, granted: Collection[str]) -> tuple[str, ...]:
        """What would have to be added to `granted`, in the order it is written; empty: nothing.

        Of `any_of` all are named where none is there: any of them would do.
        """
        missing = [one for one in self.all_of if one not in granted]
        if self.any_of and not any(one in granted for one in self.any_of):
            missing += [one for one in self.any_of if one not in missing]
        return tuple(missing)
