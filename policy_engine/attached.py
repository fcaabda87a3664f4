"""A policy as an API's document attaches it."""

from dataclasses import dataclass, field

from policy_engine.policy import Document, FailureMode, Mode, Policy


@dataclass(frozen=True, slots=True)
class Attached:
    """A policy as it stands in an API's document."""

    policy: Policy
    params: Document = field(default_factory=dict)  # as written, for the engine
    condition: str | None = None  # CEL
    mode: Mode = "enforce"
    failure_mode: FailureMode | None = None  # None: the policy's own
    timeout_s: float | None = None  # None: the policy's own
