"""`/subscription-plans`: how much subscribers may use."""

from fastapi import APIRouter, Request, Response

from controller.resources import AnyResource
from controller.rest.answers import Json, answer, resource_view
from controller.rest.collection import Who, Wording, add_routes
from controller.rest.openapi import errors, listing
from controller.subscription_plans import SubscriptionPlans

_WORDING = Wording(
    schema="SubscriptionPlan",
    create_schema="SubscriptionPlanRequest",
    replace_schema="SubscriptionPlanUpdateRequest",
    create_summary="Create a plan",
    show_summary="Show a plan",
    replace_summary="Change a plan; what is not named stays, null clears",
    delete_summary="Delete a plan that no subscription has",
    shown="The plan",
    parameter="planId",
    replace_description="Subscriptions to the plan follow at once.",
    kept=(409,),
)


def router(base: str) -> APIRouter:
    """The routes of this module below `base`."""
    routes = APIRouter(prefix=f"{base}/subscription-plans", tags=["Subscriptions"])
    add_routes(routes, _WORDING, _plans, _view)

    @routes.get(
        "",
        summary="List plans",
        responses={200: listing("subscriptionPlans", _WORDING.schema), **errors()},
    )
    async def list_all(request: Request, _who: Who) -> Response:
        found = [_view(request, row) for row in await _plans(request).list()]
        return answer({"status": "success", "count": len(found), "subscriptionPlans": found})

    return routes


def _plans(request: Request) -> SubscriptionPlans:
    plans: SubscriptionPlans = request.app.state.subscription_plans
    return plans


def _view(request: Request, row: AnyResource) -> Json:
    return resource_view(row, request.app.state.gateway_id)
