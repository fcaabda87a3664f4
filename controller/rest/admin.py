"""The controller's admin API: health, the version of the state, a dump of the configuration."""

from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from bus.resources.rest_api import PolicyRef
from controller.apis import Apis
from controller.auth import Principal, Users, require
from controller.errors import Refused, StorageError, Unauthenticated
from controller.metrics import ControllerMetrics, program_version
from controller.model import ApiFilter, StoredApi
from controller.ports import ControllerBus, PolicyCatalogue
from controller.rest.answers import answer, moment, resource
from controller.settings import ControllerSettings
from policy_engine.errors import PolicyError

BASE = "/api/admin/v1"
Admin = Annotated[Principal, Depends(require("admin"))]


def _now() -> str | None:
    return moment(datetime.now(UTC))


def create_admin_app(
    *, settings: ControllerSettings, apis: Apis, users: Users, bus: ControllerBus
) -> FastAPI:
    """The admin API below BASE."""
    app = FastAPI(
        title="Signalbox controller admin API",
        version=program_version(),
        openapi_url=f"{BASE}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"metrics": False, "logs": False, "operation_spans": False},
    )
    app.state.users = users

    @app.get(f"{BASE}/health", summary="Whether the controller works; 503 when the record fails")
    async def health() -> Response:
        try:
            await apis.record.version()
        except StorageError as error:
            body = {"status": "unhealthy", "timestamp": _now(), "reason": str(error)}
            return answer(body, HTTPStatus.SERVICE_UNAVAILABLE)
        state = "healthy" if bus.connected else "degraded"
        return answer({"status": state, "timestamp": _now()})

    @app.get(f"{BASE}/xds_sync_status", summary="The version of the state that was accepted")
    async def xds_sync_status(_who: Admin) -> Response:
        return answer(
            {
                "component": "gateway-controller",
                "timestamp": _now(),
                "policy_chain_version": str(await apis.record.version()),
            }
        )

    if settings.config_dump_enabled:

        @app.get(f"{BASE}/config_dump", summary="All configuration, secret parameters masked")
        async def config_dump(_who: Admin) -> Response:
            return answer(await _dump(apis))

    _answer_errors(app)
    return app


async def _dump(apis: Apis) -> dict[str, Any]:
    rows = await apis.list(ApiFilter())
    policies = sorted({(ref.name, ref.version) for row in rows for ref in _policies(row)})
    version = str(await apis.record.version())
    return {
        "status": "success",
        "timestamp": _now(),
        "apis": [
            {
                "id": row.handle,
                "kind": "RestApi",
                "configuration": _masked(resource(row, apis.deployments), apis.catalogue),
            }
            for row in rows
        ],
        "policies": [{"name": name, "version": major} for name, major in policies],
        "certificates": [],
        "statistics": {
            "totalApis": len(rows),
            "totalPolicies": len(policies),
            "totalCertificates": 0,
            "totalCertificateBytes": 0,
        },
        "xds_sync": {
            "component": "gateway-controller",
            "timestamp": _now(),
            "policy_chain_version": version,
        },
    }


def _masked(document: dict[str, Any], catalogue: PolicyCatalogue) -> dict[str, Any]:
    """`document` without the secrets in the parameters of its policies."""
    spec = document["spec"]
    for holder in (spec, *spec["operations"]):
        for ref in holder.get("policies", ()):
            try:
                ref["params"] = catalogue.parse(PolicyRef.model_validate(ref)).masked()
            except PolicyError:  # nobody knows any more which of them are secret
                ref["params"] = {}
    return document


def _policies(row: StoredApi) -> list[PolicyRef]:
    spec = row.document()["spec"]
    attached = [spec.get("policies", []), *(one.get("policies", []) for one in spec["operations"])]
    return [PolicyRef.model_validate(ref) for chain in attached for ref in chain]


def _answer_errors(app: FastAPI) -> None:
    def failure(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
        return answer({"code": status, "message": message}, status, headers)

    @app.exception_handler(Refused)
    async def refused(_request: Request, error: Refused) -> Response:
        wanted = {"WWW-Authenticate": 'Basic realm="Signalbox admin", charset="UTF-8"'}
        headers = wanted if isinstance(error, Unauthenticated) else None
        return failure(error.status, str(error), headers)

    @app.exception_handler(StorageError)
    async def unavailable(_request: Request, error: StorageError) -> Response:
        return failure(HTTPStatus.SERVICE_UNAVAILABLE, str(error))

    @app.exception_handler(HTTPException)
    async def http_error(_request: Request, error: HTTPException) -> Response:
        return failure(error.status_code, error.detail)


def create_metrics_app(metrics: ControllerMetrics, apis: Apis) -> Starlette:
    """`/metrics` in Prometheus' text format."""

    async def show(_request: Request) -> Response:
        with suppress(StorageError):  # it is counted, and the other metrics matter all the more
            metrics.counted(await apis.record.counts())
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/metrics", show)])
