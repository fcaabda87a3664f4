"""What subscriptions refer to and nobody has: neither the files nor the gateway."""

from collections.abc import Sequence
from typing import Any

from ctl import kinds
from ctl.documents import Document
from ctl.shelf import Shelf

Json = dict[str, Any]


async def missing(shelf: Shelf, documents: Sequence[Document]) -> list[tuple[Document, Json]]:
    """Each problem, as `field` and `message`, with the document that has it."""
    concerned = [one for one in documents if one.kind is kinds.SUBSCRIPTION]
    if not concerned:
        return []
    plans = await _specs(shelf, kinds.SUBSCRIPTION_PLAN, documents)
    apis = await _specs(shelf, kinds.REST_API, documents)
    found: list[tuple[Document, Json]] = []
    for document in concerned:
        spec = document.body["spec"]
        api, plan = spec["apiId"], spec.get("subscriptionPlan")
        offered = apis.get(api, {}).get("subscriptionPlans")
        if api not in apis:
            found.append(_problem(document, "apiId", f"there is no API {api!r}"))
        if plan is not None and plan not in plans:
            found.append(_problem(document, "subscriptionPlan", f"there is no plan {plan!r}"))
        elif offered and plan not in offered:
            message = f"must be a plan that the API offers: {', '.join(offered)}"
            found.append(_problem(document, "subscriptionPlan", message))
    return found


def _problem(document: Document, field: str, message: str) -> tuple[Document, Json]:
    return document, {"field": f"spec.{field}", "message": message}


async def _specs(shelf: Shelf, kind: kinds.Kind, documents: Sequence[Document]) -> dict[str, Json]:
    """The specs of all of a kind by name, those of the files before the gateway's."""
    known = {one["metadata"]["name"]: one["spec"] for one in await shelf.listed(kind)}
    return known | {one.name: one.body.get("spec") or {} for one in documents if one.kind is kind}
