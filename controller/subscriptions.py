"""What admins may do with subscriptions. Of tokens only digests are kept."""

import hashlib
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from bus.resources.document import Document, is_handle
from bus.resources.faults import FieldFault
from bus.resources.subscription import Reference, Subscription, SubscriptionStatus
from bus.resources.subscription_plan import SubscriptionPlan
from controller.apis import utc_now
from controller.auth import Principal
from controller.collection import Collection
from controller.errors import Conflict, Invalid
from controller.merging import merged, read, without_nulls
from controller.ports import Record, UnitOfWork
from controller.resources import ResourceFilter, StoredResource

FAILED = "Subscription validation failed"
TOKEN_MAX = 4096  # no longer one is looked at by routers
_VISIBLE = re.compile(r"[\x21-\x7e]+")
Row = StoredResource[Subscription]

_SUBSCRIPTIONS = Collection(Subscription, "Subscription", "subscription")


def _token(text: str) -> str:
    if not _VISIBLE.fullmatch(text):
        raise ValueError("may only hold visible ASCII characters")
    return text


def _id(text: str) -> str:
    if not is_handle(text):
        raise ValueError("must not contain whitespace, '/', '}' or control characters")
    return text


Token = Annotated[str, Field(min_length=1, max_length=TOKEN_MAX), AfterValidator(_token)]


class SubscriptionUpdateRequest(Document):
    """What a subscription is to be; without a token, it keeps the one it has."""

    api_id: Annotated[str, Field(min_length=1, max_length=253)]
    subscription_token: Token | None = None
    application_id: Reference | None = None
    subscription_plan_id: Reference | None = None
    billing_customer_id: Reference | None = None
    billing_subscription_id: Reference | None = None
    status: SubscriptionStatus = "ACTIVE"


class SubscriptionCreateRequest(SubscriptionUpdateRequest):
    """What a new subscription is to be."""

    id: Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_id)]
    subscription_token: Token


@dataclass(frozen=True, slots=True)
class Subscriptions:
    """The subscriptions on record."""

    record: Record
    clock: Callable[[], datetime] = utc_now

    async def create(self, document: dict[str, Any], who: Principal) -> Row:
        """A new subscription; without an id it gets one. Raises Invalid, Conflict."""
        now = self.clock()
        given = document.get("id")
        named = {"id": str(uuid.uuid4()) if given is None else given}
        wanted = read(SubscriptionCreateRequest, without_nulls(document) | named, FAILED)
        one = _shaped(wanted, wanted.id, digest_of(wanted.subscription_token), now)

        def work(unit: UnitOfWork) -> Row:
            _refers(unit, one, None)
            before = unit.hold_resource(Subscription, one.id)
            if before is not None:
                _vacant(before, one)
            revision = 1 if before is None else before.revision + 1
            return _written(unit, StoredResource(revision, one, now, now))

        return await _SUBSCRIPTIONS.create(self.record, who, work)

    async def replace(self, name: str, document: dict[str, Any], who: Principal) -> Row:
        """The subscription with what `document` names changed; null clears.

        The same shape again changes nothing. Raises Invalid, NotFound, Conflict.
        """
        now = self.clock()
        api_id = (await self.get(name)).resource.api_id  # never changes

        def work(unit: UnitOfWork) -> tuple[Row, bool]:
            unit.hold(api_id)
            before = _SUBSCRIPTIONS.held(unit, name)
            given = merged(before.resource, document, FAILED)
            digest = given.pop("digest")
            wanted = read(SubscriptionUpdateRequest, given, FAILED)
            if wanted.api_id != api_id:
                raise Invalid(FAILED, [FieldFault("apiId", "cannot be changed")])
            if wanted.subscription_token is not None:
                digest = digest_of(wanted.subscription_token)
            one = _shaped(wanted, name, digest, before.resource.created_at)
            if one == before.resource:
                return before, False
            _refers(unit, one, before.resource)
            return _written(unit, before.changed(one, now)), True

        row, changed = await self.record.change(work)
        return _SUBSCRIPTIONS.logged("updated", row, who) if changed else row

    async def delete(self, name: str, who: Principal) -> None:
        """The subscription opens nothing any more. Raises NotFound."""
        await _SUBSCRIPTIONS.delete(self.record, name, who, self.clock())

    async def get(self, name: str) -> Row:
        """The subscription. Raises NotFound."""
        return await _SUBSCRIPTIONS.get(self.record, name)

    async def plan_of(self, row: Row) -> SubscriptionPlan | None:
        """The plan of a subscription, if it has one."""
        plan_id = row.resource.subscription_plan_id
        plan = await self.record.resource(SubscriptionPlan, plan_id) if plan_id else None
        return None if plan is None or plan.retired else plan.resource

    async def list(
        self, wanted: ResourceFilter, status: SubscriptionStatus | None, digest: str | None = None
    ) -> Sequence[Row]:
        """The subscriptions that pass the filters, oldest first; `digest`: of their token."""
        rows = await self.record.resources(Subscription, wanted)
        return [
            row
            for row in rows
            if status in (None, row.resource.status) and digest in (None, row.resource.digest)
        ]


def _shaped(
    wanted: SubscriptionUpdateRequest, name: str, digest: str, created_at: datetime | None
) -> Subscription:
    fields = wanted.model_dump(exclude={"subscription_token", "id"})
    return Subscription(id=name, digest=digest, created_at=created_at, **fields)


def _refers(unit: UnitOfWork, one: Subscription, before: Subscription | None) -> None:
    """Raises Invalid unless the API and the plan exist, and the API offers the plan.

    What has not changed since `before` was good then and may stay.
    """
    api = unit.hold(one.api_id) if is_handle(one.api_id) else None
    if api is None or api.retired:
        raise Invalid(FAILED, [FieldFault("apiId", f"API '{one.api_id}' not found")])
    plan_id = one.subscription_plan_id
    if before is not None and before.subscription_plan_id == plan_id:
        return
    offered: list[str] = api.document()["spec"].get("subscriptionPlans", [])
    plan = unit.hold_resource(SubscriptionPlan, plan_id) if plan_id is not None else None
    fault = None
    if plan_id is not None and (plan is None or plan.retired):
        fault = f"Subscription plan '{plan_id}' not found"
    elif offered and (plan is None or plan.resource.plan_name not in offered):
        fault = f"must be a plan that the API offers: {', '.join(offered)}"
    if fault is not None:
        raise Invalid(FAILED, [FieldFault("subscriptionPlanId", fault)])


def _vacant(before: Row, one: Subscription) -> None:
    """Raises Conflict unless the id, which was given before, may be given to `one`."""
    if not before.retired:
        raise Conflict(f"Subscription '{one.id}' already exists")
    if before.resource.api_id != one.api_id:
        raise Conflict(
            f"Subscription '{one.id}' was one to API '{before.resource.api_id}': take another id"
        )


def _written(unit: UnitOfWork, row: Row) -> Row:
    one = row.resource
    if unit.resource_named(Subscription, one.api_id, one.digest) not in (None, one.id):
        raise Conflict("A subscription with this token already exists for this API")
    return _SUBSCRIPTIONS.write(unit, row)


def digest_of(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()
