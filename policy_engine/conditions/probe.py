"""The engine's part in conditions of policies that run in Envoy: it looks, and tells Envoy."""

from typing import ClassVar, Literal

from policy_engine.hooks import Exchange, Phase, PythonPolicy
from policy_engine.policy import Document, FailureMode, Purpose, Version


class ConditionProbe(PythonPolicy):
    """Publishes that its own condition holds.

    Stands before (for answers: behind) a policy whose condition Envoy cannot decide by itself.
    Nobody can attach it: it is no part of the catalogue's listing.
    """

    name: ClassVar[str] = "signalbox-condition"
    version: ClassVar[Version] = Version(1, 0, 0)
    example: ClassVar[Document] = {"key": "condition-1", "direction": "request"}
    purpose: ClassVar[Purpose] = "changes"  # what cannot be decided is not published
    why_python: ClassVar[str] = "Envoy cannot decide its condition"
    failure_mode: ClassVar[FailureMode] = "open"  # the gate decides without it

    key: str
    """What is published as true."""

    direction: Literal["request", "response"]
    """When it is looked at."""

    def phases(self) -> frozenset[Phase]:
        """The one direction; the engine waits for the body if the condition speaks of it."""
        return frozenset({"request_headers" if self.direction == "request" else "response_headers"})

    def on_request_headers(self, exchange: Exchange) -> None:
        """The condition holds."""
        exchange.published[self.key] = True

    def on_response_headers(self, exchange: Exchange) -> None:
        """The condition holds."""
        exchange.published[self.key] = True
