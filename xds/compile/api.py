"""One API as Envoy sees it, before it shares a scope with others.

`compile_api` is pure. Its result holds routes without hosts; `xds.compile.scopes` puts them in
virtual hosts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from bus.resources.document import duration_s
from bus.resources.rest_api import (
    Operation,
    PolicyRef,
    Resilience,
    RestApi,
)
from bus.route_key import RouteKey
from policy_engine.attached import Attached
from policy_engine.chain import Chain, compile_chain
from policy_engine.errors import PolicyError
from policy_engine.policy import (
    Connections,
    Credential,
    HttpFilter,
    Level,
    Preflight,
    Routing,
    Scope,
    typed,
)
from policy_engine.subscriptions import Subscriber
from policy_engine.system import SystemParameters
from xds.compile.actions import answer_action, destination, mirror_policies
from xds.compile.clusters import Target, Upstreams, service_cluster
from xds.compile.durations import duration
from xds.compile.hosts import served_on
from xds.compile.paths import PathRoute, first_literal, path_routes, rank
from xds.compile.retries import retry_policy
from xds.errors import NotCompiled
from xds.settings import XdsSettings

Document = dict[str, Any]

API_SLOT, OPERATION_SLOT = "chain0", "chain1"
_CHAIN = "envoy.extensions.filters.http.filter_chain.v3.FilterChainConfigPerRoute"
_OFF = typed("envoy.config.route.v3.FilterConfig", {"disabled": True})


class Catalogue(Protocol):
    """Where policies come from."""

    @property
    def system(self) -> SystemParameters:
        """What whoever runs the gateway tells them."""
        ...

    def attach(self, ref: PolicyRef) -> Attached:
        """The policy that `ref` names, as it stands there. Raises PolicyError."""
        ...


@dataclass(frozen=True, slots=True)
class ApiRoute:
    """One Envoy route of an API, on any host."""

    order: tuple[Any, ...]  # sorts the routes of one virtual host, most specific first
    first_segment: str | None  # of the operation path: `` for `/`, None for a parameter or `*`
    tree_segments: tuple[str, ...]  # leading literal segments of the operation path
    document: Document  # a Route; its name lacks the host, see `key`
    key: RouteKey


@dataclass(frozen=True, slots=True)
class Site:
    """Routes that are served on the same hosts."""

    hosts: tuple[str, ...]
    routes: tuple[ApiRoute, ...]


@dataclass(frozen=True, slots=True)
class CompiledApi:
    """All that an API is to Envoy."""

    api_id: str
    revision: int
    context: str  # resolved; empty for the root
    sites: tuple[Site, ...]
    chain: Mapping[str, Document]  # typed_per_filter_config of the API level
    clusters: Mapping[str, Document] = field(default_factory=dict)  # name -> Cluster
    secrets: Mapping[str, Document] = field(default_factory=dict)  # name -> Secret

    @property
    def hosts(self) -> frozenset[str]:
        """Every host the API answers on; `*` is any."""
        return frozenset(host for site in self.sites for host in site.hosts)


def chain_slot(filters: Sequence[HttpFilter], slot: str) -> dict[str, Document]:
    """`filters` in `slot`, as typed_per_filter_config entries; nothing for no filters."""
    if not filters:
        return {}
    chain = typed(
        _CHAIN,
        {
            "filter_chain": {
                "filters": [{"name": one.name, "typed_config": one.config} for one in filters]
            }
        },
    )
    return {slot: chain} | {one.name: one.per_route for one in filters if one.per_route is not None}


def compile_api(
    api: RestApi,
    revision: int,
    credentials: tuple[Credential, ...],
    catalogue: Catalogue,
    settings: XdsSettings,
    subscribers: tuple[Subscriber, ...] = (),
) -> CompiledApi:
    """`api` as Envoy routes, chains and clusters. Raises NotCompiled."""
    spec = api.spec
    context = "" if spec.resolved_context == "/" else spec.resolved_context
    if spec.deployment_state == "undeployed":
        return CompiledApi(api.id, revision, context, (), {})
    try:
        return _compile(api, revision, context, credentials, catalogue, settings, subscribers)
    except (PolicyError, ValueError) as error:
        raise NotCompiled(api.id, str(error)) from error


def _compile(
    api: RestApi,
    revision: int,
    context: str,
    credentials: tuple[Credential, ...],
    catalogue: Catalogue,
    settings: XdsSettings,
    subscribers: tuple[Subscriber, ...],
) -> CompiledApi:
    spec = api.spec

    below = frozenset(ref.name for one in spec.operations for ref in one.policies)

    def chain_of(
        refs: Sequence[PolicyRef], level: Level, operation: Operation | None = None
    ) -> Chain:
        scope = Scope(
            level=level,
            api_id=api.id,
            api_name=spec.display_name,
            api_version=spec.version,
            context=context or "/",
            credentials=credentials,
            key_issuer=settings.key_issuer_required or None,
            subscriptions=subscribers,
            system=catalogue.system,
            below=below if level == "api" else frozenset(),
            operation_method=None if operation is None else operation.matcher.method,
            operation_path=None if operation is None else _pattern(operation),
        )
        return compile_chain((catalogue.attach(ref) for ref in refs), scope)

    api_chain = chain_of(spec.policies, "api")
    operation_chains = [chain_of(one.policies, "operation", one) for one in spec.operations]
    clusters = {
        service.cluster: service_cluster(service, settings.upstream_connect_timeout_s)
        for chain in (api_chain, *operation_chains)
        for service in chain.services
    }
    sites: list[Site] = []
    for hosts, upstream in served_on(spec, settings):
        upstreams = Upstreams(spec, upstream, settings.upstream_connect_timeout_s)
        writer = _SiteWriter(api, context, upstreams, api_chain, settings)
        routes = [*writer.own_paths((api_chain, *operation_chains))]
        for position, (operation, chain) in enumerate(
            zip(spec.operations, operation_chains, strict=True)
        ):
            routes.extend(writer.operation(position, operation, chain))
        routes.sort(key=lambda one: one.order)
        sites.append(Site(hosts, _unique(routes)))
        clusters |= upstreams.clusters
    secrets = {
        one.name: {"name": one.name, "generic_secret": {"secret": {"inline_string": one.value}}}
        for chain in (api_chain, *operation_chains)
        for one in chain.secrets
    }
    slots = chain_slot(api_chain.filters, API_SLOT)
    return CompiledApi(api.id, revision, context, tuple(sites), slots, clusters, secrets)


def _pattern(operation: Operation) -> str:
    return "/" + "/".join(operation.matcher.path.segments)


def _unique(routes: Sequence[ApiRoute]) -> tuple[ApiRoute, ...]:
    """Without those that an earlier route with the same match hides."""
    kept: list[ApiRoute] = []
    known: set[str] = set()
    for route in routes:
        fingerprint = repr(route.document["match"])
        if fingerprint not in known:
            known.add(fingerprint)
            kept.append(route)
    return tuple(kept)


@dataclass(frozen=True, slots=True)
class _SiteWriter:
    """Writes the routes of one site of one API."""

    api: RestApi
    context: str
    upstreams: Upstreams
    api_chain: Chain
    settings: XdsSettings

    def operation(self, position: int, operation: Operation, chain: Chain) -> Iterator[ApiRoute]:
        """The routes of an operation, its preflights first."""
        matcher = operation.matcher
        parts = matcher.path.segments
        headers = [_header_matcher(one.name, one.value, one.type) for one in matcher.headers]
        key = RouteKey(
            matcher.method,
            (self.context + matcher.path.value) or "/",
            "*",
            self.api.id,
            ",".join(f"{one.name}={one.value}" for one in matcher.headers),
        )
        routing = self.api_chain.routing.then(chain.routing)
        asked = self.api_chain.connections.then(chain.connections)
        targets = self._targets(routing, asked)
        single = self.api_chain.answer is None and bool(chain.filters)
        paths = tuple(
            path_routes(
                self.context,
                parts,
                targets[0].base_path,
                single=single,
                moves=routing.moves_path,
            )
        )
        yield from self._preflights(position, parts, paths, key, chain)
        answer = self.api_chain.answer or chain.answer
        action = (
            answer_action(answer)
            if answer is not None
            else self._forward(operation.resilience, chain, routing, targets, asked)
        )
        filters = () if self.api_chain.answer is not None else chain.filters
        per_filter = chain_slot(filters, OPERATION_SLOT)
        method = {"name": ":method", "string_match": {"exact": matcher.method}}
        for form, path in enumerate(paths):
            document: Document = {
                "match": {**path.match, "headers": [method, *headers]},
                **({"route": action["route"] | path.rewrite} if "route" in action else action),
            }
            if per_filter:
                document["typed_per_filter_config"] = per_filter
            if any(one.buffers for one in (*self.api_chain.hops, *chain.hops)):
                # else the listener's limit, which is small, would hold for whole bodies, too
                document["request_body_buffer_limit"] = self.settings.engine_max_body_bytes
            order = (rank(parts), 1, -len(headers), position, form)
            yield self._route(order, parts, document, key)

    def _route(
        self, order: tuple[Any, ...], parts: tuple[str, ...], document: Document, key: RouteKey
    ) -> ApiRoute:
        literal = []
        for part in parts:
            if part == "*" or part.startswith("{"):
                break
            literal.append(part)
        return ApiRoute(order, first_literal(parts), tuple(literal), document, key)

    def _preflights(
        self,
        position: int,
        parts: tuple[str, ...],
        paths: Sequence[PathRoute],
        key: RouteKey,
        chain: Chain,
    ) -> Iterator[ApiRoute]:
        """Preflights of both levels: behind the filters that stand before their policy."""
        levels: list[tuple[Preflight, tuple[HttpFilter, ...]]] = [*self.api_chain.preflights]
        if self.api_chain.answer is None:
            levels += [
                (one, (*self.api_chain.filters, *before)) for one, before in chain.preflights
            ]
        for number, (preflight, before) in enumerate(levels):
            for form, path in enumerate(paths):
                document = {
                    "match": {
                        **path.match,
                        "headers": [
                            {"name": ":method", "string_match": {"exact": "OPTIONS"}},
                            *preflight.match_headers,
                        ],
                    },
                    **answer_action(preflight.answer),
                    # the API's own chain is replaced by what stands before the policy
                    "typed_per_filter_config": {API_SLOT: _OFF}
                    | chain_slot(before, OPERATION_SLOT),
                }
                order = (rank(parts), 0, number, position, form)
                preflight_key = RouteKey(
                    "OPTIONS", key.path, key.vhost, key.api, f"preflight {preflight.name}"
                )
                yield self._route(order, parts, document, preflight_key)

    def own_paths(self, chains: Sequence[Chain]) -> Iterator[ApiRoute]:
        """The paths that policies answer themselves, the API's level first.

        Raises ValueError when two policies want the same path for different answers.
        """
        owners: dict[str, str] = {}
        for chain in chains if self.api_chain.answer is None else chains[:1]:
            for one, filters in chain.own_paths:
                known = owners.setdefault(one.path, one.owner)
                if known != one.owner:
                    raise ValueError(
                        f"two different policies answer {one.path}: rename one of them"
                    )
                per_filter = chain_slot(filters, OPERATION_SLOT) if chain is not chains[0] else {}
                method = {"name": ":method", "string_match": {"exact": "GET"}}
                document: Document = {
                    "match": {"path": self.context + one.path, "headers": [method]},
                    "direct_response": {"status": 404},  # where the filters let it pass
                    **({"typed_per_filter_config": per_filter} if per_filter else {}),
                }
                parts = tuple(part for part in one.path.split("/") if part)
                key = RouteKey("GET", self.context + one.path, "*", self.api.id, "own path")
                yield self._route((rank(parts), 0, 0, 0, 0), parts, document, key)

    def _targets(self, routing: Routing, asked: Connections) -> tuple[Target, ...]:
        """Where the requests go, one for each share. Raises ValueError if base paths differ."""
        names: list[str | None] = [share.upstream for share in routing.shares] or [None]
        targets = tuple(self.upstreams.target(name, asked) for name in names)
        if len({one.base_path for one in targets}) > 1:
            told = ", ".join(
                f"{share.upstream!r} has {target.base_path or '/'!r}"
                for share, target in zip(routing.shares, targets, strict=True)
            )
            raise ValueError(
                f"upstream definitions that share the requests of a route need one basePath: {told}"
            )
        return targets

    def _forward(
        self,
        resilience: Resilience | None,
        chain: Chain,
        routing: Routing,
        targets: Sequence[Target],
        asked: Connections,
    ) -> Document:
        """The RouteAction: cluster, host, timeouts, retries; policies have the last word."""
        settings = self.settings
        timeout_s, idle_s = settings.upstream_timeout_s, settings.upstream_idle_timeout_s
        for one in (self.api.spec.resilience, resilience):  # the nearer wins
            if one is not None and one.timeout is not None:
                timeout_s = duration_s(one.timeout)
            if one is not None and one.idle_timeout is not None:
                idle_s = duration_s(one.idle_timeout)
        route: Document = {
            **destination(routing, targets),
            "timeout": duration(timeout_s),
            "append_x_forwarded_host": True,
        }
        if idle_s != settings.downstream_idle_timeout_s:  # else the listener's own is at work
            route["idle_timeout"] = duration(idle_s)
        if targets[0].rewrite_host:
            authorities = {one.authority for one in targets}
            authority = authorities.pop() if len(authorities) == 1 else None
            if authority is None and asked.filters:
                told = ", ".join(one.name for one in asked.filters)
                raise ValueError(f"{told} needs upstreams that share one host name")
            route |= (
                {"host_rewrite_literal": authority}
                if authority is not None
                else {"auto_host_rewrite": True}
            )
        elif routing.host is not None:
            route["host_rewrite_literal"] = routing.host
        if routing.mirrors:
            copies = {one.upstream: self.upstreams.target(one.upstream) for one in routing.mirrors}
            route["request_mirror_policies"] = mirror_policies(routing, copies, targets[0])
        if settings.upstream_retries:
            several = any(one.several for one in targets)
            route["retry_policy"] = retry_policy(settings.upstream_retries, several=several)
        return {"route": route | self.api_chain.route_fields | chain.route_fields}


def _header_matcher(name: str, value: str, kind: Literal["Exact", "RegularExpression"]) -> Document:
    if kind == "Exact":
        return {"name": name, "string_match": {"exact": value}}
    return {"name": name, "string_match": {"safe_regex": {"regex": value}}}
