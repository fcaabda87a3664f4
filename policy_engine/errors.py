"""What can be wrong with a policy in a resource.

* PolicyError
  - UnknownPolicy       no such name or major version: tell the user which there are
  - InvalidParameters   the parameters do not fit: tell the user which, and why
  - PolicyNotCompiled   the policy cannot be said to Envoy here: only this API is refused
  - MalformedQuota      the text of a limit is not one: its sender is newer, or broken
  - SourceUnusable      a policy's file cannot be used: tell the operator why, keep the last good
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Fault:
    """One wrong parameter."""

    path: str  # below params, e.g. `request.headers[0].name`; empty for params as a whole
    message: str


class PolicyError(Exception):
    """Anything wrong with the use of a policy."""


class UnknownPolicy(PolicyError):
    """No policy of this name and version is loaded."""

    def __init__(self, name: str, version: str, reason: str = "") -> None:
        wanted = f"{name} {version}".strip()
        why = f" (it is installed, but does not load: {reason})" if reason else ""
        super().__init__(f"policy {wanted!r} not found in loaded policy definitions{why}")
        self.name = name
        self.version = version


class InvalidParameters(PolicyError):
    """The parameters of a policy do not fit its model."""

    def __init__(self, name: str, faults: tuple[Fault, ...]) -> None:
        super().__init__(
            f"parameters of policy {name!r} are invalid: "
            + "; ".join(f"{fault.path}: {fault.message}".lstrip(": ") for fault in faults)
        )
        self.name = name
        self.faults = faults


class PolicyNotCompiled(PolicyError):
    """The policy is valid but has no meaning where it stands."""

    def __init__(self, name: str, reason: str, *, parameter: str = "") -> None:
        super().__init__(f"policy {name!r}: {reason}")
        self.name = name
        self.reason = reason
        self.parameter = parameter  # that would have to change, such as `issuers[0]`


class MalformedQuota(PolicyError):
    """The text that should describe a quota does not."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a quota: {reason}")
        self.reason = reason


class SourceUnusable(PolicyError):
    """A file or folder of policies is not used."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
