"""`/applications`: who calls, with which keys and subscriptions."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from controller.applications import Applications
from controller.auth import Principal, require
from controller.rest.answers import answer, key_view, resource_view
from controller.rest.openapi import deleted, errors, extra, listing, shown
from controller.rest.requests import body

Who = Annotated[Principal, Depends(require("admin"))]

_APPLICATION = "Application"


def router(base: str) -> APIRouter:
    """The routes of this module below `base`."""
    routes = APIRouter(prefix=f"{base}/applications", tags=["Subscriptions"])

    @routes.post(
        "",
        status_code=201,
        summary="Create an application",
        description=(
            "Its keys are those whose display name is its name or id; only admins and its owner "
            "may create them."
        ),
        responses={201: shown(_APPLICATION, "Created"), **errors(400, 409)},
        openapi_extra=extra(body="ApplicationRequest"),
    )
    async def create(request: Request, who: Who) -> Response:
        row = await _applications(request).create(await body(request), who)
        return answer(resource_view(row), 201)

    @routes.get(
        "",
        summary="List applications",
        responses={200: listing("applications", _APPLICATION), **errors()},
    )
    async def list_all(request: Request, _who: Who) -> Response:
        found = [resource_view(row) for row in await _applications(request).list()]
        return answer({"status": "success", "count": len(found), "applications": found})

    @routes.get(
        "/{id}",
        summary="Show an application",
        responses={200: shown(_APPLICATION, "The application"), **errors(404)},
        openapi_extra=extra(path="id"),
    )
    async def show(request: Request, _who: Who) -> Response:
        return answer(resource_view(await _applications(request).get(request.path_params["id"])))

    @routes.put(
        "/{id}",
        summary="Change an application; what is not named stays, null clears",
        responses={200: shown(_APPLICATION, "Changed"), **errors(400, 404, 409)},
        openapi_extra=extra(path="id", body="ApplicationUpdateRequest"),
    )
    async def replace(request: Request, who: Who) -> Response:
        name, document = request.path_params["id"], await body(request)
        return answer(resource_view(await _applications(request).replace(name, document, who)))

    @routes.delete(
        "/{id}",
        status_code=204,
        summary="Delete an application that has no subscription; its keys stay",
        responses={204: deleted(), **errors(404, 409)},
        openapi_extra=extra(path="id"),
    )
    async def delete(request: Request, who: Who) -> Response:
        await _applications(request).delete(request.path_params["id"], who)
        return Response(status_code=204)

    @routes.get(
        "/{id}/api-keys",
        summary="List the keys of an application, of all APIs",
        responses={200: shown("APIKeyListResponse", "Masked keys"), **errors(404)},
        openapi_extra=extra(path="id"),
    )
    async def keys(request: Request, _who: Who) -> Response:
        applications = _applications(request)
        rows = await applications.keys(request.path_params["id"])
        found = [key_view(row, applications.clock()) for row in rows]
        return answer({"status": "success", "totalCount": len(found), "apiKeys": found})

    return routes


def _applications(request: Request) -> Applications:
    applications: Applications = request.app.state.applications
    return applications
