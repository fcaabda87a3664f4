"""`/rest-apis/{id}/api-keys`: the keys of an API."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from controller.auth import Principal, require
from controller.keys import Issued, Keys
from controller.rest.answers import answer, key_view
from controller.rest.openapi import errors, extra, shown
from controller.rest.requests import body

Who = Annotated[Principal, Depends(require("admin", "consumer"))]

_KEY = shown("APIKeyCreationResponse", "The key; in full only when it was made up here just now")


def router(base: str) -> APIRouter:
    """The routes of this module below `base`."""
    routes = APIRouter(prefix=f"{base}/rest-apis/{{id}}/api-keys", tags=["API keys"])

    @routes.post(
        "",
        status_code=201,
        summary="Create a key, or take over one issued elsewhere",
        responses={201: _KEY, **errors(400, 404, 409)},
        openapi_extra=extra(named=True, body="APIKeyCreationRequest", optional=True),
    )
    async def create(request: Request, who: Who) -> Response:
        keys: Keys = request.app.state.keys
        document = await body(request, optional=True)
        issued = await keys.create(request.path_params["id"], document, who)
        return _issued(keys, issued, "API key created successfully", 201)

    @routes.get(
        "",
        summary="List keys: admins see all, others their own",
        responses={200: shown("APIKeyListResponse", "Masked keys"), **errors(404)},
        openapi_extra=extra(named=True),
    )
    async def list_all(request: Request, who: Who) -> Response:
        keys: Keys = request.app.state.keys
        rows = await keys.list(request.path_params["id"], who)
        now = keys.clock()
        found = [key_view(row, now) for row in rows]
        return answer({"status": "success", "totalCount": len(found), "apiKeys": found})

    @routes.put(
        "/{name}",
        summary="Change a key; the value only of one issued elsewhere",
        responses={200: _KEY, **errors(400, 404, 409)},
        openapi_extra=extra(key=True, body="APIKeyUpdateRequest"),
    )
    async def update(request: Request, who: Who) -> Response:
        keys: Keys = request.app.state.keys
        document = await body(request)
        issued = await keys.update(*_path(request), document, who)
        return _issued(keys, issued, "API key updated successfully")

    @routes.post(
        "/{name}/regenerate",
        summary="Give a key a new value; the old one ends",
        responses={200: _KEY, **errors(400, 404)},
        openapi_extra=extra(key=True, body="APIKeyRegenerationRequest", optional=True),
    )
    async def regenerate(request: Request, who: Who) -> Response:
        keys: Keys = request.app.state.keys
        document = await body(request, optional=True)
        issued = await keys.regenerate(*_path(request), document, who)
        return _issued(keys, issued, "API key regenerated successfully")

    @routes.delete(
        "/{name}",
        summary="Revoke a key; an unknown key is no error",
        responses={200: shown("Done", "Revoked"), **errors(404)},
        openapi_extra=extra(key=True),
    )
    async def revoke(request: Request, who: Who) -> Response:
        keys: Keys = request.app.state.keys
        await keys.revoke(*_path(request), who)
        return answer({"status": "success", "message": "API key revoked successfully"})

    return routes


def _path(request: Request) -> tuple[str, str]:
    return request.path_params["id"], request.path_params["name"]


def _issued(keys: Keys, issued: Issued, message: str, status: int = 200) -> Response:
    return answer(
        {
            "status": "success",
            "message": message,
            "remainingApiKeyQuota": issued.remaining,
            "apiKey": key_view(issued.row, keys.clock(), issued.plain),
        },
        status,
    )
