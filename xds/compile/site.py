"""The routes of an API on the hosts of one of its upstreams."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any, Literal

from bus.resources.document import duration_s
from bus.resources.rest_api import Operation, Resilience, RestApi, RestApiSpec
from bus.route_key import RouteKey
from policy_engine.chain import WAYS_MAX, Chain, Step, uncounted
from policy_engine.hooks import CHOICE_NAMESPACE
from policy_engine.policy import (
    DirectAnswer,
    HttpFilter,
    Preflight,
    Routing,
    Share,
    literal,
    typed,
)
from policy_engine.refusals import UNKNOWN_UPSTREAM
from xds.compile.actions import answer_action, destination, mirror_policies
from xds.compile.clusters import Target, Upstreams
from xds.compile.durations import duration
from xds.compile.paths import PathRoute, covers, first_literal, path_routes, rank
from xds.compile.retries import retry_policy
from xds.compile.routes import ApiRoute, unique
from xds.compile.slots import Layout
from xds.settings import XdsSettings

Document = dict[str, Any]

_MARK = "signalbox.route"
"""Filter state that names the operation, for routes that are looked for again."""

_AGAIN_MAX = 256
"""How many routes an operation may have that are looked for again."""

_NOWHERE = DirectAnswer(
    502,
    json.dumps(dict(zip(("error", "message"), UNKNOWN_UPSTREAM, strict=True))),
    (("content-type", "application/json"),),
)

_ROUTED = frozenset(
    f"type.googleapis.com/envoy.extensions.filters.http.{name}"
    for name in ("ratelimit.v3.RateLimit", "rate_limit_quota.v3.RateLimitQuotaFilterConfig")
)
"""Filters that let requests pass unasked on routes that have no upstream."""
_FILTER_STATE = "envoy.extensions.filters.http.set_filter_state.v3.Config"


@dataclass(frozen=True, slots=True)
class SiteWriter:
    """Writes the routes of one site of one API."""

    api: RestApi
    context: str
    upstreams: Upstreams
    api_chain: Chain
    layout: Layout  # of the API's chain
    settings: XdsSettings

    def routes(self, chains: Sequence[Chain]) -> tuple[ApiRoute, ...]:
        """All routes, most specific first; `chains` are those of the operations.

        Raises ValueError.
        """
        routes = [*self._own_paths((self.api_chain, *chains))]
        for position, (operation, chain) in enumerate(
            zip(self.api.spec.operations, chains, strict=True)
        ):
            routes.extend(self._operation(position, operation, chain))
        routes.sort(key=lambda one: one.order)
        return unique(routes)

    def _operation(self, position: int, operation: Operation, chain: Chain) -> Iterator[ApiRoute]:
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
        step = self.api_chain.taken().then(chain.taken())
        targets = self._targets(step)
        single = self.api_chain.answer is None and bool(chain.filters)
        paths = tuple(
            path_routes(
                self.context,
                parts,
                targets[0].base_path,
                single=single,
                moves=step.routing.moves_path,
            )
        )
        yield from self._preflights(position, parts, paths, key, chain)
        answer = self.api_chain.answer or chain.answer
        filters = () if self.api_chain.answer is not None else chain.filters
        asked = any(one.config["@type"] in _ROUTED for one in (*self.api_chain.filters, *filters))
        if answer is None:
            action = self._forward(operation.resilience, step, targets)
        elif asked:
            action = self._forward(operation.resilience, step, targets)
            filters += self.api_chain.answering or chain.answering
        else:
            action = answer_action(answer)
        per_filter = Layout(filters, self.layout.end).config
        ways = (*self.api_chain.ways, *chain.ways)
        mark = f"{self.api.id} {position}"
        again = any(looked_for_again(self.api.spec, one) for one in (self.api_chain, chain))
        if answer is None and again:
            per_filter = (
                Layout((HttpFilter("operation.route", _marking(mark)),)).config | per_filter
            )
            yield from self._again(position, operation, chain, ways, mark, per_filter, key)
        method = {"name": ":method", "string_match": {"exact": matcher.method}}
        for form, path in enumerate(paths):
            document: Document = {
                "match": {**path.match, "headers": [method, *headers]},
                **({"route": action["route"] | path.rewrite} if "route" in action else action),
            }
            if per_filter:
                document["typed_per_filter_config"] = per_filter
            document |= self._buffers(chain) | self._silence(chain)
            order = (rank(parts), 1, -len(headers), position, form)
            yield self._route(order, parts, document, key)

    def _again(
        self,
        position: int,
        operation: Operation,
        chain: Chain,
        ways: Sequence[str],
        mark: str,
        per_filter: Document,
        key: RouteKey,
    ) -> Iterator[ApiRoute]:
        """The routes of requests for which conditions of policies have held, or which a hook has
        sent elsewhere.

        They are found by the operation that was matched first, whatever has become of the path.
        """
        if len(ways) > WAYS_MAX:
            raise ValueError(
                f"at most {WAYS_MAX} executionConditions may decide where the requests of an "
                f"operation go; {key.method} {key.path} has {len(ways)}"
            )
        parts = operation.matcher.path.segments
        subsets = [taken for size in range(len(ways), -1, -1) for taken in combinations(ways, size)]
        found = [
            (taken, chosen, step) for taken in subsets for chosen, step in self._steps(chain, taken)
        ]
        if len(found) > _AGAIN_MAX:
            raise ValueError(
                f"upstream definitions and executionConditions make {len(found)} routes of "
                f"{key.method} {key.path}, where policies may choose the upstream; at most "
                f"{_AGAIN_MAX} are possible"
            )
        for number, (taken, chosen, step) in enumerate(found):
            document: Document = {
                "match": {
                    "prefix": "/",
                    "headers": [],
                    "filter_state": [
                        {"key": _MARK, "string_match": {"exact": mark}},
                        *({"key": way, "string_match": {"exact": "1"}} for way in taken),
                    ],
                    **chosen,
                },
                **self._elsewhere(operation, parts, step),
                "typed_per_filter_config": per_filter,
                **self._buffers(chain),
                **self._silence(chain),
            }
            made = self._route(((), -1, 0, position, number), parts, document, key)
            yield replace(made, again=True)

    def _steps(self, chain: Chain, ways: tuple[str, ...]) -> Iterator[tuple[Document, Step | None]]:
        """Where requests go for which the conditions of `ways` have held.

        Each with fields of RouteMatch for what a hook has chosen; None: to no upstream. Those that
        go their usual way have a route already.
        """
        step = self.api_chain.taken(ways).then(chain.taken(ways))
        if step.routing.choosable:
            for one in self.api.spec.upstream_definitions:
                there = Routing(host=step.routing.host, shares=(Share(one.name),))
                yield _chosen({"string_match": {"exact": one.name}}), replace(step, routing=there)
            if self.api.spec.upstream_definitions:
                yield _chosen({"present_match": True}), None
        if ways:
            yield {}, step

    def _elsewhere(
        self, operation: Operation, parts: tuple[str, ...], step: Step | None
    ) -> Document:
        """The action of a route that is looked for again."""
        if step is None:
            return answer_action(_NOWHERE)
        targets = self._targets(step)
        (path, *_) = path_routes(self.context, parts, targets[0].base_path, moves=True)
        action = self._forward(operation.resilience, step, targets)
        return {"route": action["route"] | path.rewrite}

    def _silence(self, chain: Chain) -> Document:
        """Headers that only the gateway may say: the upstream's are taken off."""
        silenced = self.api_chain.silenced | chain.silenced
        return {"response_headers_to_remove": sorted(silenced)} if silenced else {}

    def _buffers(self, chain: Chain) -> Document:
        """Room for whole bodies, where Python policies want them: the listener has little."""
        longest = {
            "request_body": self.settings.engine_max_body_bytes,
            "response_body": self.settings.engine_max_answer_bytes,
        }
        hops = (*self.api_chain.hops, *chain.hops)
        needed = [longest[one] for hop in hops for one in hop.phases if one in longest]
        return {"request_body_buffer_limit": max(needed)} if needed else {}  # Envoy has but one

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
        levels: list[tuple[Preflight, Document]] = [
            (one, self.layout.only(before)) for one, before in self.api_chain.preflights
        ]
        if self.api_chain.answer is None:
            above = self.api_chain.filters
            levels += [
                (one, self.layout.only(uncounted(above, before), before))
                for one, before in chain.preflights
            ]
        for number, (preflight, per_filter) in enumerate(levels):
            if preflight.lets_pass and self._has_options(parts):
                continue
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
                    **({"typed_per_filter_config": per_filter} if per_filter else {}),
                }
                order = (rank(parts), 0, number, position, form)
                preflight_key = RouteKey(
                    "OPTIONS", key.path, key.vhost, key.api, f"preflight {preflight.name}"
                )
                yield self._route(order, parts, document, preflight_key)

    def _has_options(self, parts: tuple[str, ...]) -> bool:
        """Whether an operation takes every OPTIONS request for `parts`."""
        return any(
            one.matcher.method == "OPTIONS"
            and not one.matcher.headers
            and covers(one.matcher.path.segments, parts)
            for one in self.api.spec.operations
        )

    def _own_paths(self, chains: Sequence[Chain]) -> Iterator[ApiRoute]:
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
                below = chain is not chains[0]
                per_filter = Layout(filters, self.layout.end).config if below else {}
                method = {"name": ":method", "string_match": {"exact": "GET"}}
                document: Document = {
                    "match": {"path": self.context + one.path, "headers": [method]},
                    "direct_response": {"status": 404},  # where the filters let it pass
                    **({"typed_per_filter_config": per_filter} if per_filter else {}),
                }
                parts = tuple(part for part in one.path.split("/") if part)
                key = RouteKey("GET", self.context + one.path, "*", self.api.id, "own path")
                yield self._route((rank(parts), 0, 0, 0, 0), parts, document, key)

    def _targets(self, step: Step) -> tuple[Target, ...]:
        """Where the requests go, one for each share. Raises ValueError if base paths differ."""
        routing = step.routing
        names: list[str | None] = [share.upstream for share in routing.shares] or [None]
        targets = tuple(self.upstreams.target(name, step.connections) for name in names)
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
        self, resilience: Resilience | None, step: Step, targets: Sequence[Target]
    ) -> Document:
        """The RouteAction: cluster, host, timeouts, retries; policies have the last word."""
        settings, routing, asked = self.settings, step.routing, step.connections
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
        return {"route": route | step.route_fields}


def _header_matcher(name: str, value: str, kind: Literal["Exact", "RegularExpression"]) -> Document:
    if kind == "Exact":
        return {"name": name, "string_match": {"exact": value}}
    return {"name": name, "string_match": {"safe_regex": {"regex": value}}}


def looked_for_again(spec: RestApiSpec, chain: Chain) -> bool:
    """Whether policies of `chain` may send a request elsewhere than where its path leads."""
    return bool(chain.ways) or (chain.choosable and bool(spec.upstream_definitions))


def _chosen(value: Document) -> Document:
    matcher = {"filter": CHOICE_NAMESPACE, "path": [{"key": "upstream"}], "value": value}
    return {"dynamic_metadata": [matcher]}


def _marking(mark: str) -> Document:
    value = {"text_format_source": {"inline_string": literal(mark)}}
    state = {"object_key": _MARK, "factory_key": "envoy.string", "format_string": value}
    return typed(_FILTER_STATE, {"on_request_headers": [state]})
