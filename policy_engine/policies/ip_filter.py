"""ip-filter."""

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from policy_engine.identity.claims import all_of, any_of, denied, refuse_unless
from policy_engine.policy import Document, HttpFilter, Policy, Refusal, Scope, Version
from policy_engine.shadow import watched


def _network(text: str) -> str:
    ip_network(text)  # raises ValueError, naming it
    return text


Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], Field(max_length=1000)]


class IpFilter(Policy):
    """Lets only callers from certain addresses pass.

    The address is that of the connection, or what a trusted proxy in front of the gateway says in
    `X-Forwarded-For`.
    """

    name: ClassVar[str] = "ip-filter"
    version: ClassVar[Version] = Version(1, 0, 0)
    refusals: ClassVar[tuple[Refusal, ...]] = (
        Refusal(
            denied("ip-filter"),
            403,
            {"error": "Forbidden", "message": "Requests from this address are not allowed"},
        ),
    )
    example: ClassVar[Document] = {
        "allow": ["10.0.0.0/8", "127.0.0.1", "2001:db8::/32"],
        "deny": ["10.66.0.0/16"],
    }

    allow: Networks = ()
    """Networks such as `10.0.0.0/8` or `2001:db8::/32`, or single addresses; without any, every
    address that is not in `deny` may pass."""

    deny: Networks = ()
    """Networks and addresses that may not pass, even if they are in `allow`."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not self.allow and not self.deny:
            raise ValueError("allow or deny is required")
        return self

    def shadow(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """The same rules, watched."""
        return tuple(watched(self.name, one) for one in self.filters(scope))

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One `rbac` filter."""
        conditions: list[Document] = []
        if self.allow:
            conditions.append(any_of(_from(one) for one in self.allow))
        if self.deny:
            conditions.append({"not_id": any_of(_from(one) for one in self.deny)})
        return (HttpFilter(scope.unique(self.name), refuse_unless(self.name, all_of(conditions))),)


def _from(text: str) -> Document:
    network: IPv4Network | IPv6Network = ip_network(text)
    address = {"address_prefix": str(network.network_address), "prefix_len": network.prefixlen}
    return {"remote_ip": address}
