"""Real Envoys on a real ADS server, and the resources they are given."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.servers.envoy import Envoy, envoy
from xds.ads.protocol import CLUSTER, LISTENER, SCOPE, SECRET, Key, Resource
from xds.ads.server import AdsServer
from xds.ads.stream import Pace
from xds.wire.messages import digest, encode

EXT = "type.googleapis.com/envoy.extensions"
ADS = {"ads": {}, "resource_api_version": "V3"}
DEADLINE_S = 60.0
Document = dict[str, Any]


def resource(type_url: str, document: Document, needs: frozenset[str] | None = None) -> Resource:
    body = encode(type_url.rpartition("/")[2], document)
    return Resource(type_url, document["name"], digest(body), body, needs)


def listener(name: str = "http", **manager: Any) -> Resource:
    """Scopes by the first path segment."""
    return resource(
        LISTENER,
        {
            "name": name,
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
            "filter_chains": [
                {
                    "filters": [
                        {
                            "name": "hcm",
                            "typed_config": {
                                "@type": f"{EXT}.filters.network.http_connection_manager.v3"
                                ".HttpConnectionManager",
                                "stat_prefix": "http",
                                **_scoped(),
                                **manager,
                            },
                        }
                    ]
                }
            ],
        },
    )


def _scoped() -> Document:
    mutation = {"key": "x-scope", "value": "%PATH(NQ)%"}
    extractor = {"name": "x-scope", "element_separator": "/", "index": 1}
    return {
        "scoped_routes": {
            "name": "scopes",
            "scope_key_builder": {"fragments": [{"header_value_extractor": extractor}]},
            "rds_config_source": ADS,
            "scoped_rds": {"scoped_rds_config_source": ADS},
        },
        "early_header_mutation_extensions": [
            {
                "name": "scope",
                "typed_config": {
                    "@type": f"{EXT}.http.early_header_mutation.header_mutation.v3.HeaderMutation",
                    "mutations": [
                        {
                            "append": {
                                "header": mutation,
                                "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                            }
                        }
                    ],
                },
            }
        ],
        "http_filters": [
            {
                "name": "router",
                "typed_config": {"@type": f"{EXT}.filters.http.router.v3.Router"},
            }
        ],
    }


def scope(name: str, route: Document, needs: frozenset[str] | None = None) -> Resource:
    return resource(
        SCOPE,
        {
            "name": f"scope:{name}",
            "key": {"fragments": [{"string_key": name}]},
            "route_configuration": {
                "name": f"scope:{name}",
                "virtual_hosts": [{"name": name, "domains": ["*"], "routes": [route]}],
            },
        },
        needs,
    )


def answers(name: str, text: str = "ok") -> Resource:
    """Scope `name`, answered by Envoy itself with `text`."""
    body = {"inline_string": text}
    return scope(name, {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": body}})


def routes(name: str, cluster: str, *, precise: bool = False) -> Resource:
    """Scope `name`, routed to `cluster`; `precise`: the server is told so."""
    needs = frozenset({cluster}) if precise else None
    return scope(name, {"match": {"prefix": "/"}, "route": {"cluster": cluster}}, needs)


def bad(name: str, text: str = "(") -> Resource:
    """Scope `name`, which Envoy refuses with a reason that does not name it."""
    expression = {"regex": text}
    return scope(name, {"match": {"safe_regex": expression}, "direct_response": {"status": 200}})


def cluster(name: str, port: int, *, host: str = "127.0.0.1", **more: Any) -> Resource:
    address = {"socket_address": {"address": host, "port_value": port}}
    return resource(
        CLUSTER,
        {
            "name": name,
            "type": "STATIC",
            "connect_timeout": "1s",
            "load_assignment": {
                "cluster_name": name,
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
            **more,
        },
    )


def needs_secret(secret: str) -> Document:
    """What makes a cluster wait for `secret`."""
    return {
        "transport_socket": {
            "name": "tls",
            "typed_config": {
                "@type": f"{EXT}.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {
                    "validation_context_sds_secret_config": {"name": secret, "sds_config": ADS}
                },
            },
        }
    }


def authorities(name: str, pem: str) -> Resource:
    return resource(
        SECRET, {"name": name, "validation_context": {"trusted_ca": {"inline_string": pem}}}
    )


@dataclass(slots=True)
class Recorded:
    """What the server told; `until` waits for more."""

    versions: dict[str, dict[Key, str]] = field(default_factory=dict)  # node -> in force
    rejections: list[tuple[str, str, str, str, str]] = field(default_factory=list)
    applied_log: list[dict[Key, str | None]] = field(default_factory=list)
    connections: list[tuple[str, str]] = field(default_factory=list)
    disconnections: list[str] = field(default_factory=list)
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def connected(self, node: str, version: str) -> None:
        self.connections.append((node, version))
        self.versions[node] = {}
        self._changed.set()

    def disconnected(self, node: str) -> None:
        self.disconnections.append(node)
        self.versions.pop(node, None)
        self._changed.set()

    def applied(self, node: str, resources: Mapping[Key, str | None]) -> None:
        self.applied_log.append(dict(resources))
        for key, version in resources.items():
            if version is None:
                self.versions[node].pop(key, None)
            else:
                self.versions[node][key] = version
        self._changed.set()

    def rejected(self, node: str, type_url: str, name: str, version: str, reason: str) -> None:
        self.rejections.append((node, type_url, name, version, reason))
        self._changed.set()

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not true():
                self._changed.clear()
                await self._changed.wait()

    async def has(self, *resources: Resource, node: str = "router") -> None:
        """Until the router has acknowledged these versions."""
        await self.until(
            lambda: all(
                self.versions.get(node, {}).get(one.key) == one.version for one in resources
            )
        )

    async def lacks(self, *keys: Key, node: str = "router") -> None:
        """Until the router has none of these."""
        await self.until(
            lambda: node in self.versions and not set(keys) & self.versions[node].keys()
        )


@asynccontextmanager
async def socket_folder() -> AsyncIterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ads-") as folder:
        yield Path(folder) / "xds.sock"


PACE = Pace(linger_s=0.05)


@asynccontextmanager
async def ads(
    socket: Path, events: Recorded, *, pace: Pace = PACE, opened: bool = True
) -> AsyncIterator[AdsServer]:
    async with AdsServer(events, socket=socket, pace=pace) as server:
        if opened:
            server.open()
        yield server


def bootstrap(node: str, pipe: Path | None = None, port: int = 0) -> Document:
    address: Document = (
        {"pipe": {"path": str(pipe)}}
        if pipe is not None
        else {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    )
    options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    return {
        "node": {"id": node, "cluster": "test"},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}],
                "set_node_on_first_message_only": True,
            },
            "lds_config": ADS,
            "cds_config": ADS,
        },
        "static_resources": {
            "clusters": [
                {
                    "name": "xds",
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "load_assignment": {
                        "cluster_name": "xds",
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
                    },
                    "typed_extension_protocol_options": {
                        options: {
                            "@type": f"type.googleapis.com/{options}",
                            "explicit_http_config": {"http2_protocol_options": {}},
                        }
                    },
                }
            ]
        },
    }


@dataclass(slots=True)
class Caller:
    """A keep-alive client of one router."""

    client: httpx.AsyncClient

    async def get(self, path: str) -> tuple[int, str]:
        answer = await self.client.get(path)
        return answer.status_code, answer.text

    async def until(self, path: str, wanted: tuple[int, str]) -> None:
        """Ask until the answer is `wanted`."""
        got = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DEADLINE_S):
                while (got := await self.get(path)) != wanted:
                    await asyncio.sleep(0.005)
        assert got == wanted


@asynccontextmanager
async def router(
    socket: Path, node: str = "router", **options: Any
) -> AsyncIterator[tuple[Envoy, Caller]]:
    """An Envoy that has its listener `http`, and a client of it."""
    async with envoy(bootstrap(node, socket), **options) as one, calling(one) as caller:
        yield one, caller


@asynccontextmanager
async def calling(one: Envoy) -> AsyncIterator[Caller]:
    base = f"http://127.0.0.1:{await one.port('http')}"
    async with httpx.AsyncClient(base_url=base, timeout=30) as client:
        yield Caller(client)
