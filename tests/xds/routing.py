"""A real Envoy that serves compiled APIs from a static configuration: routing without a bus."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import yaml

from bus.resources.rest_api import PolicyRef, RestApi
from policy_engine.attached import Attached
from policy_engine.errors import UnknownPolicy
from policy_engine.system import SystemParameters
from tests.servers.envoy import Envoy, envoy
from tests.servers.secrets import given_secrets
from xds.compile.api import CompiledApi, compile_api
from xds.compile.scopes import (
    ROOT_SEGMENT,
    health_scope,
    host_pattern,
    member,
    overlap,
    scope_document,
    segments_of,
    takes_hosts_whole,
)
from xds.listener import CLIENT_SECRET, listeners
from xds.settings import XdsSettings


class NoPolicies:
    """A catalogue with nothing in it."""

    system = SystemParameters()

    def attach(self, ref: PolicyRef) -> Attached:
        raise UnknownPolicy(ref.name, ref.version)


def api(text: str) -> RestApi:
    """A RestApi from its `spec` and, optionally, `name`, as YAML."""
    document = yaml.safe_load(text)
    name = document.pop("name", "sample")
    spec = {"displayName": name, "version": "v1", **document}
    return RestApi.model_validate(
        {
            "apiVersion": "gateway.api-platform.wso2.com/v1",
            "kind": "RestApi",
            "metadata": {"name": name},
            "spec": spec,
        }
    )


@dataclass(frozen=True, slots=True)
class Router:
    """Envoy, and a client for it."""

    envoy: Envoy
    client: httpx.AsyncClient

    async def get(self, path: str, *, host: str = "any.example", **more: Any) -> httpx.Response:
        headers = {"host": host, **more.pop("headers", {})}
        return await self.client.request(more.pop("method", "GET"), path, headers=headers, **more)

    async def upstream_path(self, path: str, **more: Any) -> str | int:
        """The path the upstream saw, or the status when it is not 200."""
        answer = await self.get(path, **more)
        return str(answer.json()["path"]) if answer.status_code == 200 else answer.status_code


def scopes(compiled: Sequence[CompiledApi], settings: XdsSettings) -> list[dict[str, Any]]:
    """All scope documents, as the assembly would publish them."""
    root_hosts = frozenset(host for one in compiled if takes_hosts_whole(one) for host in one.hosts)
    by_segment: dict[str, list[CompiledApi]] = {}
    for one in compiled:
        for segment in segments_of(one):
            by_segment.setdefault(segment, []).append(one)
        if root_hosts and overlap(one.hosts, root_hosts):
            by_segment.setdefault(ROOT_SEGMENT, []).append(one)
    documents = [health_scope()]
    for segment, inside in sorted(by_segment.items()):
        members = [member(one, segment) for one in inside]
        document = scope_document(segment, members, settings.matcher_tree_threshold)
        documents.append(document)
    return documents


@asynccontextmanager
async def router(
    *apis: RestApi,
    settings: Mapping[str, Any] | None = None,
    catalogue: Any = None,
    mark_routes: bool = False,
    local_reply: dict[str, Any] | None = None,
    access_log: dict[str, Any] | None = None,
    more_clusters: Sequence[dict[str, Any]] = (),
    https: Mapping[str, dict[str, Any]] | None = None,
    bootstrap: Mapping[str, Any] | None = None,
) -> AsyncIterator[Router]:
    """Envoy with `apis`, on a free port; `mark_routes`: answers tell the route as `x-route`.

    `https`: the secrets of an HTTPS listener, by name, instead of HTTP; `bootstrap`: more of what
    Envoy is started with.
    """
    ports = {"http_port": int(https is None), "https_port": int(https is not None)}
    made = XdsSettings(**{"http_address": "127.0.0.1", **ports, **(settings or {})})
    compiled = [compile_api(one, 1, (), catalogue or NoPolicies(), made) for one in apis]
    hosts = [host for one in compiled if takes_hosts_whole(one) for host in one.hosts]
    (listener,) = listeners(
        made,
        access_log=access_log,
        local_reply=local_reply,
        root_hosts=(host_pattern(hosts) or "") if hosts else None,
        ask_for_certificates=CLIENT_SECRET in (https or {}),
    )
    listener["address"]["socket_address"]["port_value"] = 0
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    manager["scoped_routes"].pop("scoped_rds")
    manager["scoped_routes"]["scoped_route_configurations_list"] = {
        "scoped_route_configurations": scopes(compiled, made)
    }
    if mark_routes:
        for scope in manager["scoped_routes"]["scoped_route_configurations_list"].values():
            for one in scope:
                one["route_configuration"]["response_headers_to_add"] = [
                    {"header": {"key": "x-route", "value": "%ROUTE_NAME%"}}
                ]
    clusters = {name: doc for one in compiled for name, doc in one.clusters.items()}
    every_cluster = [*clusters.values(), *more_clusters]
    static = {"listeners": [listener], "clusters": every_cluster}
    config = {**(bootstrap or {}), "static_resources": static}
    secrets = {name: doc for one in compiled for name, doc in one.secrets.items()}
    given_secrets(config, {**secrets, **(https or {})})
    async with envoy(config, arguments=("--file-flush-interval-msec", "50")) as running:
        scheme = "http" if https is None else "https"
        url = f"{scheme}://127.0.0.1:{await running.port(scheme)}"
        async with httpx.AsyncClient(base_url=url, verify=False) as client:
            yield Router(running, client)
