"""The management API as one application."""

from collections.abc import Sequence
from http import HTTPStatus
from importlib.resources import files
from typing import Any

import structlog
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from bus.resources.faults import field_path
from controller.apis import Apis
from controller.applications import Applications
from controller.auth import Users, require
from controller.errors import Invalid, Refused, StorageError, Unauthenticated
from controller.keys import Keys
from controller.metrics import ControllerMetrics, program_version
from controller.quota import SubscriptionUsage
from controller.rest import api_keys, applications, rest_apis, subscription_plans, subscriptions
from controller.rest.answers import answer, refusal
from controller.rest.guards import Measure, SameOrigin
from controller.rest.openapi import document
from controller.settings import ControllerSettings
from controller.subscription_plans import SubscriptionPlans
from controller.subscriptions import Subscriptions

log = structlog.get_logger()

BASE = "/api/management/v1"

_DOCS_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'"
_ASSETS = {"docs.js": "text/javascript", "docs.css": "text/css"}


def create_app(
    *,
    settings: ControllerSettings,
    apis: Apis,
    keys: Keys,
    users: Users,
    metrics: ControllerMetrics,
    gateway_id: str = "default",
    time_zone: str = "UTC",
    usage: SubscriptionUsage | None = None,
    extra_routers: Sequence[APIRouter] = (),
) -> FastAPI:
    """The management API below BASE; `extra_routers` too, for admins and developers.

    `time_zone`: whose calendar the periods of plans are that do not say it.
    `usage`: who counts what subscriptions use; None: nobody here.
    """
    app = FastAPI(
        title="Signalbox management API",
        description="What the gateway serves: APIs, their keys, and on how many routers they are.",
        version=program_version(),
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"metrics": False, "logs": False, "operation_spans": False},
        middleware=[Middleware(Measure, metrics=metrics), Middleware(SameOrigin)],
    )
    app.state.settings = settings
    app.state.apis = apis
    app.state.keys = keys
    app.state.subscription_plans = SubscriptionPlans(apis.record, apis.clock)
    app.state.subscriptions = Subscriptions(apis.record, apis.clock)
    app.state.subscription_usage = usage
    app.state.applications = Applications(apis.record, apis.clock)
    app.state.gateway_id = gateway_id
    app.state.time_zone = time_zone
    app.state.users = users
    app.state.metrics = metrics
    app.include_router(rest_apis.router(BASE))
    app.include_router(api_keys.router(BASE))
    app.include_router(subscription_plans.router(BASE))
    app.include_router(subscriptions.router(BASE))
    app.include_router(applications.router(BASE))
    app.include_router(rest_apis.fleet(BASE))
    for router in extra_routers:
        app.include_router(
            router, prefix=BASE, dependencies=[Depends(require("admin", "developer"))]
        )
    _document(app)
    answer_errors(app)
    return app


def _document(app: FastAPI) -> None:
    @app.get(f"{BASE}/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return answer(document(app))

    async def page() -> Response:
        headers = {"Content-Security-Policy": _DOCS_POLICY}
        return Response(_asset("docs.html"), headers=headers, media_type="text/html")

    for path in ("/docs", f"{BASE}/docs"):
        app.add_api_route(path, page, methods=["GET"], include_in_schema=False)

    @app.get(f"{BASE}/docs/{{name}}", include_in_schema=False)
    async def asset(name: str) -> Response:
        if name not in _ASSETS:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return Response(_asset(name), media_type=_ASSETS[name])


def _asset(name: str) -> bytes:
    return files("controller.rest").joinpath(name).read_bytes()


def answer_errors(app: FastAPI) -> None:
    """Every error in the one shape of the contract; `app.state.metrics` counts them."""

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        faults = None
        metrics: ControllerMetrics = request.app.state.metrics
        if isinstance(error, Invalid):
            faults = [{"field": one.field, "message": one.message} for one in error.faults]
            metrics.validation_errors.labels("RestApi").inc(max(1, len(faults)))
        headers = (
            {"WWW-Authenticate": 'Basic realm="Signalbox", charset="UTF-8"'}
            if isinstance(error, Unauthenticated)
            else None
        )
        return answer(refusal(str(error), faults), error.status, headers)

    @app.exception_handler(StorageError)
    async def unavailable(request: Request, error: StorageError) -> Response:
        _count(request, error)
        log.error("the record failed", path=request.url.path, reason=str(error))
        return answer(refusal(f"Try again: {error}"), 503, {"Retry-After": "1"})

    @app.exception_handler(RequestValidationError)
    async def bad_query(_request: Request, error: RequestValidationError) -> Response:
        faults: list[dict[str, Any]] = [
            {"field": field_path(one["loc"][1:]), "message": one["msg"]} for one in error.errors()
        ]
        return answer(refusal("Invalid request parameters", faults), 400)

    @app.exception_handler(HTTPException)
    async def http_error(_request: Request, error: HTTPException) -> Response:
        return answer(refusal(error.detail), error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def fault(request: Request, error: Exception) -> Response:
        _count(request, error)
        log.error("request failed", path=request.url.path, exc_info=error)
        return answer(refusal("Internal error: see the gateway's log"), 500)


def _count(request: Request, error: Exception) -> None:
    metrics: ControllerMetrics = request.app.state.metrics
    metrics.errors.labels("rest", type(error).__name__).inc()
