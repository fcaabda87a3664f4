"""Policies in a real Envoy: chains in the slots of a connection manager, as xds builds them."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from policy_engine.attached import Attached
from policy_engine.chain import Chain, compile_chain
from policy_engine.policy import (
    Credential,
    DirectAnswer,
    Level,
    Policy,
    Redirect,
    Scope,
    typed,
)
from policy_engine.subscriptions import Subscriber
from policy_engine.system import SystemParameters
from tests.policy_engine.attached import LOCAL_REPLY, SYSTEM
from tests.servers.envoy import Envoy, envoy
from tests.servers.http_backend import HttpBackend, http_backend
from tests.servers.secrets import given_secrets
from xds.compile.actions import answer_action
from xds.compile.clusters import service_cluster
from xds.compile.slots import Layout, slots

Document = dict[str, Any]

_HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


@dataclass(frozen=True)
class Api:
    """What is attached where; every operation takes any method."""

    policies: tuple[Policy | Attached, ...] = ()
    operations: Mapping[str, tuple[Policy | Attached, ...]] = field(
        default_factory=lambda: {"/": ()}
    )
    credentials: tuple[Credential, ...] = ()
    key_issuer: str | None = None
    subscriptions: tuple[Subscriber, ...] = ()
    local_reply: Document | None = field(default_factory=lambda: LOCAL_REPLY)
    timeout: str = "15s"
    system: SystemParameters = SYSTEM

    def scope(self, level: Level, path: str | None = None) -> Scope:
        """Where the policies of that level are attached."""
        below = {
            (one.policy if isinstance(one, Attached) else one).name
            for chain in self.operations.values()
            for one in chain
        }
        return Scope(
            level=level,
            api_id="orders",
            api_name="Orders",
            api_version="v1",
            context="/",
            credentials=self.credentials,
            key_issuer=self.key_issuer,
            subscriptions=self.subscriptions,
            system=self.system,
            below=frozenset(below) if level == "api" else frozenset(),
            operation_path=path,
        )


@dataclass(frozen=True)
class Gateway:
    """A running Envoy with one API, its backend, and a client."""

    router: Envoy
    backend: HttpBackend
    client: httpx.AsyncClient
    port: int


def direct(answer: DirectAnswer | Redirect) -> Document:
    """The route fields that make Envoy give `answer`."""
    if isinstance(answer, Redirect):
        return answer_action(answer)
    return {
        "direct_response": {
            "status": answer.status,
            **({"body": {"inline_string": answer.body}} if answer.body else {}),
        },
        "response_headers_to_add": [
            {
                "header": {"key": name, "value": value},
                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            }
            for name, value in answer.headers
        ],
    }


def _routes(path: str, api: Api, above: Chain, layout: Layout, own: Chain) -> list[Document]:
    match: Document = {"prefix": path}
    routes: list[Document] = []
    preflights = [(one, layout.only(before)) for one, before in above.preflights]
    if above.answer is None:
        preflights += [(one, Layout(before, layout.end).config) for one, before in own.preflights]
    for preflight, slots_of_it in preflights:
        method = {"name": ":method", "string_match": {"exact": "OPTIONS"}}
        routes.append(
            {
                "match": {**match, "headers": [method, *preflight.match_headers]},
                **direct(preflight.answer),
                "typed_per_filter_config": slots_of_it,
            }
        )
    answer = above.answer or own.answer
    forward = {"cluster": "backend", "timeout": api.timeout} | above.route_fields
    route = {
        "name": f"GET|{path}|*|orders",
        "match": match,
        **(direct(answer) if answer is not None else {"route": forward | own.route_fields}),
        "typed_per_filter_config": Layout(
            () if above.answer is not None else own.filters, layout.end
        ).config,
        "response_headers_to_remove": sorted(above.silenced | own.silenced),
    }
    return [*routes, route]


def virtual_host(api: Api, name: str = "orders", domains: tuple[str, ...] = ("*",)) -> Document:
    """`api` as one virtual host."""
    above = compile_chain(api.policies, api.scope("api"))
    layout = Layout(above.filters)
    routes: list[Document] = []
    for path in sorted(api.operations, key=len, reverse=True):
        own = compile_chain(api.operations[path], api.scope("operation", path))
        routes += _routes(path, api, above, layout, own)
    return {
        "name": name,
        "domains": list(domains),
        "routes": routes,
        "typed_per_filter_config": layout.config,
    }


def chains(api: Api) -> list[Chain]:
    """The chain of the API's level, and those of its operations."""
    below = [compile_chain(one, api.scope("operation")) for one in api.operations.values()]
    return [compile_chain(api.policies, api.scope("api")), *below]


def services(api: Api) -> list[Document]:
    """The clusters of the servers that the policies of `api` call."""
    called = {one for chain in chains(api) for one in chain.services}
    return [service_cluster(one, 2) for one in called]


def secrets(api: Api) -> dict[str, Document]:
    """The secrets that the policies of `api` name."""
    return {
        one.name: {"name": one.name, "generic_secret": {"secret": {"inline_string": one.value}}}
        for chain in chains(api)
        for one in chain.secrets
    }


def bootstrap(
    virtual_hosts: list[Document],
    backend_port: int,
    *,
    clusters: list[Document] | None = None,
    local_reply: Document | None = None,
    access_log: list[Document] | None = None,
) -> Document:
    """Envoy's configuration with these virtual hosts before one backend."""

    def address(port: int) -> Document:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    manager = {
        "stat_prefix": "http",
        "route_config": {
            "name": "routes",
            "virtual_hosts": virtual_hosts,
            "max_direct_response_body_size_bytes": 1 << 20,
        },
        "http_filters": [
            *slots(),
            {
                "name": "router",
                "typed_config": typed("envoy.extensions.filters.http.router.v3.Router"),
            },
        ],
        "access_log": access_log or [],
        **({"local_reply_config": local_reply} if local_reply is not None else {}),
    }
    filters = [{"name": "http", "typed_config": typed(_HCM, manager)}]
    endpoint = {"endpoint": {"address": address(backend_port)}}
    return {
        "static_resources": {
            "listeners": [
                {"name": "http", "address": address(0), "filter_chains": [{"filters": filters}]}
            ],
            "clusters": [
                *(clusters or ()),
                {
                    "name": "backend",
                    "type": "STATIC",
                    "connect_timeout": "2s",
                    "load_assignment": {
                        "cluster_name": "backend",
                        "endpoints": [{"lb_endpoints": [endpoint]}],
                    },
                },
            ],
        }
    }


@asynccontextmanager
async def gateway(api: Api, access_log: list[Document] | None = None) -> AsyncIterator[Gateway]:
    """`api` served by Envoy, with an echo behind it."""
    async with http_backend() as backend:
        config = bootstrap(
            [virtual_host(api)],
            backend.port,
            local_reply=api.local_reply,
            clusters=services(api),
            access_log=access_log,
        )
        given_secrets(config, secrets(api))
        async with envoy(config) as router:
            port = await router.port("http")
            url = f"http://127.0.0.1:{port}"
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                yield Gateway(router, backend, client, port)
