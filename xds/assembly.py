"""What is served of what is wanted: verdicts on revisions, from the compiler and from routers.

An API that cannot be compiled, or that a router refuses, is served in its last good shape, with
the keys of today. When several changed APIs of one scope are under suspicion, all go back and are
put in again one by one: convicted is only who is alone beside what was accepted before.

The code of a policy may change under a revision. If the revision is then refused, the shape that
routers took stays as it is, for as long as its keys and subscriptions do.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from bus.resources.rest_api import RestApi
from policy_engine.policy import Credential
from policy_engine.subscriptions import Subscriber
from xds.compile.api import Catalogue, CompiledApi, compile_api
from xds.errors import NotCompiled
from xds.publication import CLUSTER_URL, SCOPE_URL, Changes, Publication, Refused
from xds.settings import XdsSettings

_REMEMBERED_VERSIONS = 8  # of a scope, while routers have not answered


@dataclass(frozen=True, slots=True)
class Wanted:
    """An API as it is to be served; `api` None: not any more."""

    revision: int
    api: RestApi | None
    credentials: tuple[Credential, ...] = ()
    subscribers: tuple[Subscriber, ...] = ()


@dataclass(frozen=True, slots=True)
class Source:
    """What a shape was compiled from, its keys and subscriptions apart."""

    revision: int
    api: RestApi


Callers = tuple[tuple[Credential, ...], tuple[Subscriber, ...]]


class LastGood(Protocol):
    """Remembers, beyond this process, what is served while a newer revision is refused."""

    def load(self) -> dict[str, Source]:
        """All that is remembered, by API."""
        ...

    def save(self, api_id: str, source: Source) -> None:
        """`source` is served instead of what was refused."""
        ...

    def forget(self, api_id: str) -> None:
        """The wanted revision is served, or the API is gone."""
        ...


class Assembly:
    """Decides for each API which revision is served; `Publication` does it."""

    def __init__(self, catalogue: Catalogue, settings: XdsSettings, last_good: LastGood) -> None:
        self._catalogue = catalogue
        self._settings = settings
        self._last_good = last_good
        self._publication = Publication(settings)
        self._wanted: dict[str, Wanted] = {}
        self._held: dict[str, int] = {}  # API -> the revision that is refused
        self._good: dict[str, Source] = last_good.load()
        self._sources: dict[str, Source] = {}  # of what is served
        self._callers: dict[str, Callers] = {}  # for whom that was compiled
        self._good_shapes: dict[str, tuple[CompiledApi, Callers]] = {}
        self._taken: dict[str, dict[str, CompiledApi]] = defaultdict(dict)
        """Scope -> API -> its shape as a router has acknowledged it there."""
        self._contents: dict[str, dict[str, tuple[CompiledApi, ...]]] = defaultdict(dict)
        """Scope -> version -> what is inside, for versions not yet acknowledged."""
        self._acknowledged: dict[str, str] = {}  # scope -> last version a router took
        self._untried: dict[str, list[str]] = {}  # scope -> suspects still to be put in again

    @property
    def root_hosts(self) -> str | None:
        """See Publication."""
        return self._publication.root_hosts

    @property
    def held(self) -> Mapping[str, int]:
        """The revisions that are refused, by API."""
        return self._held

    def update(self, wanted: Mapping[str, Wanted]) -> Changes:
        """Serve the APIs as `wanted`. One that cannot be is refused; the others do not notice."""
        changes = Changes()
        shapes: dict[str, CompiledApi | None] = {}
        for api_id, one in wanted.items():
            self._wanted[api_id] = one
            for waiting in self._untried.values():
                if api_id in waiting:
                    waiting.remove(api_id)
            shapes[api_id] = self._shape(api_id, one, changes)
        self._put(shapes, changes)
        for api_id, one in wanted.items():
            if one.api is None:  # its absence is what is to be live
                changes.expected[api_id] = (one.revision, changes.expected[api_id][1])
        return changes

    def reconsider(self, api_ids: Collection[str]) -> frozenset[str]:
        """Policies of these APIs have changed: what was refused may be good when it is next put.

        Those that were refused.
        """
        return frozenset(one for one in api_ids if self._held.pop(one, None) is not None)

    def acknowledged(self, scope: str, version: str | None) -> Changes:
        """A router took `scope` at `version` (None: took it away)."""
        changes = Changes()
        if version is not None:
            self._accept(scope, version, self._contents[scope].pop(version, ()))
        if self._publication.version(scope) == version:
            self._try_next(scope, changes)
        return changes

    def rejected(self, type_url: str, name: str, version: str, reason: str) -> Changes:
        """A router refused a resource: convict whose doing it is, if that can be said."""
        changes = Changes()
        if type_url == CLUSTER_URL:
            for one in self._publication.users(name):
                if not self._is_good(one):
                    self._convict(one, reason, changes)
        elif type_url == SCOPE_URL and version == self._publication.version(name):
            suspects = [
                one
                for one in self._contents[name].get(version, ())
                if self._taken[name].get(one.api_id) is not one
            ]
            if len(suspects) == 1:
                self._convict(suspects[0], reason, changes)
            elif suspects:
                waiting = self._untried.setdefault(name, [])
                waiting.extend(one.api_id for one in suspects if one.api_id not in waiting)
                self._put({one.api_id: self._instead(one) for one in suspects}, changes)
            self._try_next(name, changes)
        return changes

    def _shape(self, api_id: str, wanted: Wanted, changes: Changes) -> CompiledApi | None:
        """What to serve of `wanted`: itself, or its last good shape, or nothing."""
        if wanted.api is None:
            self._held.pop(api_id, None)
            self._good.pop(api_id, None)
            self._good_shapes.pop(api_id, None)
            self._last_good.forget(api_id)
            return None
        if self._held.get(api_id) == wanted.revision:
            return self._fallback(api_id)  # only its keys have changed
        self._held.pop(api_id, None)
        source = Source(wanted.revision, wanted.api)
        try:
            return self._compiled(api_id, source, wanted)
        except NotCompiled as error:
            self._hold(api_id, wanted.revision, error.reason, changes)
            return self._fallback(api_id)

    def _compiled(self, api_id: str, source: Source, callers: Wanted) -> CompiledApi:
        """A shape that can be encoded, for the keys and subscriptions of `callers`.

        Raises NotCompiled, and nothing else.
        """
        try:
            shape = compile_api(
                source.api,
                source.revision,
                callers.credentials,
                self._catalogue,
                self._settings,
                callers.subscribers,
            )
            self._publication.check(shape)
        except NotCompiled:
            raise
        except Exception as error:
            raise NotCompiled(api_id, f"{type(error).__name__}: {error}") from error
        self._sources[api_id] = source
        self._callers[api_id] = _callers(callers)
        return shape

    def _fallback(self, api_id: str) -> CompiledApi | None:
        """The last good revision with the keys of today; None when there is none."""
        good = self._good.get(api_id)
        if good is None:
            return None
        try:
            return self._compiled(api_id, good, self._wanted[api_id])
        except NotCompiled:
            return self._good_shape(api_id)

    def _good_shape(self, api_id: str) -> CompiledApi | None:
        """What routers took last, if its keys and subscriptions are those of today."""
        shape, callers = self._good_shapes.get(api_id, (None, None))
        if shape is None or callers is None or callers != _callers(self._wanted[api_id]):
            return None
        self._sources[api_id], self._callers[api_id] = self._good[api_id], callers
        return shape

    def _hold(self, api_id: str, revision: int, reason: str, changes: Changes) -> None:
        self._held[api_id] = revision
        changes.refused.append(Refused(api_id, revision, reason))
        good = self._good.get(api_id)
        if good is not None:
            self._last_good.save(api_id, good)

    def _convict(self, one: CompiledApi, reason: str, changes: Changes) -> None:
        api_id = one.api_id
        instead = self._instead(one)
        if one.revision == self._wanted[api_id].revision:
            self._hold(api_id, one.revision, reason, changes)
        self._put({api_id: instead}, changes)

    def _instead(self, one: CompiledApi) -> CompiledApi | None:
        """What to serve instead of a shape that was refused: never the same again."""
        good = self._good.get(one.api_id)
        if good is None:
            return None
        if good.revision == one.revision:  # its policies have changed, or its keys
            shape = self._good_shape(one.api_id)
            return None if shape is one else shape
        return self._fallback(one.api_id)

    def _try_next(self, scope: str, changes: Changes) -> None:
        """Put suspects in again until one needs an answer of a router."""
        waiting = self._untried.get(scope)
        while waiting:
            api_id = waiting.pop(0)
            wanted = self._wanted[api_id]
            self._put({api_id: self._shape(api_id, wanted, changes)}, changes)
            if self._publication.version(scope) != self._acknowledged.get(scope):
                return
        self._untried.pop(scope, None)

    def _put(self, shapes: Mapping[str, CompiledApi | None], changes: Changes) -> None:
        for scope, inside in self._publication.put(shapes, changes).items():
            version = self._publication.version(scope)
            if version is None:
                for known in (self._contents, self._acknowledged, self._taken):
                    known.pop(scope, None)
            elif version == self._acknowledged.get(scope):
                self._accept(scope, version, inside)  # nothing is pushed, nobody will answer
            else:
                versions = self._contents[scope]
                versions[version] = inside
                if len(versions) > _REMEMBERED_VERSIONS:
                    versions.pop(next(iter(versions)))

    def _accept(self, scope: str, version: str, inside: tuple[CompiledApi, ...]) -> None:
        self._acknowledged[scope] = version
        taken = self._taken[scope]
        for one in inside:
            taken[one.api_id] = one
        for one in inside:
            if self._is_good(one):
                api_id = one.api_id
                self._good[api_id] = self._sources[api_id]
                self._good_shapes[api_id] = one, self._callers[api_id]
                if self._sources[api_id].revision == self._wanted[api_id].revision:
                    self._last_good.forget(api_id)

    def _is_good(self, one: CompiledApi) -> bool:
        """Whether routers took this very shape in all its scopes."""
        api_id = one.api_id
        return self._publication.served.get(api_id) is one and all(
            self._taken[scope].get(api_id) is one for scope in self._publication.scopes_of(api_id)
        )


def _callers(wanted: Wanted) -> Callers:
    return wanted.credentials, wanted.subscribers
