"""An Envoy whose listener logs as ours does, with fixed routes, and requests through it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.servers.envoy import Envoy, envoy
from xds.access_log import access_log_config

NODE = "router-1"
_TYPE = "type.googleapis.com/envoy"


@dataclass(slots=True)
class Router:
    """A running Envoy, and how many requests it has answered."""

    envoy: Envoy
    port: int
    sent: int = 0

    async def call(self, path: str, count: int = 1, headers: str = "") -> int:
        """Ask `count` times over one connection; the last status."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        status = 0
        for _ in range(count):
            writer.write(f"GET {path} HTTP/1.1\r\nhost: api.example\r\n{headers}\r\n".encode())
            status = await _answer(reader)
            self.sent += 1
        writer.close()
        return status

    async def load(self, until: asyncio.Event, connections: int = 8, pause_s: float = 0.0) -> None:
        """Ask over and over until the event, 20 requests between two pauses."""

        async def one() -> None:
            while not until.is_set():
                await self.call("/weather/v1/oslo", 20)
                await asyncio.sleep(pause_s)

        async with asyncio.TaskGroup() as group:
            for _ in range(connections):
                group.create_task(one())


async def _answer(reader: asyncio.StreamReader) -> int:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = next(
        (int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-len")),
        0,
    )
    await reader.readexactly(length)
    return int(head.split()[1])


@asynccontextmanager
async def router(
    access_log: Path | int, backend_port: int = 1, *, concurrency: int = 1
) -> AsyncIterator[Router]:
    """An Envoy that logs to that Unix socket or local port."""
    async with envoy(_bootstrap(access_log, backend_port), concurrency=concurrency) as running:
        yield Router(running, await running.port("http"))


def _bootstrap(access_log: Path | int, backend_port: int) -> dict[str, Any]:
    manager = {
        "@type": f"{_TYPE}.extensions.filters.network.http_connection_manager.v3."
        "HttpConnectionManager",
        "stat_prefix": "http",
        "access_log": [access_log_config("access-log")],
        "http_filters": [
            _filter("local_ratelimit", "local_ratelimit.v3.LocalRateLimit", stat_prefix="limit"),
            _filter("router", "router.v3.Router"),
        ],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": _routes()}]},
    }
    listener = {
        "name": "http",
        "address": _tcp(0),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    pipe = {"pipe": {"path": str(access_log)}}
    return {
        "node": {"id": NODE, "cluster": "test"},
        "static_resources": {
            "listeners": [listener],
            "clusters": [
                _cluster("backend", _tcp(backend_port)),
                {
                    **_cluster(
                        "access-log", pipe if isinstance(access_log, Path) else _tcp(access_log)
                    ),
                    "typed_extension_protocol_options": {
                        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                            "@type": f"{_TYPE}.extensions.upstreams.http.v3.HttpProtocolOptions",
                            "explicit_http_config": {"http2_protocol_options": {}},
                        }
                    },
                },
            ],
        },
    }


def _routes() -> list[dict[str, Any]]:
    limit = {
        "@type": f"{_TYPE}.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
        "stat_prefix": "limit",
        "token_bucket": {"max_tokens": 2, "tokens_per_fill": 2, "fill_interval": "3600s"},
        "filter_enabled": {"default_value": {"numerator": 100}},
        "filter_enforced": {"default_value": {"numerator": 100}},
    }
    return [
        {
            "name": "GET|/weather/v1/{city}|*|weather",
            "match": {"prefix": "/weather/v1/"},
            "direct_response": {"status": 200, "body": {"inline_string": "sunny"}},
        },
        {
            "name": "GET|/limited|*|limited",
            "match": {"path": "/limited"},
            "direct_response": {"status": 200},
            "typed_per_filter_config": {"envoy.filters.http.local_ratelimit": limit},
        },
        {
            "name": "GET|/echo|*|echo",
            "match": {"prefix": "/echo"},
            "route": {"cluster": "backend"},
        },
    ]


def _filter(name: str, message: str, **fields: Any) -> dict[str, Any]:
    kind = f"{_TYPE}.extensions.filters.http.{message}"
    return {"name": f"envoy.filters.http.{name}", "typed_config": {"@type": kind, **fields}}


def _tcp(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _cluster(name: str, address: dict[str, Any]) -> dict[str, Any]:
    endpoint = {"lb_endpoints": [{"endpoint": {"address": address}}]}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": [endpoint]},
    }
