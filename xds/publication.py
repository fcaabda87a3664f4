"""What is published: the compiled APIs as scopes and clusters, one difference at a time.

It knows which API is in which scope and which cluster is still used. What ought to be served is
decided in `xds.assembly`.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from xds.ads.protocol import Resource
from xds.compile.api import CompiledApi, Document
from xds.compile.clusters import CLUSTER
from xds.compile.scopes import (
    ROOT_SEGMENT,
    SCOPE,
    host_pattern,
    member,
    overlap,
    scope_document,
    scope_name,
    segments_of,
    takes_hosts_whole,
)
from xds.listener import SECRET
from xds.settings import XdsSettings
from xds.wire.messages import digest, encode

SCOPE_URL = f"type.googleapis.com/{SCOPE}"
CLUSTER_URL = f"type.googleapis.com/{CLUSTER}"
SECRET_URL = f"type.googleapis.com/{SECRET}"
_MESSAGES = {CLUSTER_URL: CLUSTER, SECRET_URL: SECRET}


@dataclass(frozen=True, slots=True)
class Refused:
    """A revision that is not served, and why."""

    api_id: str
    revision: int
    reason: str


@dataclass(slots=True)
class Changes:
    """What to push, and what became of the APIs that were touched."""

    upserts: dict[tuple[str, str], Resource] = field(default_factory=dict)  # by type and name
    removals: dict[tuple[str, str], None] = field(default_factory=dict)  # in order
    scopes: dict[str, str | None] = field(default_factory=dict)  # scope -> version now published
    expected: dict[str, tuple[int | None, frozenset[str]]] = field(default_factory=dict)
    """API -> revision, and the scopes that make it live; None: no revision is to be live."""
    refused: list[Refused] = field(default_factory=list)
    root_hosts_changed: bool = False  # the listener has to be told


class Publication:
    """The resources as they are published."""

    def __init__(self, settings: XdsSettings) -> None:
        self.served: dict[str, CompiledApi] = {}
        self._settings = settings
        self._members: dict[str, set[str]] = defaultdict(set)  # segment -> APIs
        self._users: dict[tuple[str, str], set[str]] = defaultdict(set)
        """The APIs that use a cluster or a secret, by its type and name."""
        self._versions: dict[tuple[str, str], str] = {}  # (type, name) -> version
        self._root_hosts: frozenset[str] = frozenset()
        self._alone: dict[str, tuple[CompiledApi, bytes]] = {}
        """Segment -> an API as encoded by `check`, until it is put."""

    @property
    def root_hosts(self) -> str | None:
        """RE2 of the hosts that go to the root scope whole; None: no host; empty: every host."""
        return (host_pattern(self._root_hosts) or "") if self._root_hosts else None

    def version(self, scope: str) -> str | None:
        """The version of a scope; None when it is not published."""
        return self._versions.get((SCOPE_URL, scope))

    def scopes_of(self, api_id: str) -> frozenset[str]:
        """The scopes an API is in."""
        api = self.served.get(api_id)
        if api is None:
            return frozenset()
        root = {ROOT_SEGMENT} if api_id in self._members.get(ROOT_SEGMENT, ()) else set()
        return frozenset(scope_name(segment) for segment in segments_of(api) | root)

    def users(self, cluster: str) -> tuple[CompiledApi, ...]:
        """The APIs that route to a cluster."""
        return tuple(
            self.served[api_id] for api_id in sorted(self._users.get((CLUSTER_URL, cluster), ()))
        )

    def check(self, api: CompiledApi) -> None:
        """Whether `api` can be encoded at all, alone. Raises WireError."""
        for (type_url, name), document in _shared(api).items():
            if (type_url, name) not in self._versions:
                encode(_MESSAGES[type_url], document)
        segments = segments_of(api) | ({ROOT_SEGMENT} if takes_hosts_whole(api) else set())
        for segment in segments:
            alone = self._document(segment, (api,))
            if alone is not None:
                self._alone[segment] = (api, encode(SCOPE, alone))

    def put(
        self, shapes: Mapping[str, CompiledApi | None], changes: Changes
    ) -> dict[str, tuple[CompiledApi, ...]]:
        """Serve these APIs in these shapes (None: not at all). The scopes rebuilt, with content."""
        dirty: set[str] = set()
        loose: set[tuple[str, str]] = set()  # what may have lost its last user
        touched: dict[str, set[str]] = {}
        for api_id, new in shapes.items():
            old = self.served.get(api_id)
            before = segments_of(old) if old is not None else frozenset()
            after = segments_of(new) if new is not None else frozenset()
            for segment in before - after:
                self._members[segment].discard(api_id)
            for segment in after:
                self._members[segment].add(api_id)
            dirty |= before | after
            touched[api_id] = set(before | after)
            self._use(api_id, old, new, changes, loose)
            if new is None:
                self.served.pop(api_id, None)
            else:
                self.served[api_id] = new
        self._root(shapes, touched, dirty, changes)
        rebuilt = {
            scope_name(segment): self._publish_scope(segment, changes) for segment in sorted(dirty)
        }
        self._alone.clear()
        self._drop(loose, changes)
        for api_id, segments in touched.items():
            served = self.served.get(api_id)
            scopes = frozenset(scope_name(segment) for segment in segments)
            known = changes.expected.get(api_id)
            changes.expected[api_id] = (
                served.revision if served is not None else None,
                scopes | (known[1] if known is not None else frozenset()),
            )
        return rebuilt

    def _use(
        self,
        api_id: str,
        old: CompiledApi | None,
        new: CompiledApi | None,
        changes: Changes,
        loose: set[tuple[str, str]],
    ) -> None:
        needed = _shared(new)
        for (type_url, name), document in needed.items():
            self._users[type_url, name].add(api_id)
            if (type_url, name) not in self._versions:  # its name says all that it is
                self._publish(type_url, name, encode(_MESSAGES[type_url], document), changes)
        for key in _shared(old):
            if key not in needed:
                self._users[key].discard(api_id)
                loose.add(key)

    def _drop(self, loose: set[tuple[str, str]], changes: Changes) -> None:
        for key in sorted(loose):
            if self._users.get(key):
                continue
            self._users.pop(key, None)
            if self._versions.pop(key, None) is not None:
                changes.upserts.pop(key, None)
                changes.removals[key] = None

    def _root(
        self,
        shapes: Mapping[str, CompiledApi | None],
        touched: dict[str, set[str]],
        dirty: set[str],
        changes: Changes,
    ) -> None:
        """The scope of hosts that an API with a wildcard at `/` takes whole."""
        if not self._root_hosts and not any(
            new is not None and takes_hosts_whole(new) for new in shapes.values()
        ):
            return
        hosts = frozenset(
            host for api in self.served.values() if takes_hosts_whole(api) for host in api.hosts
        )
        if hosts != self._root_hosts:
            changes.root_hosts_changed = True
            self._root_hosts = hosts
        before = self._members.get(ROOT_SEGMENT, set())
        after = {api.api_id for api in self.served.values() if hosts and overlap(api.hosts, hosts)}
        self._members[ROOT_SEGMENT] = after
        dirty.add(ROOT_SEGMENT)
        for api_id in shapes:
            if api_id in before | after:
                touched[api_id].add(ROOT_SEGMENT)

    def _document(self, segment: str, inside: tuple[CompiledApi, ...]) -> Document | None:
        members = [member(one, segment) for one in inside]
        members = [one for one in members if one.routes]
        if not members:
            return None
        return scope_document(segment, members, self._settings.matcher_tree_threshold)

    def _publish_scope(self, segment: str, changes: Changes) -> tuple[CompiledApi, ...]:
        """Publish a scope, or take it away when it has no routes; what is inside."""
        name = scope_name(segment)
        inside = tuple(self.served[api_id] for api_id in sorted(self._members.get(segment, ())))
        body = self._body(segment, inside)
        if body is None:
            self._members.pop(segment, None)
            if self._versions.pop((SCOPE_URL, name), None) is not None:
                changes.upserts.pop((SCOPE_URL, name), None)
                changes.removals[SCOPE_URL, name] = None
                changes.scopes[name] = None
            return ()
        needs = frozenset(cluster for one in inside for cluster in one.clusters)
        changes.scopes[name] = self._publish(SCOPE_URL, name, body, changes, needs)
        return inside

    def _body(self, segment: str, inside: tuple[CompiledApi, ...]) -> bytes | None:
        """The encoded scope; None without routes. One that was checked alone is at hand."""
        checked = self._alone.get(segment)
        if checked is not None and len(inside) == 1 and inside[0] is checked[0]:
            return checked[1]
        document = self._document(segment, inside)
        return None if document is None else encode(SCOPE, document)

    def _publish(
        self,
        type_url: str,
        name: str,
        body: bytes,
        changes: Changes,
        needs: frozenset[str] | None = None,
    ) -> str:
        version = digest(body)
        if version != self._versions.get((type_url, name)):
            self._versions[type_url, name] = version
            changes.upserts[type_url, name] = Resource(type_url, name, version, body, needs)
            changes.removals.pop((type_url, name), None)
        return version


def _shared(api: CompiledApi | None) -> dict[tuple[str, str], Document]:
    """What `api` uses and may share with others, by type and name."""
    if api is None:
        return {}
    secrets = {(SECRET_URL, name): document for name, document in api.secrets.items()}
    return secrets | {(CLUSTER_URL, name): document for name, document in api.clusters.items()}
