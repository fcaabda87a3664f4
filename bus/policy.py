"""Events about Python policies: what failed, and what became of the requests."""

from typing import Annotated, Literal

from pydantic import Field

from bus.events import Event
from bus.subjects import Family
from bus.usage import Moment


class PolicyFailed(Event, kind="policy.failed", family=Family.USAGE):
    """A Python policy has failed; equal failures are told together, at most once in ten seconds."""

    api: str
    """Handle of the API; empty when it is not known."""
    policy: str
    phase: str
    """`request_headers`, ..., or `load` when it could not be made, `any` when that is not known."""
    failure: Literal[
        "raised",
        "too-slow",
        "nonsense",
        "memory",
        "condition",
        "not-loaded",
        "unknown-upstream",
        "benched",
        "died",
    ]
    """`died`: its worker ended while it ran; `benched`: it rests, because that has happened."""
    outcome: Literal["closed", "open", "shadow", "runs", "skipped"]
    """Requests were refused, or passed, or were not concerned; conditions without a truth: whether
    the policy has run."""
    reason: str
    """One line, of the latest."""
    traceback: str = ""
    count: Annotated[int, Field(ge=1, lt=1 << 48)]
    since_ms: Moment  # Unix time of the first of them
    until_ms: Moment  # and of the last

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by API."""
        return (self.api or "none",)
