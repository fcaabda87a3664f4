"""A kit to test policies with Envoy itself: compiled as in a gateway, the engine beside it.

    async with with_envoy([{"name": "shout", "params": {"word": "hey"}}], classes=[Shout]) as gw:
        answer = await gw.client.get("/a")

The router is the one of the gateway's own wheel; nothing is stored. Policies of the catalogue that
run in Envoy may stand in the list, too.
"""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.requests import Request
from starlette.responses import Response

from bus.resources.rest_api import RestApi
from compose.servers import ENVOY, binary
from compose.settings import Settings
from policy_engine.catalogue import Catalogue, load
from policy_engine.engine.call import Call
from policy_engine.engine.hops import hops_of
from policy_engine.engine.outside import opened
from policy_engine.engine.runtime import Runtime
from policy_engine.hop import ENGINE_CLUSTER, HOP_FIELD
from policy_engine.policy import Policy
from policy_engine.refusals import local_reply_config
from policy_engine.system import SystemParameters
from policy_engine.testing import Answer, Asked
from xds.bootstrap import service_cluster
from xds.compile.api import compile_api
from xds.settings import XdsSettings
from xds.standalone import standalone
from xds.wire.h2 import Limits, serve_stream

__all__ = ["Answer", "Asked", "EnvoyGateway", "RouterFailed", "with_envoy"]

Json = dict[str, Any]
Upstream = Callable[[Asked], Answer]

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_START_S = 30.0
_TAIL = 2_000


class RouterFailed(Exception):
    """Envoy did not start; the message ends with what it printed."""


@dataclass(slots=True)
class EnvoyGateway:
    """A router with one API on all paths, and its upstream."""

    client: httpx.AsyncClient
    seen: list[Asked] = field(default_factory=list)
    """What the upstream got, oldest first."""


def echo(asked: Asked) -> Answer:
    """200 with what was asked, as JSON."""
    body = asked.body.decode(errors="replace")
    told = {"method": asked.method, "path": asked.path, "headers": asked.headers, "body": body}
    return Answer(200, json.dumps(told).encode(), (("content-type", "application/json"),))


@asynccontextmanager
async def with_envoy(
    policies: Sequence[Json],
    *,
    classes: Iterable[type[Policy]] = (),
    upstream: Upstream = echo,
    operations: Sequence[Json] | None = None,
    system: SystemParameters | None = None,
    max_body_bytes: int = 1 << 20,
    **spec: Any,  # noqa: ANN401 - JSON
) -> AsyncIterator[EnvoyGateway]:
    """A real Envoy with an API that has `policies`, written as in a document.

    `classes`: policies beside the included ones. `operations`: those of the API; every method on
    every path by default. `spec`: more of the API's. Raises NotCompiled, RouterFailed.
    """
    included = load((), system=system)
    catalogue = Catalogue((*included, *classes), included.broken, included.system)
    every = [{"method": method, "path": "/*"} for method in _METHODS]
    paths = list(operations or every)
    anywhere = _api("http://127.0.0.1:1", list(policies), paths, spec)
    compile_api(anywhere, 1, (), catalogue, XdsSettings())  # what is wrong is said at once
    seen: list[Asked] = []
    with tempfile.TemporaryDirectory(prefix="policy-kit-") as place:
        folder = Path(place)
        async with _served(upstream, seen) as url, _engine(folder, catalogue, max_body_bytes) as on:
            api = _api(url, list(policies), paths, spec)
            on.learn({hop.name: hop.document() for hop in hops_of(api, catalogue)})
            config = _bootstrap(api, catalogue, _socket(folder))
            async with _router(folder, config) as port:
                address = f"http://127.0.0.1:{port}"
                async with httpx.AsyncClient(base_url=address, timeout=30) as client:
                    yield EnvoyGateway(client, seen)


def _socket(folder: Path) -> Path:
    return folder / "engine.sock"


def _api(url: str, policies: list[Json], operations: list[Json], spec: Json) -> RestApi:
    return RestApi.model_validate(
        {
            "apiVersion": "gateway.api-platform.wso2.com/v1",
            "kind": "RestApi",
            "metadata": {"name": "tested"},
            "spec": {
                "displayName": "Tested",
                "version": "v1.0",
                "context": "/",
                "upstream": {"main": {"url": url}},
                "policies": policies,
                "operations": operations,
                **spec,
            },
        }
    )


