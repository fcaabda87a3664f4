"""`/subscription-plans`: how much subscribers may use."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from controller.auth import Principal, require
from controller.rest.answers import answer, resource_view
from controller.rest.openapi import deleted, errors, extra, listing, shown
from controller.rest.requests import body
from controller.subscription_plans import Plan, SubscriptionPlans

Who = Annotated[Principal, Depends(require("admin"))]

_PLAN = "SubscriptionPlan"


def router(base: str) -> APIRouter:
    """The routes of this module below `base`."""
    routes = APIRouter(prefix=f"{base}/subscription-plans", tags=["Subscriptions"])

    @routes.post(
        "",
        status_code=201,
        summary="Create a plan",
        responses={201: shown(_PLAN, "Created"), **errors(400, 409)},
        openapi_extra=extra(body="SubscriptionPlanRequest"),
    )
    async def create(request: Request, who: Who) -> Response:
        row = await _plans(request).create(await body(request), who)
        return answer(_view(request, row), 201)

    @routes.get(
        "",
        summary="List plans",
        responses={200: listing("subscriptionPlans", _PLAN), **errors()},
    )
    async def list_all(request: Request, _who: Who) -> Response:
        found = [_view(request, row) for row in await _plans(request).list()]
        return answer({"status": "success", "count": len(found), "subscriptionPlans": found})

    @routes.get(
        "/{planId}",
        summary="Show a plan",
        responses={200: shown(_PLAN, "The plan"), **errors(404)},
        openapi_extra=extra(path="planId"),
    )
    async def show(request: Request, _who: Who) -> Response:
        return answer(_view(request, await _plans(request).get(request.path_params["planId"])))

    @routes.put(
        "/{planId}",
        summary="Change a plan; what is not named stays, null clears",
        description="Subscriptions to the plan follow at once.",
        responses={200: shown(_PLAN, "Changed"), **errors(400, 404, 409)},
        openapi_extra=extra(path="planId", body="SubscriptionPlanUpdateRequest"),
    )
    async def replace(request: Request, who: Who) -> Response:
        name, document = request.path_params["planId"], await body(request)
        return answer(_view(request, await _plans(request).replace(name, document, who)))

    @routes.delete(
        "/{planId}",
        status_code=204,
        summary="Delete a plan that no subscription has",
        responses={204: deleted(), **errors(404, 409)},
        openapi_extra=extra(path="planId"),
    )
    async def delete(request: Request, who: Who) -> Response:
        await _plans(request).delete(request.path_params["planId"], who)
        return Response(status_code=204)

    return routes


def _plans(request: Request) -> SubscriptionPlans:
    plans: SubscriptionPlans = request.app.state.subscription_plans
    return plans


def _view(request: Request, row: Plan) -> dict[str, object]:
    return resource_view(row, request.app.state.gateway_id)
