"""What can go wrong in analytics.

* AnalyticsError
  - CannotListen        the access log's address cannot be used: tell the operator which and why
  - TotalsUnavailable   the database of totals does not answer, for now: back off and retry
  - TotalsRefused       the database cannot hold a value: one of the batches is broken
  - InvalidQuery        the question is wrong: tell who asks which parameter, and why
  - MalformedSketch     a stored sketch is not one: the row was written by something else
"""


class AnalyticsError(Exception):
    """Anything wrong with usage, totals or reports."""


class CannotListen(AnalyticsError):
    """Nobody can deliver an access log here."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"cannot receive access logs on {address}: {reason}")
        self.address = address
        self.reason = reason


class TotalsUnavailable(AnalyticsError):
    """The store of totals did not answer, or refused to write, for now."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the store of usage totals is unavailable: {reason}")
        self.reason = reason


class TotalsRefused(AnalyticsError):
    """A value of a batch does not fit; the same write will never succeed."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the store of usage totals refuses a value: {reason}")
        self.reason = reason


class InvalidQuery(AnalyticsError):
    """One parameter of a report's query makes no sense."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class MalformedSketch(AnalyticsError):
    """Bytes that should be a latency sketch are not."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"malformed latency sketch: {reason}")
        self.reason = reason
