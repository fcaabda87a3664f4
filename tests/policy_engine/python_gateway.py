"""Python policies end to end: an API as xds compiles it, a real Envoy, the engine, a backend.

    async with python_gateway(policies=[ref("word-count-guardrail", max=3)]) as gw:
        answer = await gw.client.post("/chat", json={...})
        assert gw.backend.last.header("x-seen") == "yes"

The engine runs in the process of the test, so that policies may be defined there (`classes`).
"""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from bus.resources.rest_api import PolicyRef, RestApi
from policy_engine.catalogue import Catalogue, load
from policy_engine.engine.call import Call
from policy_engine.engine.hops import hops_of
from policy_engine.engine.outside import opened
from policy_engine.engine.runtime import Runtime
from policy_engine.hop import ENGINE_CLUSTER, HOP_FIELD
from policy_engine.policy import Policy, typed
from policy_engine.refusals import local_reply_config
from policy_engine.system import SystemParameters
from tests.servers.envoy import Envoy
from tests.servers.http_backend import Answer, HttpBackend, Received, echo, http_backend
from tests.xds.routing import router
from xds.bootstrap import service_cluster
from xds.wire.h2 import H2Server, Limits, serve_stream

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_DEADLINE_S = 30
_FILE_LOG = "envoy.extensions.access_loggers.file.v3.FileAccessLog"


def ref(name: str, /, **params: Any) -> PolicyRef:
    """A policy as an API names it; `executionCondition`, `mode`, `failureMode` and `timeout` are
    keywords of the reference, everything else is a parameter."""
    own = ("executionCondition", "mode", "failureMode", "timeout")
    given = {key: params.pop(key) for key in own if key in params}
    return PolicyRef.model_validate({"name": name, "params": params, **given})


@dataclass
class PythonGateway:
    """All that runs."""

    client: httpx.AsyncClient
    backend: HttpBackend
    envoy: Envoy
    engine: H2Server
    runtime: Runtime
    api: RestApi
    url: str
    _log: Path = field(repr=False)

    async def logged(self, count: int = 1) -> list[dict[str, Any]]:
        """The access log once it has `count` entries: `status`, `details` and dynamic `metadata`
        and `shadow` of each request."""
        async with asyncio.timeout(_DEADLINE_S):
            while True:
                lines = self._log.read_text().splitlines() if self._log.exists() else []
                if len(lines) >= count:
                    return [json.loads(line) for line in lines]
                await asyncio.sleep(0.02)

    def publish(self, api: RestApi) -> None:
        """The engine learns the hops of another API, too."""
        learn(self.runtime, api)


def learn(runtime: Runtime, api: RestApi) -> None:
    """`runtime` knows the hops of `api`."""
    runtime.learn({hop.name: hop.document() for hop in hops_of(api, runtime.catalogue)})


def python_api(
    policies: Sequence[PolicyRef],
    operations: Mapping[str, Sequence[PolicyRef]] | None,
    upstream: str,
    **spec: Any,
) -> RestApi:
    """An API at `/`; `operations`: policies by `METHOD /path`, every method of `/*` without."""

    def told(refs: Sequence[PolicyRef]) -> list[dict[str, Any]]:
        return [one.model_dump(mode="json", by_alias=True, exclude_unset=True) for one in refs]

    paths = operations if operations is not None else {f"{one} /*": () for one in METHODS}
    written = [
        {"method": method, "path": path, "policies": told(refs)}
        for (method, _, path), refs in ((key.partition(" "), refs) for key, refs in paths.items())
    ]
    return RestApi.model_validate(
        {
            "apiVersion": "gateway.api-platform.wso2.com/v1",
            "kind": "RestApi",
            "metadata": {"name": "tried"},
            "spec": {
                "displayName": "Tried",
                "version": "v1",
                "context": "/",
                "upstream": {"main": {"url": upstream}},
                "policies": told(policies),
                "operations": written,
                **spec,
            },
        }
    )


def catalogue_with(classes: Iterable[type[Policy]], system: SystemParameters | None) -> Catalogue:
    """The included policies and `classes`."""
    included = load((), system=system)
    return Catalogue((*included, *classes), included.broken, included.system)


def access_log(path: Path) -> dict[str, Any]:
    """A file with one JSON object per request."""
    log = typed(
        _FILE_LOG,
        {
            "path": str(path),
            "log_format": {
                "json_format": {
                    "status": "%RESPONSE_CODE%",
                    "details": "%RESPONSE_CODE_DETAILS%",
                    "metadata": "%DYNAMIC_METADATA(signalbox)%",
                    "shadow": "%DYNAMIC_METADATA(signalbox.shadow)%",
                }
            },
        },
    )
    return {"name": "envoy.access_loggers.file", "typed_config": log}


@asynccontextmanager
async def python_gateway(
    policies: Sequence[PolicyRef] = (),
    operations: Mapping[str, Sequence[PolicyRef]] | None = None,
    *,
    classes: Iterable[type[Policy]] = (),
    upstream: Callable[[Received], Answer] = echo,
    system: SystemParameters | None = None,
    settings: Mapping[str, Any] | None = None,
    **spec: Any,
) -> AsyncIterator[PythonGateway]:
    """Envoy with one API, its Python policies run by an engine in this process.

    `classes`: policies beside the included ones; `settings`: of xds; `spec`: more of the API's.
    """
    catalogue = catalogue_with(classes, system)
    max_body_bytes = dict(settings or {}).get("engine_max_body_bytes", 1 << 20)
    max_answer_bytes = dict(settings or {}).get("engine_max_answer_bytes", 4 << 20)
    with tempfile.TemporaryDirectory(prefix="engine-") as folder:
        socket, log = Path(folder) / "engine.sock", Path(folder) / "access.log"
        async with opened() as outside, http_backend(upstream) as backend:
            runtime = Runtime(
                catalogue,
                outside,
                max_body_bytes=max_body_bytes,
                max_answer_bytes=max_answer_bytes,
            )
            api = python_api(policies, operations, backend.url, **spec)
            learn(runtime, api)
            longest = max(max_body_bytes, max_answer_bytes)
            limits = Limits(message_max_bytes=longest + (1 << 20), drain_timeout_s=0.5)
            async with (
                serve_stream(
                    lambda stream: Call(runtime, stream),
                    path=socket,
                    limits=limits,
                    field=HOP_FIELD,
                ) as h2,
                router(
                    api,
                    settings=settings,
                    catalogue=catalogue,
                    local_reply=local_reply_config(catalogue.refusals()),
                    access_log=access_log(log),
                    more_clusters=[service_cluster(ENGINE_CLUSTER, [socket])],
                ) as running,
            ):
                running.client.timeout = httpx.Timeout(_DEADLINE_S)
                yield PythonGateway(
                    client=running.client,
                    backend=backend,
                    envoy=running.envoy,
                    engine=h2,
                    runtime=runtime,
                    api=api,
                    url=str(running.client.base_url),
                    _log=log,
                )
            await runtime.close()
