"""What an attachment cannot mean, for policies that are not of the catalogue."""

from typing import ClassVar

from policy_engine.attached import Attached
from policy_engine.attachments import faults
from policy_engine.errors import Fault
from policy_engine.policy import Document, HttpFilter, Policy, Scope, Version


class Closed(Policy):
    """Lets nobody pass, and cannot only look."""

    name: ClassVar[str] = "closed"
    version: ClassVar[Version] = Version(1, 0, 0)
    example: ClassVar[Document] = {}

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        del scope
        return ()


def test_a_policy_without_a_shadow_cannot_be_in_shadow_mode() -> None:
    scope = Scope("api", "orders", "Orders", "v1", "/orders")
    (fault,) = faults(Attached(Closed(), mode="shadow"), scope)
    assert fault == Fault("mode", "mode shadow is not possible: closed has no shadow mode")
    assert faults(Attached(Closed()), scope) == ()
