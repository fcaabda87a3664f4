"""host-rewrite."""

import re
from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from policy_engine.policy import Document, HttpFilter, Policy, Purpose, Routing, Scope, Version

_HOST = re.compile(
    r"([A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_.])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?"
)


def _host(host: str) -> str:
    if not _HOST.fullmatch(host):
        raise ValueError(f"{host!r} is not a host name or IP address, with or without a port")
    return host


class HostRewrite(Policy):
    """Sets the `Host` header that the upstream sees.

    Only upstreams with `hostRewrite: manual` are asked: those with `auto` always see their own
    host. Of several the one that runs last decides, so an operation's goes before the API's.
    Other policies and the choice of the operation see the host that the caller sent.
    """

    name: ClassVar[str] = "host-rewrite"
    version: ClassVar[Version] = Version(1, 0, 1)
    purpose: ClassVar[Purpose] = "changes"
    example: ClassVar[Document] = {"host": "orders.internal.example.com"}

    host: Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_host)]
    """The host name or IP address, with a port if the upstream expects one."""

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """None: the route sets the host."""
        del scope
        return ()

    def routing(self) -> Routing:
        """The host, for upstreams that take one."""
        return Routing(host=self.host)
