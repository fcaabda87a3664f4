"""`/applications`: who calls, with which keys and subscriptions."""

from fastapi import APIRouter, Request, Response

from controller.applications import Applications
from controller.resources import AnyResource
from controller.rest.answers import Json, answer, key_view, resource_view
from controller.rest.collection import Who, Wording, add_routes
from controller.rest.openapi import errors, extra, listing, shown

_WORDING = Wording(
    schema="Application",
    create_schema="ApplicationRequest",
    replace_schema="ApplicationUpdateRequest",
    create_summary="Create an application",
    show_summary="Show an application",
    replace_summary="Change an application; what is not named stays, null clears",
    delete_summary="Delete an application that has no subscription; its keys stay",
    shown="The application",
    create_description=(
        "Its keys are those whose display name is its name or id; only admins and its owner may "
        "create them."
    ),
    kept=(409,),
)


def router(base: str) -> APIRouter:
    """The routes of this module below `base`."""
    routes = APIRouter(prefix=f"{base}/applications", tags=["Subscriptions"])

    add_routes(routes, _WORDING, _applications, _view)

    @routes.get(
        "",
        summary="List applications",
        responses={200: listing("applications", _WORDING.schema), **errors()},
    )
    async def list_all(request: Request, _who: Who) -> Response:
        found = [resource_view(row) for row in await _applications(request).list()]
        return answer({"status": "success", "count": len(found), "applications": found})

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


def _view(_request: Request, row: AnyResource) -> Json:
    return resource_view(row)
