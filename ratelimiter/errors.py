"""What can go wrong in the rate limiter.

* RatelimiterError
  - CannotListen      a service's address cannot be used: tell the operator which and why
  - InsecureAddress   limits would be open to a network: tell the operator what is missing
  - BadStoreSettings  the store cannot be reached as described: tell the operator which setting
  - StoreAway         the store did not do it, for now: count locally, try again
"""


class RatelimiterError(Exception):
    """Anything wrong with shared limits."""


class CannotListen(RatelimiterError):
    """Routers cannot reach the service here."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot serve rate limits on {address}: {reason}")
        self.address = address
        self.reason = reason


class InsecureAddress(RatelimiterError):
    """Whoever reaches the address could use up anybody's limits."""

    def __init__(self, setting: str, address: str, missing: str) -> None:
        super().__init__(f"{setting}: {address} is not a loopback address; {missing}")
        self.setting = setting
        self.address = address


class BadStoreSettings(RatelimiterError):
    """The store is described in a way that cannot work."""

    def __init__(self, setting: str, reason: str) -> None:
        super().__init__(f"{setting}: {reason}")
        self.setting = setting
        self.reason = reason


class StoreAway(RatelimiterError):
    """The store is out of reach, slow, full, or refuses."""

    def __init__(self, reason: str, cause: str) -> None:
        super().__init__(f"the store of counters is away: {reason}")
        self.reason = reason
        self.cause = cause
        """One word for metrics: `unreachable`, `slow`, `full`, `refused`."""
