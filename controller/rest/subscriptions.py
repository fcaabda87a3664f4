"""`/subscriptions`: who may use which API by which plan, and how much of it they have used."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from bus.resources.subscription import SubscriptionStatus
from controller.errors import UsageUnavailable
from controller.quota import SubscriptionUsage, period
from controller.resources import AnyResource, ResourceFilter
from controller.rest.answers import Json, answer, moment, refusal, resource_view
from controller.rest.collection import Who, Wording, add_routes
from controller.rest.openapi import errors, extra, listing, shown
from controller.subscriptions import Row, Subscriptions

_WORDING = Wording(
    schema="Subscription",
    create_schema="SubscriptionCreateRequest",
    replace_schema="SubscriptionUpdateRequest",
    create_summary="Subscribe to an API; the token is kept as a digest only",
    show_summary="Show a subscription",
    replace_summary="Change, suspend, resume or revoke a subscription; what is not named stays",
    delete_summary="Delete a subscription",
    shown="Without its token",
)
_RETRY_S = "5"


def router(base: str) -> APIRouter:
    """The routes of this module below `base`."""
    routes = APIRouter(prefix=f"{base}/subscriptions", tags=["Subscriptions"])

    add_routes(routes, _WORDING, _subscriptions, _view)

    @routes.get(
        "",
        summary="List subscriptions",
        responses={200: listing("subscriptions", _WORDING.schema), **errors(400)},
    )
    async def list_all(
        request: Request,
        _who: Who,
        api_id: Annotated[str | None, Query(alias="apiId")] = None,
        application_id: Annotated[str | None, Query(alias="applicationId")] = None,
        plan_id: Annotated[str | None, Query(alias="subscriptionPlanId")] = None,
        status: SubscriptionStatus | None = None,
        digest: Annotated[
            str | None,
            Query(
                alias="subscriptionTokenDigest",
                description="Only the one whose token has this SHA-256, in lower-case hex",
            ),
        ] = None,
    ) -> Response:
        wanted = ResourceFilter(api_id, plan_id, application_id)
        rows = await _subscriptions(request).list(wanted, status, digest)
        found = [_view(request, row) for row in rows]
        return answer({"status": "success", "count": len(found), "subscriptions": found})

    @routes.get(
        "/{id}/usage",
        summary="What a subscription has used of its plan",
        description=(
            "Counted from the routers' access logs, so a second or two late. Periods are those of "
            "the calendar in the plan's time zone, else the gateway's; without a limit, the month."
        ),
        responses={200: shown("SubscriptionUsage", "Used and left"), **errors(404)},
        openapi_extra=extra(path="id"),
    )
    async def usage(request: Request, _who: Who) -> Response:
        row = await _subscriptions(request).get(request.path_params["id"])
        try:
            return answer(await _usage(request, row))
        except UsageUnavailable as error:
            return answer(refusal(f"Try again: {error}"), 503, {"Retry-After": _RETRY_S})

    return routes


async def _usage(request: Request, row: Row) -> Json:
    counted: SubscriptionUsage | None = request.app.state.subscription_usage
    if counted is None:
        raise UsageUnavailable("this process does not read what was served")
    subscriptions = _subscriptions(request)
    one, plan = row.resource, await subscriptions.plan_of(row)
    now = subscriptions.clock()
    limit = plan.throttle_limit_count if plan else None
    time_zone = (plan.time_zone if plan else None) or request.app.state.time_zone
    span = period((plan.throttle_limit_unit if plan else None) or "Month", now, time_zone)
    served = await counted.of_subscription(one.id, span.start, span.end)
    found: Json = {
        "status": "success",
        "subscriptionId": one.id,
        "apiId": one.api_id,
        "subscriptionPlanId": one.subscription_plan_id,
        "planName": plan.plan_name if plan else None,
        "from": moment(span.start),
        "used": served.passed,
        "refused": served.refused,
        "limit": limit,
        "unit": plan.throttle_limit_unit if plan else None,
        "timeZone": time_zone,
        "remaining": None if limit is None else max(0, limit - served.passed),
        "resetsAt": moment(span.end),
        "stopOnQuotaReach": plan.stop_on_quota_reach if plan and limit is not None else None,
    }
    return found


def _subscriptions(request: Request) -> Subscriptions:
    subscriptions: Subscriptions = request.app.state.subscriptions
    return subscriptions


def _view(request: Request, row: AnyResource) -> Json:
    return resource_view(row, request.app.state.gateway_id)
