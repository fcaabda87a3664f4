"""Routes that plans, subscriptions and applications have alike."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Request, Response

from controller.auth import Principal, require
from controller.resources import AnyResource
from controller.rest.answers import Json, answer
from controller.rest.openapi import deleted, errors, extra, shown
from controller.rest.requests import body

Who = Annotated[Principal, Depends(require("admin"))]


class UseCases(Protocol):
    """What admins may do with one kind of resources."""

    async def create(self, document: dict[str, Any], who: Principal) -> AnyResource:
        """A new one."""
        ...

    async def replace(self, name: str, document: dict[str, Any], who: Principal) -> AnyResource:
        """The one of that id, changed."""
        ...

    async def delete(self, name: str, who: Principal) -> None:
        """It is gone."""
        ...

    async def get(self, name: str) -> AnyResource:
        """The one of that id."""
        ...


@dataclass(frozen=True, slots=True)
class Wording:
    """How the OpenAPI document speaks of one kind."""

    schema: str
    create_schema: str
    replace_schema: str
    create_summary: str
    show_summary: str
    replace_summary: str
    delete_summary: str
    shown: str  # what an answer with one holds
    parameter: str = "id"  # of its id in paths
    create_description: str | None = None
    replace_description: str | None = None
    kept: tuple[int, ...] = ()  # the status of deleting one that must stay


def add_routes(
    routes: APIRouter,
    wording: Wording,
    use_cases: Callable[[Request], UseCases],
    view: Callable[[Request, AnyResource], Json],
) -> None:
    """To create, show, change and delete one."""
    one = f"/{{{wording.parameter}}}"

    def name_in(request: Request) -> str:
        name: str = request.path_params[wording.parameter]
        return name

    @routes.post(
        "",
        status_code=201,
        summary=wording.create_summary,
        description=wording.create_description,
        responses={201: shown(wording.schema, "Created"), **errors(400, 409)},
        openapi_extra=extra(body=wording.create_schema),
    )
    async def create(request: Request, who: Who) -> Response:
        row = await use_cases(request).create(await body(request), who)
        return answer(view(request, row), 201)

    @routes.get(
        one,
        summary=wording.show_summary,
        responses={200: shown(wording.schema, wording.shown), **errors(404)},
        openapi_extra=extra(path=wording.parameter),
    )
    async def show(request: Request, _who: Who) -> Response:
        return answer(view(request, await use_cases(request).get(name_in(request))))

    @routes.put(
        one,
        summary=wording.replace_summary,
        description=wording.replace_description,
        responses={200: shown(wording.schema, "Changed"), **errors(400, 404, 409)},
        openapi_extra=extra(path=wording.parameter, body=wording.replace_schema),
    )
    async def replace(request: Request, who: Who) -> Response:
        name, document = name_in(request), await body(request)
        return answer(view(request, await use_cases(request).replace(name, document, who)))

    @routes.delete(
        one,
        status_code=204,
        summary=wording.delete_summary,
        responses={204: deleted(), **errors(404, *wording.kept)},
        openapi_extra=extra(path=wording.parameter),
    )
    async def delete(request: Request, who: Who) -> Response:
        await use_cases(request).delete(name_in(request), who)
        return Response(status_code=204)
