"""What admins may do with applications: who calls, with which keys and subscriptions."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from bus.resources.application import Application
from bus.resources.document import is_handle
from bus.resources.subscription import Subscription
from controller.apis import utc_now
from controller.auth import Principal
from controller.collection import Collection
from controller.errors import Conflict, Forbidden
from controller.merging import merged, read, without_nulls
from controller.model import StoredKey
from controller.ports import Record, UnitOfWork
from controller.resources import ResourceFilter, StoredResource

FAILED = "Application validation failed"
Row = StoredResource[Application]

_APPLICATIONS = Collection(Application, "Application", "application")


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
            revision = 1 if before is None else before.revision + 1
            return _APPLICATIONS.write(unit, StoredResource(revision, application, now, now))

        return await _APPLICATIONS.create(self.record, who, work)

    async def replace(self, name: str, document: dict[str, Any], who: Principal) -> Row:
        """The application with what `document` names changed; null clears.

        The same shape again changes nothing. Raises Invalid, NotFound, Conflict.
        """

        def change(unit: UnitOfWork, before: Application) -> Application:
            application = _read(merged(before, document, FAILED) | {"id": name})
            if application != before:
                _free(unit, application)
            return application

        return await _APPLICATIONS.replace(self.record, name, who, self.clock(), change)

    async def delete(self, name: str, who: Principal) -> None:
        """The application is gone; keys of its name stay.

        Raises NotFound, Conflict while a subscription is for it.
        """
        await _APPLICATIONS.delete(self.record, name, who, self.clock(), _refuse_used)

    async def get(self, name: str) -> Row:
        """The application. Raises NotFound."""
        return await _APPLICATIONS.get(self.record, name)

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


def _free(unit: UnitOfWork, application: Application) -> None:
    """Names and ids are one space: keys may say either. Raises Conflict."""
    for text in application.callers:
        other = unit.hold_resource(Application, text) if text != application.id else None
        named = unit.resource_named(Application, text)
        if (other is not None and not other.retired) or named not in (None, application.id):
            raise Conflict(f"An application called '{text}' already exists")


def _refuse_used(unit: UnitOfWork, application: Application) -> None:
    users = unit.resources(Subscription, ResourceFilter(application=application.id))
    if users:
        raise Conflict(f"Application '{application.name}' has {len(users)} subscription(s)")
