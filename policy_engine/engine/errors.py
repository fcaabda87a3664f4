"""What can go wrong in the policy engine as a service.

* EngineError
  - AddressUnusable   at start: nothing can listen there; tell the operator which setting
  - HopNotLoaded      a hop's policies cannot be made here: it fails as declared, others run
  - Nonsense          a hook gave what is no verdict: the policy fails as declared
  - TooSlow           a hook took longer than it may: the same
  - Benched           the policy has ended its worker, and rests: the same
"""


class EngineError(Exception):
    """Anything the engine cannot do."""


class AddressUnusable(EngineError):
    """Nothing can listen on an address and port."""

    def __init__(self, address: str, port: int, setting: str, reason: str) -> None:
        super().__init__(f"cannot listen on {address}, port {port} ({setting}): {reason}")
        self.address = address
        self.port = port
        self.setting = setting


class HopNotLoaded(EngineError):
    """A policy of a hop cannot be made."""

    def __init__(self, policy: str, reason: str) -> None:
        super().__init__(f"policy {policy!r} cannot run: {reason}")
        self.policy = policy
        self.reason = reason


class Nonsense(EngineError):
    """A hook has returned something that means nothing, or an answer that cannot be given."""


class TooSlow(EngineError):
    """A hook took longer than it may."""

    def __init__(self, timeout_s: float) -> None:
        super().__init__(f"took longer than {timeout_s:g} s")


class Benched(EngineError):
    """The policy has ended its worker before, and rests for a while."""
