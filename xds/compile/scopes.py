"""Scopes: the APIs that share a first path segment, in one scoped route configuration.

Inside a scope every API has a virtual host of its own, so that its policies are compiled once and
its limits count once for all its operations. Envoy finds the virtual host by a header of our own
(`vhost_header`): the path, so that contexts are told apart by prefix, or, where the same context
is served by several APIs, host and path together. Only APIs that neither tells apart share one
virtual host; their API-level policies then stand on each route. The more specific host goes before
the longer context, and both before the more specific operation.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from policy_engine.policy import typed
from policy_engine.rate_limits.plan_limits import QUOTA_HEADER
from xds.compile.api import CompiledApi
from xds.compile.routes import ApiRoute

Document = dict[str, Any]

SCOPE = "envoy.config.route.v3.ScopedRouteConfiguration"
PATH_HEADER = "x-signalbox-path"  # the path without its query
HOST_PATH_HEADER = "x-signalbox-host-path"  # authority and path without its query
SCOPE_HEADER = "x-signalbox-scope"  # what the scope is found by, where it is not the path
PRIVATE_HEADERS = (PATH_HEADER, HOST_PATH_HEADER, SCOPE_HEADER, QUOTA_HEADER)
"""What upstreams do not get, once the policies are through with it."""
ROOT_SEGMENT = "#root"  # the scope of hosts that an API with a wildcard at `/` takes whole
HEALTH_SEGMENT = "_gateway-health"
_MAX_DIRECT_BODY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Member:
    """One API in one scope: the routes of it that belong here."""

    api: CompiledApi
    routes: tuple[tuple[tuple[str, ...], ApiRoute], ...]  # with the hosts each is served on


def scope_name(segment: str) -> str:
    """The name of the scope resource of a first path segment (which may be empty)."""
    return f"scope:{segment}"


def takes_hosts_whole(api: CompiledApi) -> bool:
    """Whether requests of any first segment may be for `api`."""
    return not api.context and any(
        route.first_segment is None for site in api.sites for route in site.routes
    )


def segments_of(api: CompiledApi) -> frozenset[str]:
    """The first path segments of the scopes that `api` is part of, the root scope apart."""
    if api.context:
        return frozenset({api.context.split("/")[1]}) if api.sites else frozenset()
    if takes_hosts_whole(api):
        return frozenset()
    return frozenset(
        route.first_segment
        for site in api.sites
        for route in site.routes
        if route.first_segment is not None
    )


def member(api: CompiledApi, segment: str) -> Member:
    """What `api` contributes to the scope of `segment`."""
    whole = bool(api.context) or segment == ROOT_SEGMENT
    return Member(
        api,
        tuple(
            (site.hosts, route)
            for site in api.sites
            for route in site.routes
            if whole or route.first_segment == segment
        ),
    )


def scope_document(segment: str, members: Sequence[Member], tree_threshold: int) -> Document:
    """The scoped route configuration of `members`, which all have routes."""
    members = sorted(members, key=lambda one: one.api.api_id)
    if _told_apart_by_context(members):
        header, hosts = PATH_HEADER, _by_context(members)
    else:
        header, hosts = HOST_PATH_HEADER, _by_host_and_context(members)
    return {
        "name": scope_name(segment),
        "key": {"fragments": [{"string_key": segment}]},
        "route_configuration": {
            "name": scope_name(segment),
            "vhost_header": header,
            "request_headers_to_remove": list(PRIVATE_HEADERS),
            "max_direct_response_body_size_bytes": _MAX_DIRECT_BODY_BYTES,
            "virtual_hosts": [_virtual_host(one, tree_threshold) for one in hosts],
        },
    }


def health_scope(key_set: Document | None = None) -> Document:
    """The reserved paths: answered as soon as a router has its configuration.

    `key_set`: the public keys of what the gateway signs, a JWKS.
    """
    answers = {
        **{what: f'{{"status":"{what}"}}\n' for what in ("ready", "healthy")},
        "jwks": json.dumps(key_set or {"keys": []}) + "\n",
    }
    return {
        "name": scope_name(HEALTH_SEGMENT),
        "key": {"fragments": [{"string_key": HEALTH_SEGMENT}]},
        "route_configuration": {
            "name": scope_name(HEALTH_SEGMENT),
            "virtual_hosts": [
                {
                    "name": HEALTH_SEGMENT,
                    "domains": ["*"],
                    "routes": [
                        {
                            "name": f"health {what}",
                            "match": {"path": f"/{HEALTH_SEGMENT}/{what}"},
                            "direct_response": {
                                "status": 200,
                                "body": {"inline_string": body},
                            },
                            "response_headers_to_add": [
                                {"header": {"key": "content-type", "value": "application/json"}}
                            ],
                        }
                        for what, body in answers.items()
                    ],
                }
            ],
        },
    }


def _told_apart_by_context(members: Sequence[Member]) -> bool:
    """Whether the context alone says which API is meant: the more specific host goes first."""
    contexts = {one.api.context.lower() for one in members}
    if len(contexts) < len(members):
        return False
    same_hosts = len({one.api.hosts for one in members}) == 1
    return same_hosts or not any(
        inner.startswith(f"{outer}/") for outer in contexts for inner in contexts
    )


@dataclass(frozen=True, slots=True)
class _VirtualHost:
    """A virtual host in the making."""

    name: str
    domains: tuple[str, ...]
    members: tuple[Member, ...]
    check_hosts: bool = True  # whether the routes still have to look at the host


def _by_context(members: Sequence[Member]) -> Iterator[_VirtualHost]:
    for one in members:
        context = one.api.context
        yield _VirtualHost(one.api.api_id, _below(context) if context else ("*",), (one,))


def _by_host_and_context(members: Sequence[Member]) -> Iterator[_VirtualHost]:
    """A virtual host for the exact hosts of a context that the same APIs serve.

    All its hosts are domains of the one virtual host, so that a limit of the API counts once.
    What is served on wildcards and on any host shares the default virtual host.
    """
    served: dict[tuple[str, str], list[Member]] = defaultdict(list)  # by context and exact host
    rest: list[Member] = []
    for one in members:
        wild = tuple(entry for entry in one.routes if any("*" in host for host in entry[0]))
        if wild:
            rest.append(replace(one, routes=wild))
        for host in sorted(one.api.hosts):
            if "*" not in host:
                served[one.api.context.lower(), host].append(one)  # as Envoy compares domains
    groups: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    by_id = {one.api.api_id: one for one in members}
    for (context, host), parts in served.items():
        groups[context, tuple(one.api.api_id for one in parts)].append(host)
    for (context, api_ids), hosts in groups.items():
        domains = tuple(domain for host in hosts for domain in _below(host + context))
        inside = tuple(by_id[api_id] for api_id in api_ids)
        alike = len({served_on for one in inside for served_on, _ in one.routes}) == 1
        yield _VirtualHost(hosts[0] + context, domains, inside, check_hosts=not alike)
    if rest:
        yield _VirtualHost("*", ("*",), tuple(rest))


def _below(stem: str) -> tuple[str, ...]:
    """Domains that match `stem` and all below it; a wildcard stands for one character or more."""
    return (stem, f"{stem}/", f"{stem}/*")


def _host_order(hosts: tuple[str, ...]) -> tuple[int, int]:
    """Exact hosts before wildcards, longer wildcards first, any host last."""
    if "*" in hosts:
        return (2, 0)
    wild = [host for host in hosts if "*" in host]
    return (1, -max(len(host) for host in wild)) if wild else (0, 0)


def _host_matcher(hosts: tuple[str, ...]) -> list[Document]:
    pattern = host_pattern(hosts)
    if pattern is None:
        return []
    if len(hosts) > 1:
        return [{"name": ":authority", "string_match": {"safe_regex": {"regex": pattern}}}]
    (host,) = hosts
    if host.startswith("*"):
        how: Document = {"suffix": host[1:]}
    elif host.endswith("*"):
        how = {"prefix": host[:-1]}
    else:
        how = {"exact": host}
    return [{"name": ":authority", "string_match": {**how, "ignore_case": True}}]


def _virtual_host(made: _VirtualHost, tree_threshold: int) -> Document:
    shared = len(made.members) > 1
    entries = sorted(
        ((one.api, hosts, route) for one in made.members for hosts, route in one.routes),
        key=lambda entry: (
            not entry[2].again,
            _host_order(entry[1]),
            entry[1],
            -len(entry[0].context),
            entry[2].order,
            entry[0].api_id,
        ),
    )
    routes = [
        (route, _route(api, hosts, route, check_hosts=made.check_hosts, shared=shared))
        for api, hosts, route in entries
    ]
    document: Document = {"name": made.name, "domains": list(made.domains)}
    if not shared and made.members[0].api.chain:
        document["typed_per_filter_config"] = dict(made.members[0].api.chain)
    tree: Document | None = None
    if len(routes) > tree_threshold and not shared:
        tree = _tree(made.members[0].api.context, routes)
    if tree is not None:
        document["matcher"] = tree
    else:
        document["routes"] = [document for _, document in routes]
    return document


def _route(
    api: CompiledApi,
    hosts: tuple[str, ...],
    route: ApiRoute,
    *,
    check_hosts: bool,
    shared: bool,
) -> Document:
    document = {**route.document, "name": str(replace(route.key, vhost=";".join(hosts)))}
    matchers = _host_matcher(hosts) if check_hosts else []
    if matchers:
        match = document["match"]
        document["match"] = {**match, "headers": [*match["headers"], *matchers]}
    if shared and api.chain:
        document["typed_per_filter_config"] = {
            **api.chain,
            **document.get("typed_per_filter_config", {}),
        }
    return document


def _tree(context: str, routes: Sequence[tuple[ApiRoute, Document]]) -> Document | None:
    """A prefix tree over the first segments in which the routes differ; None if they do not.

    Routes that have no literal segment there (parameters, `*`) stand in every branch, in order.
    """
    depth = _common_depth([route.tree_segments for route, _ in routes])
    branches: dict[str, list[Document]] = {}
    for route, _ in routes:
        if len(route.tree_segments) > depth:
            branches.setdefault(route.tree_segments[depth], [])
    if not branches:
        return None
    stem = context + "".join(f"/{part}" for part in routes[0][0].tree_segments[:depth])
    rest: list[Document] = []
    for route, document in routes:
        if len(route.tree_segments) > depth:
            branches[route.tree_segments[depth]].append(document)
        else:
            rest.append(document)
            for branch in branches.values():
                branch.append(document)
    return {
        "matcher_tree": {
            "input": {
                "name": "path",
                "typed_config": typed(
                    "envoy.type.matcher.v3.HttpRequestHeaderMatchInput",
                    {"header_name": PATH_HEADER},
                ),
            },
            "prefix_match_map": {
                "map": {f"{stem}/{name}": _route_list(docs) for name, docs in branches.items()}
            },
        },
        **({"on_no_match": _route_list(rest)} if rest else {}),
    }


def _common_depth(paths: Iterable[tuple[str, ...]]) -> int:
    """How many leading segments all `paths` share."""
    columns = zip(*paths, strict=False)
    depth = 0
    for column in columns:
        if len(set(column)) > 1:
            break
        depth += 1
    return depth


def _route_list(routes: Sequence[Document]) -> Document:
    return {
        "action": {
            "name": "routes",
            "typed_config": typed("envoy.config.route.v3.RouteList", {"routes": list(routes)}),
        }
    }


def host_pattern(hosts: Iterable[str]) -> str | None:
    """An RE2 pattern for `hosts`; None when any host is among them."""
    names = sorted(set(hosts))
    if "*" in names:
        return None
    return "(?i)^(" + "|".join(re.escape(host).replace(r"\*", ".*") for host in names) + ")$"


def overlap(left: frozenset[str], right: frozenset[str]) -> bool:
    """Whether some host can fall under both sets; wildcards are taken generously."""
    return any(
        _one_overlap(one, other) or _one_overlap(other, one) for one in left for other in right
    )


def _one_overlap(wild: str, host: str) -> bool:
    if "*" not in wild:
        return wild == host
    if "*" in host:
        return True
    return (
        wild == "*" or host.endswith(wild[1:])
        if wild.startswith("*")
        else host.startswith(wild[:-1])
    )
