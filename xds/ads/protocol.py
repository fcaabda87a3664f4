"""The words of incremental xDS, as pure data: resources, what routers ask, what they are told.

Source: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#incremental-xds
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

_PREFIX = "type.googleapis.com/"
SECRET = f"{_PREFIX}envoy.extensions.transport_sockets.tls.v3.Secret"
CLUSTER = f"{_PREFIX}envoy.config.cluster.v3.Cluster"
LISTENER = f"{_PREFIX}envoy.config.listener.v3.Listener"
SCOPE = f"{_PREFIX}envoy.config.route.v3.ScopedRouteConfiguration"

MAKE_BEFORE_BREAK = (SECRET, CLUSTER, LISTENER, SCOPE)
"""Additions go in this order, each acknowledged before the next; removals the other way round.

Source: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
"""

WILDCARD = "*"

Key = tuple[str, str]
"""Type URL and name."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One version of one resource."""

    type_url: str
    name: str
    version: str  # a digest of `body`: the same version is the same content
    body: bytes  # the serialized message: the value of the Any
    needs: frozenset[str] | None = None
    """Names of the clusters it routes to: it goes out once the router has these.

    None: not known. Then it goes out once the router has all clusters published before it, so a
    cluster that is slow to warm up holds up more than it must.
    """

    @property
    def key(self) -> Key:
        """What it replaces earlier versions by."""
        return self.type_url, self.name


class Change(NamedTuple):
    """When something was published; all of one publication share one."""

    sequence: int
    at_s: float  # monotonic


NEVER = Change(0, 0.0)
"""Before the first publication."""


@dataclass(frozen=True, slots=True)
class Publication:
    """What differs from the desired state before."""

    change: Change
    upserts: tuple[Key, ...]
    removals: tuple[Key, ...]


@dataclass(slots=True)
class Desired:
    """What every router is to have."""

    latest: Change = NEVER
    _resources: dict[str, dict[str, Resource]] = field(default_factory=dict)

    def of(self, type_url: str) -> dict[str, Resource]:
        """The resources of a type by name: the same live dict at every call."""
        return self._resources.setdefault(type_url, {})

    def publish(
        self, upserts: Iterable[Resource], removals: Iterable[Key], now_s: float
    ) -> Publication:
        """Take over `upserts`, then `removals`; what changes nothing is left out."""
        self.latest = Change(self.latest.sequence + 1, now_s)
        changed: dict[Key, None] = {}
        removed: dict[Key, None] = {}
        for resource in upserts:
            known = self.of(resource.type_url)
            before = known.get(resource.name)
            if before is None or before.version != resource.version:
                changed[resource.key] = None
            known[resource.name] = resource
        for key in removals:
            if self.of(key[0]).pop(key[1], None) is not None:
                changed.pop(key, None)
                removed[key] = None
        return Publication(self.latest, tuple(changed), tuple(removed))


@dataclass(frozen=True, slots=True)
class Request:
    """What a router says: a subscription, an ACK or a NACK, or both.

    Source: https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/discovery/v3/discovery.proto#service-discovery-v3-deltadiscoveryrequest
    """

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = field(default_factory=dict)  # name -> version it has
    nonce: str = ""  # of the response it answers; empty: of none
    error: str | None = None  # why it refuses that response


@dataclass(frozen=True, slots=True)
class Response:
    """What a router is told. Never both upserts and removals: see `Subscription`."""

    type_url: str
    nonce: str
    upserts: tuple[Resource, ...] = ()
    removals: tuple[str, ...] = ()
    again: frozenset[str] = frozenset()  # of the upserts, those that were in a refused response
    late: bool = False  # not answered in time: others no longer wait for it
    change: Change = NEVER  # the oldest publication it carries
    sent_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Rejection:
    """A version of a resource that a router refused, alone, so that it is the guilty one."""

    resource: Resource
    reason: str


@dataclass(slots=True)
class Outcome:
    """What a request of a router told us."""

    applied: dict[Key, str | None] = field(default_factory=dict)  # version in force; None: gone
    rejected: list[Rejection] = field(default_factory=list)
    answered: list[tuple[Response, str | None]] = field(default_factory=list)  # with the error


@dataclass(slots=True)
class Memory:
    """What is remembered of a router from one stream to the next."""

    quarantined: dict[Key, str] = field(default_factory=dict)  # the version it refused
    last_good: dict[Key, Resource] = field(default_factory=dict)  # in force when it refused
    uncertain: set[Key] = field(default_factory=set)  # were in a response that it refused


class RouterEvents(Protocol):
    """Who wants to know what routers do. Called by the server: must not block nor raise."""

    def connected(self, node: str, version: str) -> None:
        """A router opened its stream; `version` is Envoy's."""
        ...

    def disconnected(self, node: str) -> None:
        """A router's stream ended."""
        ...

    def applied(self, node: str, resources: Mapping[Key, str | None]) -> None:
        """Versions now in force at the router; None: removed."""
        ...

    def rejected(self, node: str, type_url: str, name: str, version: str, reason: str) -> None:
        """The router refused this version, and keeps what it had."""
        ...
