"""One router and one type of resources, driven by hand."""

from collections.abc import Mapping
from itertools import count

from xds.ads.protocol import (
    SCOPE,
    Desired,
    Key,
    Memory,
    Outcome,
    Request,
    Resource,
    Response,
)
from xds.ads.subscription import Subscription


def one(name: str, version: str = "1", type_url: str = SCOPE) -> Resource:
    return Resource(type_url, name, version, f"{name} {version}".encode())


def key(name: str) -> Key:
    return SCOPE, name


class Side:
    """A subscription, driven by hand."""

    def __init__(self, *resources: Resource, type_url: str = SCOPE) -> None:
        self.desired = Desired()
        self.memory = Memory()
        self.type_url = type_url
        self.nonces = count(1)
        self.publish(*resources)
        self.reconnect()

    def reconnect(self) -> None:
        self.subscription = Subscription(self.type_url, self.desired.of(self.type_url), self.memory)

    def publish(self, *upserts: Resource, remove: tuple[str, ...] = ()) -> None:
        publication = self.desired.publish(upserts, [(self.type_url, name) for name in remove], 0.0)
        if hasattr(self, "subscription"):
            for _, name in publication.upserts:
                self.subscription.upsert(name, publication.change)
            for _, name in publication.removals:
                self.subscription.remove(name, publication.change)

    def says(
        self,
        *subscribe: str,
        unsubscribe: tuple[str, ...] = (),
        has: Mapping[str, str] | None = None,
        nonce: str = "",
        error: str | None = None,
    ) -> Outcome:
        request = Request(self.type_url, subscribe, unsubscribe, has or {}, nonce, error)
        return self.subscription.request(request, self.desired.latest)

    def sends(self, limit: int = 1 << 20) -> Response | None:
        nonce = lambda: str(next(self.nonces))  # noqa: E731
        return self.subscription.next_upserts(
            lambda *_: True, nonce, limit
        ) or self.subscription.next_removals(lambda *_: True, nonce)

    def told(self, limit: int = 1 << 20) -> tuple[list[str], list[str]]:
        """Names and versions added, and names removed, by the next response."""
        self.response = self.sends(limit)
        assert self.response is not None
        added = [f"{each.name} {each.version}" for each in self.response.upserts]
        return added, list(self.response.removals)

    def acks(self) -> dict[Key, str | None]:
        assert self.response is not None
        return self.says(nonce=self.response.nonce).applied

    def refuses(self, error: str = "no") -> list[str]:
        assert self.response is not None
        rejected = self.says(nonce=self.response.nonce, error=error).rejected
        return [f"{each.resource.name} {each.resource.version}" for each in rejected]


def told(*resources: Resource, type_url: str = SCOPE) -> Side:
    """A router that was sent all of them, and has not answered."""
    side = Side(*resources, type_url=type_url)
    side.says()
    side.told()
    return side


def served(*resources: Resource, type_url: str = SCOPE) -> Side:
    """A router that has all of them."""
    side = told(*resources, type_url=type_url)
    side.acks()
    return side