def _bootstrap(api: RestApi, catalogue: Catalogue, socket: Path) -> Json:
    settings = XdsSettings()
    compiled = compile_api(api, 1, (), catalogue, settings)
    config = standalone((compiled,), settings, local_reply_config(catalogue.refusals()))
    config["static_resources"]["clusters"].append(service_cluster(ENGINE_CLUSTER, [socket]))
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {**config, "admin": {"address": address}}


@asynccontextmanager
async def _engine(folder: Path, catalogue: Catalogue, max_bytes: int) -> AsyncIterator[Runtime]:
    async with opened() as outside:
        runtime = Runtime(catalogue, outside, max_body_bytes=max_bytes)
        longest = max(max_bytes, runtime.max_answer_bytes)
        limits = Limits(message_max_bytes=longest + (1 << 20), drain_timeout_s=0.5)
        async with serve_stream(
            lambda stream: Call(runtime, stream),
            path=_socket(folder),
            limits=limits,
            field=HOP_FIELD,
        ):
            yield runtime
        await runtime.close()


@asynccontextmanager
async def _served(upstream: Upstream, seen: list[Asked]) -> AsyncIterator[str]:
    """The upstream's URL."""

    async def answer(request: Request) -> Response:
        target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        headers = tuple(request.headers.items())
        host = request.headers.get("host", "")
        asked = Asked(request.method, target, headers, await request.body(), host)
        seen.append(asked)
        given = upstream(asked)
        made = Response(given.body, given.status)
        for name, value in given.headers:
            made.headers.append(name, value)
        return made

    async def application(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
        await (await answer(Request(scope, receive)))(scope, receive, send)

    config = uvicorn.Config(
        application,
        host="127.0.0.1",
        port=0,
        log_config=None,
        lifespan="off",
        server_header=False,
        date_header=False,
    )
    server = _Server(config)
    # no task group: it would wrap what a test raises
    serving = asyncio.create_task(server.serve(), name="upstream of the kit")
    try:
        await server.answers.wait()
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving


class _Server(uvicorn.Server):
    """Inside a loop that a test owns: signals are not touched."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.answers = asyncio.Event()

    def install_signal_handlers(self) -> None:
        """Signals are for whoever runs the tests."""

    async def startup(self, sockets: Any = None) -> None:  # noqa: ANN401 - uvicorn's signature
        """Start, and say so."""
        await super().startup(sockets)
        self.answers.set()


@asynccontextmanager
async def _router(folder: Path, config: Json) -> AsyncIterator[int]:
    """Envoy with `config`; the port of its listener. Raises RouterFailed."""
    (folder / "envoy.json").write_text(json.dumps(config), encoding="utf-8")
    log = folder / "envoy.log"
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(str(binary(ENVOY, Settings())), "--config-path", str(folder / "envoy.json")),
            *("--admin-address-path", str(folder / "admin"), "--concurrency", "1"),
            *("--disable-hot-restart", "--log-level", "warning"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        try:
            async with asyncio.timeout(_START_S):
                port = await _port(process, folder / "admin")
        except TimeoutError:
            port = 0
        if not port:
            said = log.read_text(errors="replace")[-_TAIL:]
            raise RouterFailed(f"Envoy did not start:\n{said}")
        yield port
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _port(process: asyncio.subprocess.Process, admin: Path) -> int:
    """The listener's port once it answers; 0 if the router ends before."""
    async with httpx.AsyncClient() as client:
        while process.returncode is None:
            await asyncio.sleep(0.02)
            address = await asyncio.to_thread(_address, admin)
            if not address:
                continue
            try:
                if (await client.get(f"http://{address}/ready")).status_code != httpx.codes.OK:
                    continue
                said = (await client.get(f"http://{address}/listeners?format=json")).json()
            except httpx.TransportError:
                continue
            (listener,) = said["listener_statuses"]
            return int(listener["local_address"]["socket_address"]["port_value"])
    return 0


def _address(file: Path) -> str:
    """What Envoy has written; empty before it has."""
    return file.read_text(encoding="utf-8").strip() if file.exists() else ""
