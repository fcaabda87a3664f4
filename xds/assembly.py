"""All resources the routers are to have, kept up to date one change at a time.

An update compiles the changed APIs, rebuilds the scopes they are in, and returns what differs
from what was published. An API that cannot be compiled, or that a router refuses, is served in
its last good shape.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from bus.resources.rest_api import RestApi
from policy_engine.policy import Credential
from xds.ads.protocol import Resource
from xds.compile.api import Catalogue, CompiledApi, Document, compile_api
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
from xds.errors import NotCompiled
from xds.settings import XdsSettings
from xds.wire.messages import digest, encode

SCOPE_URL = f"type.googleapis.com/{SCOPE}"
CLUSTER_URL = f"type.googleapis.com/{CLUSTER}"
_REMEMBERED_VERSIONS = 8  # of a scope, while routers have not answered


@dataclass(frozen=True, slots=True)
class Wanted:
    """An API as it is to be served; `api` None: not any more."""

    revision: int
    api: RestApi | None
    credentials: tuple[Credential, ...] = ()


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


class Assembly:
    """Compiled APIs, the scopes they share, the clusters they use."""

    def __init__(self, catalogue: Catalogue, settings: XdsSettings) -> None:
        self._catalogue = catalogue
        self._settings = settings
        self._served: dict[str, CompiledApi] = {}
        self._good: dict[str, CompiledApi] = {}  # as a router has acknowledged it
        self._members: dict[str, set[str]] = defaultdict(set)  # segment -> APIs
        self._cluster_users: dict[str, set[str]] = defaultdict(set)
        self._published: dict[tuple[str, str], str] = {}  # (type, name) -> version
        self._contents: dict[str, dict[str, tuple[CompiledApi, ...]]] = defaultdict(dict)
        """Scope -> version -> what is inside, for versions not yet acknowledged."""
        self._acknowledged: dict[str, str] = {}  # scope -> last version a router took
        self._trials: dict[str, deque[CompiledApi]] = {}  # scope -> suspects still to be tried
        self._root_hosts: frozenset[str] = frozenset()

    @property
    def root_hosts(self) -> str | None:
        """RE2 of the hosts that go to the root scope whole; None: no host; empty: every host."""
        return (host_pattern(self._root_hosts) or "") if self._root_hosts else None

    def update(self, wanted: Mapping[str, Wanted]) -> Changes:
        """Serve the APIs as `wanted`."""
        changes = Changes()
        compiled: dict[str, CompiledApi | None] = {}
        for api_id, one in wanted.items():
            if one.api is None:
                compiled[api_id] = None
                self._good.pop(api_id, None)
                continue
            try:
                compiled[api_id] = compile_api(
                    one.api, one.revision, one.credentials, self._catalogue, self._settings
                )
            except NotCompiled as error:
                changes.refused.append(Refused(api_id, one.revision, error.reason))
        self._serve(compiled, changes)
        for api_id, new in compiled.items():
            if new is None:  # its absence is what is to be live
                _, scopes = changes.expected[api_id]
                changes.expected[api_id] = (wanted[api_id].revision, scopes)
        return changes

    def acknowledged(self, scope: str, version: str | None) -> Changes:
        """A router took `scope` at `version`: what is inside is good. May try the next suspect."""
        changes = Changes()
        if version is None:
            return changes
        self._acknowledged[scope] = version
        self._approve(self._contents[scope].pop(version, ()))
        if self._published.get((SCOPE_URL, scope)) == version:
            self._try_next(scope, changes)
        return changes

    def rejected(self, type_url: str, name: str, version: str, reason: str) -> Changes:
        """A router refused a resource: the guilty APIs go back to their last good shape."""
        changes = Changes()
        if type_url == CLUSTER_URL:
            suspects = [
                self._served[api_id]
                for api_id in sorted(self._cluster_users.get(name, ()))
                if name in self._served[api_id].clusters
            ]
        else:
            inside = self._contents[name].get(version, ())
            suspects = [
                one
                for one in inside
                if self._served.get(one.api_id) is one and self._good.get(one.api_id) is not one
            ]
        guilty = type_url == CLUSTER_URL or len(suspects) == 1
        self._serve({one.api_id: self._good.get(one.api_id) for one in suspects}, changes)
        if guilty:
            changes.refused.extend(Refused(one.api_id, one.revision, reason) for one in suspects)
        elif suspects:
            self._trials[name] = deque(suspects)
        if type_url == SCOPE_URL:
            self._try_next(name, changes)
        return changes

    def _approve(self, inside: Iterable[CompiledApi]) -> None:
        for one in inside:
            if self._served.get(one.api_id) is one:
                self._good[one.api_id] = one

    def _try_next(self, scope: str, changes: Changes) -> None:
        """Put the next suspect in alone, unless a newer shape of it has come meanwhile."""
        trials = self._trials.get(scope)
        while trials:
            one = trials.popleft()
            if self._served.get(one.api_id) is self._good.get(one.api_id):
                self._serve({one.api_id: one}, changes)
                return
        self._trials.pop(scope, None)

    def _serve(self, compiled: Mapping[str, CompiledApi | None], changes: Changes) -> None:
        """Replace these APIs, rebuild their scopes and clusters, note what changed."""
        dirty: set[str] = set()
        loose: set[str] = set()  # clusters that may have lost their last user
        touched: dict[str, set[str]] = {}
        for api_id, new in compiled.items():
            old = self._served.get(api_id)
            before = segments_of(old) if old is not None else frozenset()
            after = segments_of(new) if new is not None else frozenset()
            for segment in before - after:
                self._members[segment].discard(api_id)
            for segment in after:
                self._members[segment].add(api_id)
            dirty |= before | after
            touched[api_id] = set(before | after)
            self._use_clusters(api_id, old, new, changes, loose)
            if new is None:
                self._served.pop(api_id, None)
            else:
                self._served[api_id] = new
        self._root(compiled, touched, dirty, changes)
        for segment in sorted(dirty):
            self._publish_scope(segment, changes)
        for name in sorted(loose):
            if not self._cluster_users[name]:
                del self._cluster_users[name]
                if self._published.pop((CLUSTER_URL, name), None) is not None:
                    changes.upserts.pop((CLUSTER_URL, name), None)
                    changes.removals[CLUSTER_URL, name] = None
        for api_id, segments in touched.items():
            served = self._served.get(api_id)
            scopes = frozenset(scope_name(segment) for segment in segments)
            known = changes.expected.get(api_id)
            changes.expected[api_id] = (
                served.revision if served is not None else None,
                scopes | (known[1] if known is not None else frozenset()),
            )

    def _use_clusters(
        self,
        api_id: str,
        old: CompiledApi | None,
        new: CompiledApi | None,
        changes: Changes,
        loose: set[str],
    ) -> None:
        needed: Mapping[str, Document] = new.clusters if new is not None else {}
        for name, document in needed.items():
            self._cluster_users[name].add(api_id)
            self._publish(CLUSTER_URL, CLUSTER, name, document, changes)
        for name in old.clusters if old is not None else ():
            if name not in needed:
                self._cluster_users[name].discard(api_id)
                loose.add(name)

    def _root(
        self,
        compiled: Mapping[str, CompiledApi | None],
        touched: dict[str, set[str]],
        dirty: set[str],
        changes: Changes,
    ) -> None:
        """The scope of hosts that an API with a wildcard at `/` takes whole."""
        if not self._root_hosts and not any(
            new is not None and takes_hosts_whole(new) for new in compiled.values()
        ):
            return
        hosts = frozenset(
            host for api in self._served.values() if takes_hosts_whole(api) for host in api.hosts
        )
        if hosts != self._root_hosts:
            changes.root_hosts_changed = True
            self._root_hosts = hosts
        before = self._members.get(ROOT_SEGMENT, set())
        after = {api.api_id for api in self._served.values() if hosts and overlap(api.hosts, hosts)}
        self._members[ROOT_SEGMENT] = after
        dirty.add(ROOT_SEGMENT)
        for api_id in compiled:
            if api_id in before | after:
                touched[api_id].add(ROOT_SEGMENT)

    def _publish_scope(self, segment: str, changes: Changes) -> None:
        name = scope_name(segment)
        inside = tuple(self._served[api_id] for api_id in sorted(self._members.get(segment, ())))
        members = [member(one, segment) for one in inside]
        members = [one for one in members if one.routes]
        if not members:
            self._members.pop(segment, None)
            if self._published.pop((SCOPE_URL, name), None) is not None:
                changes.upserts.pop((SCOPE_URL, name), None)
                changes.removals[SCOPE_URL, name] = None
                changes.scopes[name] = None
                self._contents.pop(name, None)
                self._acknowledged.pop(name, None)
            return
        document = scope_document(segment, members, self._settings.matcher_tree_threshold)
        needs = frozenset(cluster for one in inside for cluster in one.clusters)
        version = self._publish(SCOPE_URL, SCOPE, name, document, changes, needs)
        changes.scopes[name] = version
        if self._acknowledged.get(name) == version:
            self._approve(inside)  # nothing to push, so nobody will acknowledge it
            return
        versions = self._contents[name]
        versions[version] = inside
        if len(versions) > _REMEMBERED_VERSIONS:
            versions.pop(next(iter(versions)))

    def _publish(
        self,
        type_url: str,
        message: str,
        name: str,
        document: Document,
        changes: Changes,
        needs: frozenset[str] | None = None,
    ) -> str:
        known = self._published.get((type_url, name))
        if type_url == CLUSTER_URL and known is not None:
            return known  # its name is its digest
        body = encode(message, document)
        version = digest(body)
        if version != known:
            self._published[type_url, name] = version
            changes.upserts[type_url, name] = Resource(type_url, name, version, body, needs)
            changes.removals.pop((type_url, name), None)
        return version
