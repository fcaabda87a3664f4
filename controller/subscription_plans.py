"""What admins may do with subscription plans."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import structlog
from pydantic import AfterValidator, Field

from bus.resources.faults import FieldFault
from bus.resources.subscription import Subscription
from bus.resources.subscription_plan import PlanTerms, SubscriptionPlan
from controller.apis import utc_now
from controller.auth import Principal
from controller.errors import Conflict, Invalid, NotFound
from controller.merging import merged, read, without_nulls
from controller.ports import Record, UnitOfWork
from controller.resources import ResourceFilter, StoredResource

log = structlog.get_logger()

FAILED = "Subscription plan validation failed"
Plan = StoredResource[SubscriptionPlan]


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
            row = StoredResource(1, plan, now, now)
            unit.put_resource(row)
            unit.tell(row.event())
            return row

        return _logged("created", await self.record.change(work), who)

    async def replace(self, name: str, document: dict[str, Any], who: Principal) -> Plan:
        """The plan with what `document` names changed; null clears.

        The same shape again changes nothing. Raises Invalid, NotFound, Conflict.
        """
        now = self.clock()

        def work(unit: UnitOfWork) -> tuple[Plan, bool]:
            before = _held(unit, name)
            plan = self._read(merged(before.resource, document, FAILED), name)
            if plan == before.resource:
                return before, False
            _free(unit, plan)
            row = before.changed(plan, now)
            unit.put_resource(row)
            unit.tell(row.event())
            return row, True

        row, changed = await self.record.change(work)
        return _logged("updated", row, who) if changed else row

    async def delete(self, name: str, who: Principal) -> None:
        """The plan is gone. Raises NotFound, Conflict while a subscription has it."""
        now = self.clock()

        def work(unit: UnitOfWork) -> Plan:
            before = _held(unit, name)
            users = unit.resources(Subscription, ResourceFilter(plan=name))
            if users:
                raise Conflict(
                    f"Subscription plan '{before.resource.plan_name}' is in use by "
                    f"{len(users)} subscription(s)"
                )
            gone = before.tombstone(now)
            unit.put_resource(gone)
            unit.tell(gone.event())
            return gone

        _logged("deleted", await self.record.change(work), who)

    async def get(self, name: str) -> Plan:
        """The plan. Raises NotFound."""
        row = await self.record.resource(SubscriptionPlan, name)
        if row is None or row.retired:
            raise _not_found(name)
        return row

    async def list(self) -> Sequence[Plan]:
        """All plans, oldest first."""
        return await self.record.resources(SubscriptionPlan, ResourceFilter())

    def _read(self, document: dict[str, Any], name: str) -> SubscriptionPlan:
        request = read(SubscriptionPlanRequest, document, FAILED)
        fields = request.model_dump(mode="json", by_alias=True, exclude_none=True)
        return read(SubscriptionPlan, {**fields, "id": name}, FAILED)


def _held(unit: UnitOfWork, name: str) -> Plan:
    row = unit.hold_resource(SubscriptionPlan, name)
    if row is None or row.retired:
        raise _not_found(name)
    return row


def _free(unit: UnitOfWork, plan: SubscriptionPlan) -> None:
    if unit.resource_named(SubscriptionPlan, plan.plan_name) not in (None, plan.id):
        raise Conflict(f"Subscription plan '{plan.plan_name}' already exists")


def _not_found(name: str) -> NotFound:
    return NotFound(f"Subscription plan '{name}' not found")


def _logged(what: str, row: Plan, who: Principal) -> Plan:
    log.info(
        "subscription plan changed",
        change=what,
        plan=row.resource.id,
        revision=row.revision,
        user=who.name,
    )
    return row
