"""The admin API's view of the model: which policies stand on which route. Without secrets."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from bus.resources.rest_api import GATEWAY_DEFAULT_VHOST, Operation, PolicyRef, RestApi
from bus.resources.upstream import Upstream
from policy_engine.catalogue import Catalogue
from policy_engine.engine.feed import Feed
from policy_engine.engine.hops import hops_by_operation
from policy_engine.errors import PolicyError
from policy_engine.hooks import Phase

Json = dict[str, Any]

_ANY_HOST = "*"
_REQUEST_BODY: Final = ("request_body", "request_chunk")
_RESPONSE_BODY: Final = ("response_body", "response_chunk")


@dataclass(frozen=True, slots=True)
class Route:
    """One operation of an API on one host."""

    api: RestApi
    operation: Operation
    host: str
    upstream: Upstream

    @property
    def path(self) -> str:
        """Context and operation path, as declared."""
        context = self.api.spec.resolved_context
        return ("" if context == "/" else context) + self.operation.matcher.path.value

    @property
    def key(self) -> str:
        """`METHOD|context+path|vhost`, and the header matches where there are any."""
        matcher = self.operation.matcher
        parts = [matcher.method, self.path, self.host]
        if matcher.headers:
            parts.append(",".join(f"{one.name}={one.value}" for one in matcher.headers))
        return "|".join(parts)

    @property
    def policies(self) -> tuple[PolicyRef, ...]:
        """Those of the API, then those of the operation: the order requests meet them."""
        return (*self.api.spec.policies, *self.operation.policies)


def routes(apis: Iterable[RestApi]) -> Iterator[Route]:
    """Every route of `apis`."""
    for api in apis:
        for host, upstream in _served_on(api):
            for operation in api.spec.operations:
                yield Route(api, operation, host, upstream)


def registry(catalogue: Catalogue) -> Json:
    """The policies that are loaded, and those that could not be."""
    loaded = [
        {
            "name": one.name,
            "version": f"v{one.version}",
            "runs": one.runs,
            "parameters": one.parameters,
        }
        for one in catalogue.listing()
    ]
    broken = [
        {"name": one.name, "source": one.source, "reason": one.reason} for one in catalogue.broken
    ]
    return {"total_policies": len(loaded), "policies": loaded, "broken_policies": broken}


def policy_chains(found: Iterable[Route], catalogue: Catalogue) -> Json:
    """The chain of every route, and of which messages the engine gets the body there."""
    phases: dict[str, _Phases] = {}
    chains = []
    for route in found:
        if route.api.id not in phases:
            phases[route.api.id] = _phases(route.api, catalogue)
        needed = phases[route.api.id].of(route.operation)
        chains.append(
            {
                "route_key": route.key,
                "policies": [_policy(ref, catalogue) for ref in route.policies],
                "requires_request_body": not needed.isdisjoint(_REQUEST_BODY),
                "requires_response_body": not needed.isdisjoint(_RESPONSE_BODY),
            }
        )
    return {"total_policy_chains": len(chains), "policy_chains": chains}


@dataclass(frozen=True, slots=True)
class _Phases:
    """In which phases the engine is called."""

    everywhere: frozenset[Phase] = frozenset()
    operations: Mapping[int, frozenset[Phase]] = field(default_factory=dict)  # by `id`

    def of(self, operation: Operation) -> frozenset[Phase]:
        return self.everywhere | self.operations.get(id(operation), frozenset())


def _phases(api: RestApi, catalogue: Catalogue) -> _Phases:
    """None of an API that cannot be compiled."""
    try:
        found = {
            id(operation): frozenset(phase for hop in hops for phase in hop.phases)
            for operation, hops in hops_by_operation(api, catalogue)
        }
    except PolicyError:
        return _Phases()
    return _Phases(found.pop(id(None)), found)


def route_metadata(found: Iterable[Route]) -> Json:
    """Whose every route is."""
    listed = [
        {
            "route_key": route.key,
            "api_id": route.api.id,
            "api_name": route.api.spec.display_name,
            "api_version": route.api.spec.version,
            "api_kind": route.api.kind,
            "context": route.api.spec.resolved_context,
            "operation_path": route.operation.matcher.path.value,
            "vhost": route.host,
            "provider_name": "",
            "template_handle": "",
            "default_upstream_cluster": route.upstream.ref or route.upstream.url or "",
        }
        for route in found
    ]
    return {"total_routes": len(listed), "routes": listed}


def workers(feed: Feed) -> Json:
    """Who runs Python policies, and the hops they know; parameters stay out of it."""
    hops = [
        {
            "name": name,
            "api_id": hop["place"]["api_id"],
            "level": hop["place"]["level"],
            "operation": hop["place"]["operation_path"],
            "policies": [one["name"] for one in hop["policies"]],
            "phases": hop["phases"],
        }
        for name, hop in sorted(feed.book.hops.items())
    ]
    processes = [
        {
            "worker": one.number,
            "pid": one.pid,
            "asleep": one.asleep,
            "hops": one.report.get("hops", 0),
            "memory_bytes": one.report.get("memory_bytes", 0),
        }
        for _, one in sorted(feed.workers.items())
    ]
    return {"processes": processes, "total_hops": len(hops), "hops": hops}


def _policy(ref: PolicyRef, catalogue: Catalogue) -> Json:
    """One policy of a chain; parameters as parsed, so that secret ones are masked."""
    told: Json = {
        "name": ref.name,
        "version": ref.version,
        "enabled": True,
        "execution_condition": ref.execution_condition,
        "parameters": {},
    }
    try:
        policy = catalogue.parse(ref)
    except PolicyError as error:
        return told | {"enabled": False, "error": str(error)}
    return told | {"version": f"v{policy.version}", "parameters": policy.masked()}


def _served_on(api: RestApi) -> Iterator[tuple[str, Upstream]]:
    spec = api.spec
    main = spec.vhosts.main if spec.vhosts is not None else GATEWAY_DEFAULT_VHOST
    for host in main.split(";"):
        yield _shown(host.strip()), spec.upstream.main
    if spec.upstream.sandbox is not None:
        sandbox = spec.vhosts.sandbox if spec.vhosts is not None else None
        yield _shown(sandbox or f"sandbox.{_ANY_HOST}"), spec.upstream.sandbox


def _shown(host: str) -> str:
    return _ANY_HOST if host == GATEWAY_DEFAULT_VHOST else host
