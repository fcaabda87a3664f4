"""What can go wrong on the bus.

* BusError
  - UnknownEvent      the sender is newer than we are: skip, count, carry on
  - MalformedEvent    the sender is broken: dead-letter
  - BusUnavailable    transient: back off and retry
"""


class BusError(Exception):
    """Anything the bus refuses or cannot do."""


class UnknownEvent(BusError):
    """No event class has this kind."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"no event class for kind {kind!r}")
        self.kind = kind  # the skip counter's label


class MalformedEvent(BusError):
    """The message is not an event of the kind it claims to be."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"malformed event: {reason}")
        self.reason = reason


class BusUnavailable(BusError):
    """The broker did not answer, or refused to store the message, for now."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the bus is unavailable: {reason}")
        self.reason = reason
