"""What can go wrong in the policy engine as a service.

* EngineError
  - AddressUnusable   at start: nothing can listen there; tell the operator which setting
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
