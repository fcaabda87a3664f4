"""`/rest-apis`: REST APIs, and what the routers made of them."""

import asyncio
from time import monotonic
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response

from controller.apis import Apis
from controller.auth import Principal, require
from controller.model import ApiFilter
from controller.rest.answers import answer, moment, offered, resource, tag
from controller.rest.openapi import errors, extra, listing, shown
from controller.rest.requests import body, if_revision
from controller.status import Deployments, Standing

_RENDERED_AT_ONCE = 50  # rows of a listing before others have their turn

may_write = require("admin", "developer")
Who = Annotated[Principal, Depends(may_write)]


def router(base: str) -> APIRouter:
    """The routes of this module below `base`."""
    routes = APIRouter(prefix=f"{base}/rest-apis", tags=["REST APIs"])

    @routes.post(
        "",
        status_code=201,
        summary="Create an API",
        responses={201: shown("RestAPI", "Created; routers get it at once"), **errors(400, 409)},
        openapi_extra=extra(body="RestAPIRequest"),
    )
    async def create(request: Request, who: Who) -> Response:
        apis: Apis = request.app.state.apis
        with request.app.state.metrics.api_operation("create"):
            row = await apis.create(await body(request), who)
        return answer(resource(row, apis.deployments), 201, tag(row))

    @routes.get("", summary="List APIs", responses={200: listing("apis", "RestAPI"), **errors(400)})
    async def list_all(
        request: Request,
        _who: Who,
        display_name: Annotated[str | None, Query(alias="displayName")] = None,
        version: str | None = None,
        context: Annotated[str | None, Query(description="with `$version` resolved")] = None,
        status: Literal["deployed", "undeployed"] | None = None,
        limit: Annotated[str | None, Query(description="accepted, without effect")] = None,
        offset: Annotated[str | None, Query(description="accepted, without effect")] = None,
    ) -> Response:
        del limit, offset
        apis: Apis = request.app.state.apis
        with request.app.state.metrics.api_operation("list"):
            rows = await apis.list(ApiFilter(display_name, version, context, status))
        found: list[dict[str, Any]] = []
        for start in range(0, len(rows), _RENDERED_AT_ONCE):
            part = rows[start : start + _RENDERED_AT_ONCE]
            found.extend(resource(row, apis.deployments) for row in part)
            await asyncio.sleep(0)
        return answer({"status": "success", "count": len(found), "apis": found})

    @routes.get(
        "/{id}",
        summary="Show an API",
        responses={200: shown("RestAPI", "As written", yaml=True), **errors(404)},
        openapi_extra=extra(named=True),
    )
    async def show(request: Request, _who: Who) -> Response:
        apis: Apis = request.app.state.apis
        with request.app.state.metrics.api_operation("get"):
            row = await apis.get(request.path_params["id"])
        return offered(request, resource(row, apis.deployments), tag(row))

    @routes.put(
        "/{id}",
        summary="Replace an API",
        description="The same document again changes nothing and keeps its revision.",
        responses={200: shown("RestAPI", "Replaced"), **errors(400, 404, 409, 412)},
        openapi_extra=extra(named=True, precondition=True, body="RestAPIRequest"),
    )
    async def replace(request: Request, who: Who) -> Response:
        apis: Apis = request.app.state.apis
        with request.app.state.metrics.api_operation("update"):
            row = await apis.replace(
                request.path_params["id"], await body(request), who, if_revision(request)
            )
        return answer(resource(row, apis.deployments), 200, tag(row))

    @routes.delete(
        "/{id}",
        summary="Delete an API and revoke its keys",
        responses={200: shown("Deleted", "Deleted"), **errors(400, 404, 412)},
        openapi_extra=extra(named=True, precondition=True),
    )
    async def delete(request: Request, who: Who) -> Response:
        apis: Apis = request.app.state.apis
        with request.app.state.metrics.api_operation("delete"):
            row = await apis.delete(request.path_params["id"], who, if_revision(request))
        return answer(
            {
                "status": "success",
                "message": "RestAPI deleted successfully",
                "id": row.handle,
                "revision": row.revision,
            }
        )

    @routes.get(
        "/{id}/status",
        summary="On how many routers a revision is live, waited for",
        description=(
            "Answers as soon as the revision (default: the last one) is live on all connected "
            "routers or is refused by one, or after `waitSeconds`. Also for deleted APIs: live "
            "then means that it is gone. A newer revision than the one asked for counts as well."
        ),
        responses={200: shown("Liveness", "Where it is live"), **errors(400, 404)},
        openapi_extra=extra(named=True),
    )
    async def status_of(
        request: Request,
        _who: Who,
        revision: Annotated[int | None, Query(ge=1)] = None,
        wait_s: Annotated[float, Query(alias="waitSeconds", ge=0, allow_inf_nan=False)] = 0,
    ) -> Response:
        apis: Apis = request.app.state.apis
        row = await apis.last(request.path_params["id"])
        wanted = revision or row.revision
        began = monotonic()
        standing = await apis.deployments.wait(
            row.handle,
            wanted,
            retired=row.retired,
            wait_s=min(wait_s, request.app.state.settings.status_wait_max_s),
        )
        return answer(
            {
                "id": row.handle,
                "revision": wanted,
                "state": "deleted" if row.retired else row.state,
                **_standing(standing),
                "elapsedMs": apis.deployments.elapsed_ms(row.handle, wanted),
                "waitedMs": round((monotonic() - began) * 1000),
                "updatedAt": moment(row.updated_at),
            }
        )

    return routes


def fleet(base: str) -> APIRouter:
    """`/routers`: the routers, and what they serve."""
    routes = APIRouter(prefix=f"{base}/routers", tags=["Routers"])

    @routes.get(
        "",
        summary="List routers",
        responses={200: listing("routers", "Router"), **errors()},
    )
    async def list_all(request: Request, _who: Who) -> Response:
        deployments: Deployments = request.app.state.apis.deployments
        found = [
            {
                "node": one.node,
                "version": one.version,
                "connected": one.connected,
                "revisions": one.revisions,
            }
            for _, one in sorted(deployments.routers.items())
            if one.connected
        ]
        return answer({"status": "success", "count": len(found), "routers": found})

    return routes


def _standing(standing: Standing) -> dict[str, Any]:
    return {
        "outcome": standing.outcome,
        "live": standing.live,
        "total": standing.total,
        "reason": standing.reason,
    }
