"""What admins may do with subscription plans."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from bus.resources.faults import FieldFault
from bus.resources.subscription import Subscription
from bus.resources.subscription_plan import PlanTerms, SubscriptionPlan
from controller.apis import utc_now
from controller.auth import Principal
from controller.collection import Collection
from controller.errors import Conflict, Invalid
from controller.merging import merged, read, without_nulls
from controller.ports import Record, UnitOfWork
from controller.resources import ResourceFilter, StoredResource

FAILED = "Subscription plan validation failed"
Plan = StoredResource[SubscriptionPlan]

_PLANS = Collection(SubscriptionPlan, "Subscription plan", "plan")


def _name(text: str) -> str:
    if text != text.strip() or not text.isprintable():
        raise ValueError("must be printable text without spaces at its ends")
    return text


class SubscriptionPlanRequest(PlanTerms):
    """What a plan is to be."""

    plan_name: Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_name)]


@dataclass(frozen=True, slots=True)
class SubscriptionPlans:
    """The plans on record."""

    record: Record
    clock: Callable[[], datetime] = utc_now

    async def create(self, document: dict[str, Any], who: Principal) -> Plan:
        """A new plan. Raises Invalid, Conflict."""
        now = self.clock()
        plan = self._read(without_nulls(document), str(uuid.uuid4()))
        if plan.expiry_time is not None and plan.expiry_time <= now:
            raise Invalid(FAILED, [FieldFault("expiryTime", "must be in the future")])

        def work(unit: UnitOfWork) -> Plan:
            _free(unit, plan)
            return _PLANS.write(unit, StoredResource(1, plan, now, now))

        return await _PLANS.create(self.record, who, work)

    async def replace(self, name: str, document: dict[str, Any], who: Principal) -> Plan:
        """The plan with what `document` names changed; null clears.

        The same shape again changes nothing. Raises Invalid, NotFound, Conflict.
        """

        def change(unit: UnitOfWork, before: SubscriptionPlan) -> SubscriptionPlan:
            plan = self._read(merged(before, document, FAILED), name)
            if plan != before:
                _free(unit, plan)
            return plan

        return await _PLANS.replace(self.record, name, who, self.clock(), change)

    async def delete(self, name: str, who: Principal) -> None:
        """The plan is gone. Raises NotFound, Conflict while a subscription has it."""
        await _PLANS.delete(self.record, name, who, self.clock(), _refuse_used)

    async def get(self, name: str) -> Plan:
        """The plan. Raises NotFound."""
        return await _PLANS.get(self.record, name)

    async def list(self) -> Sequence[Plan]:
        """All plans, oldest first."""
        return await self.record.resources(SubscriptionPlan, ResourceFilter())

    def _read(self, document: dict[str, Any], name: str) -> SubscriptionPlan:
        request = read(SubscriptionPlanRequest, document, FAILED)
        fields = request.model_dump(mode="json", by_alias=True, exclude_none=True)
        return read(SubscriptionPlan, {**fields, "id": name}, FAILED)


def _free(unit: UnitOfWork, plan: SubscriptionPlan) -> None:
    if unit.resource_named(SubscriptionPlan, plan.plan_name) not in (None, plan.id):
        raise Conflict(f"Subscription plan '{plan.plan_name}' already exists")


def _refuse_used(unit: UnitOfWork, plan: SubscriptionPlan) -> None:
    users = unit.resources(Subscription, ResourceFilter(plan=plan.id))
    if users:
        raise Conflict(
            f"Subscription plan '{plan.plan_name}' is in use by {len(users)} subscription(s)"
        )
