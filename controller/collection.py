"""What admins may do with plans, subscriptions and applications alike."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Generic

import structlog

from controller.auth import Principal
from controller.errors import NotFound
from controller.ports import Record, UnitOfWork
from controller.resources import R, StoredResource

log = structlog.get_logger()


def _nothing(unit: UnitOfWork, resource: object) -> None:
    del unit, resource


@dataclass(frozen=True, slots=True)
class Collection(Generic[R]):
    """The live ones of one kind on record."""

    model: type[R]
    title: str  # in messages, such as `Subscription plan`
    word: str  # of its id in logs

    async def get(self, record: Record, name: str) -> StoredResource[R]:
        """The one of that id. Raises NotFound."""
        return self._live(await record.resource(self.model, name), name)

    def held(self, unit: UnitOfWork, name: str) -> StoredResource[R]:
        """The same, kept from other writers until the unit ends."""
        return self._live(unit.hold_resource(self.model, name), name)

    def write(self, unit: UnitOfWork, row: StoredResource[R]) -> StoredResource[R]:
        """Keep `row` and tell of it."""
        unit.put_resource(row)
        unit.tell(row.event())
        return row

    async def create(
        self, record: Record, who: Principal, work: Callable[[UnitOfWork], StoredResource[R]]
    ) -> StoredResource[R]:
        """What `work` has written; raises what it raises."""
        return self.logged("created", await record.change(work), who)

    async def replace(
        self,
        record: Record,
        name: str,
        who: Principal,
        now: datetime,
        change: Callable[[UnitOfWork, R], R],
    ) -> StoredResource[R]:
        """What `change` makes of the one of that id; the same shape again changes nothing.

        Raises NotFound, and what `change` raises.
        """

        def work(unit: UnitOfWork) -> tuple[StoredResource[R], bool]:
            before = self.held(unit, name)
            after = change(unit, before.resource)
            if after == before.resource:
                return before, False
            return self.write(unit, before.changed(after, now)), True

        row, changed = await record.change(work)
        return self.logged("updated", row, who) if changed else row

    async def delete(
        self,
        record: Record,
        name: str,
        who: Principal,
        now: datetime,
        refuse: Callable[[UnitOfWork, R], None] = _nothing,
    ) -> None:
        """It is gone. Raises NotFound, and what `refuse` raises where it must stay."""

        def work(unit: UnitOfWork) -> StoredResource[R]:
            before = self.held(unit, name)
            refuse(unit, before.resource)
            return self.write(unit, before.tombstone(now))

        self.logged("deleted", await record.change(work), who)

    def logged(self, what: str, row: StoredResource[R], who: Principal) -> StoredResource[R]:
        """`row`, once the log says `what` became of it."""
        about = {self.word: row.resource.id}
        if row.api is not None:
            about["api"] = row.api
        event = f"{self.title.lower()} changed"
        log.info(event, change=what, **about, revision=row.revision, user=who.name)
        return row

    def _live(self, row: StoredResource[R] | None, name: str) -> StoredResource[R]:
        if row is None or row.retired:
            raise NotFound(f"{self.title} '{name}' not found")
        return row
