"""The engine's admin API and its metrics. Nothing here changes anything."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from bus.resources.rest_api import RestApi
from policy_engine.catalogue import Catalogue
from policy_engine.engine.dump import policy_chains, registry, route_metadata, routes, workers
from policy_engine.engine.feed import Feed
from policy_engine.engine.metrics import EngineMetrics
from policy_engine.engine.model import Model
from policy_engine.engine.settings import Network

_COMPONENT = "policy-engine"


def create_admin_app(
    model: Model,
    catalogue: Catalogue,
    allowed: Sequence[Network],
    connected: Callable[[], bool],
    feed: Feed,
) -> Starlette:
    """Health, synchronisation and configuration, for callers in the networks `allowed`."""

    async def health(_request: Request) -> Response:
        state = "healthy" if connected() else "degraded"
        return _answer({"status": state, "timestamp": _now()})

    async def xds_sync_status(_request: Request) -> Response:
        return _answer(_sync(model))

    async def config_dump(_request: Request) -> Response:
        apis, synchronised = tuple(model.deployed()), _sync(model)
        return await run_in_threadpool(_dump, apis, synchronised)

    def _dump(apis: Sequence[RestApi], synchronised: dict[str, str]) -> Response:
        found = tuple(routes(apis))
        return _answer(
            {
                "timestamp": _now(),
                "policy_registry": registry(catalogue),
                "policy_chains": policy_chains(found, catalogue),
                "route_metadata": route_metadata(found),
                "lazy_resources": {"total_resources": 0, "resources_by_type": {}},
                "xds_sync": synchronised,
                "workers": workers(feed),
            }
        )

    return Starlette(
        routes=[
            Route("/health", health),
            Route("/xds_sync_status", xds_sync_status),
            Route("/config_dump", config_dump),
        ],
        middleware=[Middleware(_AllowedOnly, allowed=allowed)],
        exception_handlers={HTTPException: _refused},
    )


def create_metrics_app(metrics: EngineMetrics, connected: Callable[[], bool]) -> Starlette:
    """Prometheus metrics at /metrics."""

    async def expose(_request: Request) -> Response:
        metrics.xds_connection_state.set(connected())
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[Route("/metrics", expose)], exception_handlers={HTTPException: _refused}
    )


class _AllowedOnly:
    """Refuses callers from elsewhere; the address is that of the connection, never a header."""

    def __init__(self, app: ASGIApp, allowed: Sequence[Network]) -> None:
        self._app = app
        self._allowed = allowed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._may(scope.get("client")):
            await _error(403, "This address may not use the admin API")(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _may(self, client: tuple[str, int] | None) -> bool:
        if client is None:
            return False
        address = ip_address(client[0].partition("%")[0])
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._allowed)


def _sync(model: Model) -> dict[str, str]:
    return {
        "component": _COMPONENT,
        "timestamp": _now(),
        "policy_chain_version": str(model.version),
    }


def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _error(error.status_code, error.detail, error.headers)


def _error(status: int, message: str, headers: Any = None) -> Response:  # noqa: ANN401  (Starlette's)
    return _answer({"status": "error", "message": message}, status, headers)


def _answer(body: dict[str, Any], status: int = 200, headers: Any = None) -> Response:  # noqa: ANN401
    return Response(orjson.dumps(body), status, headers, media_type="application/json")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
