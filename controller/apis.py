"""What users may do with REST APIs. Each change is one unit of work."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from bus.events import ApiPublished
from bus.resources.document import is_handle
from bus.resources.faults import FieldFault
from bus.resources.rest_api import RestApi
from bus.resources.subscription import Subscription
from bus.resources.subscription_plan import SubscriptionPlan
from controller.auth import Principal
from controller.errors import Conflict, Invalid, NotFound, Refused, Superseded
from controller.model import ApiFilter, StoredApi
from controller.overlaps import refuse_overlap
from controller.ports import PolicyCatalogue, Record, UnitOfWork
from controller.resources import ResourceFilter, StoredResource
from controller.status import Deployments
from controller.validation import FAILED, accepted, rest_api

log = structlog.get_logger()

Document = dict[str, Any]


def utc_now() -> datetime:
    """The time that is written on records."""
    return datetime.now(UTC)


def not_found(handle: str) -> NotFound:
    """No live API has this handle."""
    return NotFound(f"RestAPI configuration with handle '{handle}' not found")


@dataclass(frozen=True, slots=True)
class Apis:
    """The REST APIs on record."""

    record: Record
    catalogue: PolicyCatalogue
    deployments: Deployments
    clock: Callable[[], datetime] = utc_now

    async def create(self, document: Document, who: Principal) -> StoredApi:
        """A new API. Raises Invalid, Conflict."""
        kept = accepted(document)
        api = rest_api(kept, self.catalogue)

        def work(unit: UnitOfWork) -> StoredApi:
            before = unit.hold(api.id)
            if before is not None and not before.retired:
                raise Conflict(f"RestAPI configuration with handle '{api.id}' already exists")
            return self._write(unit, kept, api, before)

        row = await self.record.change(work)
        self._committed("created", row, who)
        return row

    async def replace(
        self, handle: str, document: Document, who: Principal, if_revision: int | None = None
    ) -> StoredApi:
        """The API in its new shape; the same shape again changes nothing.

        `if_revision`: only if that is the current one. Raises Invalid, NotFound, Conflict,
        Superseded.
        """
        if not is_handle(handle):
            raise not_found(handle)
        kept = accepted(document)
        api = rest_api(kept, self.catalogue)
        if api.id != handle:
            raise Invalid(f"Handle mismatch: path has '{handle}' but metadata.name has '{api.id}'")

        def work(unit: UnitOfWork) -> tuple[StoredApi, bool]:
            before = _live(unit, handle, if_revision)
            if before.document() == kept:
                return before, False
            return self._write(unit, kept, api, before), True

        row, changed = await self.record.change(work)
        if changed:
            self._committed("updated", row, who)
        return row

    async def delete(
        self, handle: str, who: Principal, if_revision: int | None = None
    ) -> StoredApi:
        """The tombstone of the API; its keys and subscriptions end, too.

        Raises NotFound, Superseded.
        """
        now = self.clock()

        def work(unit: UnitOfWork) -> StoredApi:
            gone = _live(unit, handle, if_revision).tombstone(now)
            unit.put_api(gone)
            unit.tell(gone.event())
            for key in unit.keys(handle):
                if not key.revoked:
                    revoked = key.tombstone(now)
                    unit.put_key(revoked)
                    unit.tell(revoked.event())
            for one in unit.resources(Subscription, ResourceFilter(api=handle)):
                ended = one.tombstone(now)
                unit.put_resource(ended)
                unit.tell(ended.event())
            return gone

        row = await self.record.change(work)
        self._committed("deleted", row, who)
        return row

    async def rehearse(
        self, documents: Sequence[Document], plans: Sequence[str] = ()
    ) -> list[RestApi | Refused]:
        """What would become of `documents`, written one after the other: nothing is.

        Those that could be written, and the refusals of the others. `plans`: names of subscription
        plans that would be there before.
        """

        def work(unit: UnitOfWork) -> None:
            _rehearse_plans(unit, plans, self.clock())
            raise _Rehearsed([self._tried(unit, one) for one in documents])

        try:
            await self.record.change(work)
        except _Rehearsed as rehearsed:  # the unit is rolled back
            return rehearsed.found
        return []

    def _tried(self, unit: UnitOfWork, document: Document) -> RestApi | Refused:
        try:
            kept = accepted(document)
            api = rest_api(kept, self.catalogue)
            self._write(unit, kept, api, unit.hold(api.id))
        except Refused as refused:
            return refused
        return api

    async def get(self, handle: str) -> StoredApi:
        """The API. Raises NotFound."""
        row = await self.last(handle)
        if row.retired:
            raise not_found(handle)
        return row

    async def last(self, handle: str) -> StoredApi:
        """The API or its tombstone. Raises NotFound if it never was."""
        row = await self.record.api(handle) if is_handle(handle) else None
        if row is None:
            raise not_found(handle)
        return row

    async def list(self, wanted: ApiFilter) -> Sequence[StoredApi]:
        """The APIs that pass the filter, oldest first."""
        return await self.record.apis(wanted)

    def _write(
        self, unit: UnitOfWork, document: Document, api: RestApi, before: StoredApi | None
    ) -> StoredApi:
        row = StoredApi.written(document, api, self.clock(), before)
        name = (row.display_name, row.version)
        kept_its_name = (
            before is not None
            and not before.retired
            and (before.display_name, before.version) == name
        )
        if not kept_its_name and unit.named(*name) is not None:
            raise Conflict(
                f"RestAPI configuration with name '{name[0]}' and version '{name[1]}' "
                "already exists"
            )
        _refuse_unknown_plans(unit, api)
        if row.state == "deployed":
            refuse_overlap(api, document, unit.on_context(row.context))
        unit.put_api(row)
        unit.tell(ApiPublished(revision=row.revision, api=api.rendered()))
        return row

    def _committed(self, what: str, row: StoredApi, who: Principal) -> None:
        self.deployments.committed(row.handle, row.revision, retired=row.retired)
        log.info("api changed", change=what, api=row.handle, revision=row.revision, user=who.name)


class _Rehearsed(Exception):
    """Ends a unit of work without a commit."""

    def __init__(self, found: "list[RestApi | Refused]") -> None:
        super().__init__()
        self.found = found


def _live(unit: UnitOfWork, handle: str, if_revision: int | None) -> StoredApi:
    row = unit.hold(handle) if is_handle(handle) else None
    if row is None or row.retired:
        raise not_found(handle)
    if if_revision is not None and row.revision != if_revision:
        raise Superseded(f"Revision {if_revision} is superseded by revision {row.revision}")
    return row


def _rehearse_plans(unit: UnitOfWork, names: Sequence[str], now: datetime) -> None:
    for name in names:
        if unit.resource_named(SubscriptionPlan, name) is None:
            plan = SubscriptionPlan(id=str(uuid.uuid4()), plan_name=name)
            unit.put_resource(StoredResource(1, plan, now, now))


def _refuse_unknown_plans(unit: UnitOfWork, api: RestApi) -> None:
    faults = [
        FieldFault(f"spec.subscriptionPlans[{index}]", f"Subscription plan '{name}' not found")
        for index, name in enumerate(api.spec.subscription_plans)
        if unit.resource_named(SubscriptionPlan, name) is None
    ]
    if faults:
        raise Invalid(FAILED, faults)
