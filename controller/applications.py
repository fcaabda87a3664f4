"""What admins may do with applications: who calls, with which keys and subscriptions."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

import structlog
from pydantic import AfterValidator, Field

from bus.resources.application import Application
from bus.resources.document import is_handle
from bus.resources.subscription import Subscription
from controller.apis import utc_now
from controller.auth import Principal
from controller.errors import Conflict, Forbidden, NotFound
from controller.merging import merged, read, without_nulls
from controller.model import StoredKey
from controller.ports import Record, UnitOfWork
from controller.resources import ResourceFilter, StoredResource

log = structlog.get_logger()

FAILED = "Application validation failed"
Row = StoredResource[Application]


def _id(text: str) -> str:
    if not is_handle(text):
        raise ValueError("must not contain whitespace, '/', '}' or control characters")
    return text


class ApplicationRequest(Application):
    """What an application is to be."""

    id: Annotated[str, Field(min_length=1, max_length=255), AfterValidator(_id)]


@dataclass(frozen=True, slots=True)
class Applications:
    """The applications on record."""

    record: Record
    clock: Callable[[], datetime] = utc_now

    async def create(self, document: dict[str, Any], who: Principal) -> Row:
        """A new application; without an id it gets one. Raises Invalid, Conflict."""
        now = self.clock()
        given = document.get("id")
        named = {"id": str(uuid.uuid4()) if given is None else given}
        application = _read(without_nulls(document) | named)

        def work(unit: UnitOfWork) -> Row:
            before = unit.hold_resource(Application, application.id)
            if before is not None and not before.retired:
                raise Conflict(f"Application '{application.id}' already exists")
            _free(unit, application)
            row = (
                StoredResource(1, application, now, now)
                if before is None
                else StoredResource(before.revision + 1, application, now, now)
            )
            unit.put_resource(row)
            unit.tell(row.event())
            return row

        return _logged("created", await self.record.change(work), who)

    async def replace(self, name: str, document: dict[str, Any], who: Principal) -> Row:
        """The application with what `document` names changed; null clears.

        The same shape again changes nothing. Raises Invalid, NotFound, Conflict.
        """
        now = self.clock()

        def work(unit: UnitOfWork) -> tuple[Row, bool]:
            before = _held(unit, name)
            application = _read(merged(before.resource, document, FAILED) | {"id": name})
            if application == before.resource:
                return before, False
            _free(unit, application)
            row = before.changed(application, now)
            unit.put_resource(row)
            unit.tell(row.event())
            return row, True

        row, changed = await self.record.change(work)
        return _logged("updated", row, who) if changed else row

    async def delete(self, name: str, who: Principal) -> None:
        """The application is gone; keys of its name stay.

        Raises NotFound, Conflict while a subscription is for it.
        """
        now = self.clock()

        def work(unit: UnitOfWork) -> Row:
            before = _held(unit, name)
            users = unit.resources(Subscription, ResourceFilter(application=name))
            if users:
                raise Conflict(
                    f"Application '{before.resource.name}' has {len(users)} subscription(s)"
                )
            gone = before.tombstone(now)
            unit.put_resource(gone)
            unit.tell(gone.event())
            return gone

        _logged("deleted", await self.record.change(work), who)

    async def get(self, name: str) -> Row:
        """The application. Raises NotFound."""
        row = await self.record.resource(Application, name)
        if row is None or row.retired:
            raise _not_found(name)
        return row

    async def list(self) -> Sequence[Row]:
        """All applications, oldest first."""
        return await self.record.resources(Application, ResourceFilter())

    async def keys(self, name: str) -> Sequence[StoredKey]:
        """Live keys of the application on all APIs, oldest first. Raises NotFound."""
        return await self.record.keys_called((await self.get(name)).resource.callers)


def refuse_foreign(unit: UnitOfWork, api_id: str, name: str, who: Principal) -> None:
    """Raises Forbidden if a key of the API may not say that `name` calls, if `who` makes it.

    An application belongs to its owner: by its name whoever holds the key uses its subscription.
    """
    if who.is_admin:
        return
    known = unit.resource_named(Application, name)
    row = unit.hold_resource(Application, name if known is None else known)
    if row is not None and not row.retired:
        if row.resource.owner != who.name:
            raise Forbidden(f"Only admins and its owner may give application '{name}' a key")
    elif unit.resources(Subscription, ResourceFilter(api=api_id, application=name)):
        raise Forbidden(f"Only admins may give application '{name}' a key: it has a subscription")


def _read(document: dict[str, Any]) -> Application:
    request = read(ApplicationRequest, document, FAILED)
    return Application(**request.model_dump())


def _held(unit: UnitOfWork, name: str) -> Row:
    row = unit.hold_resource(Application, name)
    if row is None or row.retired:
        raise _not_found(name)
    return row


def _free(unit: UnitOfWork, application: Application) -> None:
    """Names and ids are one space: keys may say either. Raises Conflict."""
    for text in application.callers:
        other = unit.hold_resource(Application, text) if text != application.id else None
        named = unit.resource_named(Application, text)
        if (other is not None and not other.retired) or named not in (None, application.id):
            raise Conflict(f"An application called '{text}' already exists")


def _not_found(name: str) -> NotFound:
    return NotFound(f"Application '{name}' not found")


def _logged(what: str, row: Row, who: Principal) -> Row:
    log.info(
        "application changed",
        change=what,
        application=row.resource.id,
        revision=row.revision,
        user=who.name,
    )
    return row
