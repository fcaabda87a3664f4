"""A policy as an API's document attaches it."""

from dataclasses import dataclass, field

from bus.resources.document import duration_s
from bus.resources.rest_api import PolicyRef
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


def as_attached(policy: Policy, ref: PolicyRef) -> Attached:
    """`policy`, which `ref` names, as it stands there."""
    return Attached(
        policy=policy,
        params=ref.params,
        condition=ref.execution_condition,
        mode=ref.mode,
        failure_mode=ref.failure_mode,
        timeout_s=None if ref.timeout is None else duration_s(ref.timeout),
    )
