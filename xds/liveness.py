"""Which revision of which API each router serves, from what it acknowledged."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Expectation:
    revision: int
    scopes: frozenset[str]  # all must be at their published version for the revision to be live


@dataclass(slots=True)
class _Router:
    versions: dict[str, str] = field(default_factory=dict)  # scope -> acknowledged version
    live: dict[str, int] = field(default_factory=dict)  # API -> revision in force


@dataclass(slots=True)
class Liveness:
    """Compares what was published with what was acknowledged."""

    _published: dict[str, str] = field(default_factory=dict)
    _expected: dict[str, _Expectation] = field(default_factory=dict)
    _apis_of: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _routers: dict[str, _Router] = field(default_factory=dict)

    def expect(self, api_id: str, revision: int, scopes: frozenset[str]) -> None:
        """Revision `revision` of the API is live where all `scopes` are as published.

        `scopes` holds those the API is in and those it has just left.
        """
        known = self._expected.get(api_id)
        for scope in known.scopes - scopes if known is not None else ():
            self._apis_of[scope].discard(api_id)
        for scope in scopes:
            self._apis_of[scope].add(api_id)
        self._expected[api_id] = _Expectation(revision, scopes)

    def forget(self, api_id: str) -> None:
        """No revision of the API is to be live: what routers had of it is gone."""
        known = self._expected.pop(api_id, None)
        for scope in known.scopes if known is not None else ():
            self._apis_of[scope].discard(api_id)
        for router in self._routers.values():
            router.live.pop(api_id, None)

    def tell_again(self, api_ids: Iterable[str]) -> None:
        """What is live of these is news when it is next settled, though it may be as before."""
        for router in self._routers.values():
            for api_id in api_ids:
                router.live.pop(api_id, None)

    def publish(self, scope: str, version: str | None) -> None:
        """`scope` is to be at `version` from now on; None: not to be."""
        if version is None:
            self._published.pop(scope, None)
        else:
            self._published[scope] = version

    def connect(self, node: str) -> None:
        """A router has come; what it has is told by its acknowledgements."""
        self._routers[node] = _Router()

    def disconnect(self, node: str) -> None:
        """A router has gone."""
        self._routers.pop(node, None)

    def acknowledge(self, node: str, scopes: Mapping[str, str | None]) -> dict[str, int]:
        """The router is at these versions; the APIs whose live revision that changed."""
        router = self._routers.get(node)
        if router is None:
            return {}
        touched: set[str] = set()
        for scope, version in scopes.items():
            if version is None:
                router.versions.pop(scope, None)
            else:
                router.versions[scope] = version
            touched |= self._apis_of.get(scope, set())
        return self._settle(router, touched)

    def settle(self, api_ids: Iterable[str]) -> dict[str, dict[str, int]]:
        """By router, the APIs among `api_ids` that are live without any further push."""
        wanted = set(api_ids)
        settled = {node: self._settle(one, wanted) for node, one in self._routers.items()}
        return {node: revisions for node, revisions in settled.items() if revisions}

    def report(self, node: str) -> dict[str, int]:
        """All that the router serves: API -> revision."""
        router = self._routers.get(node)
        return dict(router.live) if router is not None else {}

    @property
    def nodes(self) -> tuple[str, ...]:
        """The routers that are connected."""
        return tuple(self._routers)

    def _settle(self, router: _Router, api_ids: set[str]) -> dict[str, int]:
        news: dict[str, int] = {}
        for api_id in api_ids:
            expected = self._expected.get(api_id)
            if expected is None or router.live.get(api_id) == expected.revision:
                continue
            if all(
                router.versions.get(scope) == self._published.get(scope)
                for scope in expected.scopes
            ):
                router.live[api_id] = news[api_id] = expected.revision
        return news
