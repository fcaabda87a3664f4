"""`/subscriptions`: who may use which API by which plan, and how much of it they have used."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from bus.resources.subscription import SubscriptionStatus
from controller.auth import Principal, require
from controller.errors import UsageUnavailable
from controller.quota import SubscriptionUsage, period
from controller.resources import ResourceFilter
from controller.rest.answers import answer, moment, refusal, resource_view
from controller.rest.openapi import deleted, errors, extra, listing, shown
from controller.rest.requests import body
from controller.subscriptions import Row, Subscriptions

Who = Annotated[Principal, Depends(require("admin"))]

_SUBSCRIPTION = "Subscription"
_RETRY_S = "5"


def router(base: str) -> APIRouter:
    """The routes of this module below `base`."""
    routes = APIRouter(prefix=f"{base}/subscriptions", tags=["Subscriptions"])

    @routes.post(
        "",
        status_code=201,
        summary="Subscribe to an API; the token is kept as a digest only",
        responses={201: shown(_SUBSCRIPTION, "Created"), **errors(400, 409)},
        openapi_extra=extra(body="SubscriptionCreateRequest"),
    )
    async def create(request: Request, who: Who) -> Response:
        row = await _subscriptions(request).create(await body(request), who)
        return answer(_view(request, row), 201)

    @routes.get(
        "",
        summary="List subscriptions",
        responses={200: listing("subscriptions", _SUBSCRIPTION), **errors(400)},
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
        "/{id}",
        summary="Show a subscription",
        responses={200: shown(_SUBSCRIPTION, "Without its token"), **errors(404)},
        openapi_extra=extra(path="id"),
    )
    async def show(request: Request, _who: Who) -> Response:
        row = await _subscriptions(request).get(request.path_params["id"])
        return answer(_view(request, row))

    @routes.put(
        "/{id}",
        summary="Change, suspend, resume or revoke a subscription; what is not named stays",
        responses={200: shown(_SUBSCRIPTION, "Changed"), **errors(400, 404, 409)},
        openapi_extra=extra(path="id", body="SubscriptionUpdateRequest"),
    )
    async def replace(request: Request, who: Who) -> Response:
        name, document = request.path_params["id"], await body(request)
        return answer(_view(request, await _subscriptions(request).replace(name, document, who)))

    @routes.delete(
        "/{id}",
        status_code=204,
        summary="Delete a subscription",
        responses={204: deleted(), **errors(404)},
        openapi_extra=extra(path="id"),
    )
    async def delete(request: Request, who: Who) -> Response:
        await _subscriptions(request).delete(request.path_params["id"], who)
        return Response(status_code=204)

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


async def _usage(request: Request, row: Row) -> dict[str, Any]:
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
    found: dict[str, Any] = {
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


def _view(request: Request, row: Row) -> dict[str, Any]:
    return resource_view(row, request.app.state.gateway_id)
