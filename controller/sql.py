"""The record in a SQL database (Standard), by SQLAlchemy Core.

What was answered with success survives a power failure. Taking told events out of the outbox need
not: if that is lost, they are told again under the same id.

Writers take the row of the API they change with an UPDATE of its `held` column before they read
it, and that of its context before they look who else is there. Every database locks a row on that,
without dialect-specific `FOR UPDATE`.
"""

import asyncio
import hashlib
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from sqlalchemy import (
    Connection,
    CursorResult,
    Executable,
    Row,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import (
    DBAPIError,
    IntegrityError,
    PendingRollbackError,
    ResourceClosedError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from bus.events import Event
from bus.resources.api_key import ApiKey
from controller import sql_resources
from controller.database import Database, connect
from controller.errors import Raced, StorageUnavailable, StorageUnusable
from controller.model import REST_API, ApiFilter, Counts, Outgoing, StoredApi, StoredKey, called
from controller.ports import Everything, Result, UnitOfWork
from controller.resources import KINDS, AnyResource, R, Resource, ResourceFilter, StoredResource
from controller.schema import APIS, CONTEXTS, KEYS, OUTBOX, RESOURCES, bring_up_to_date

_ATTEMPTS = 5  # of a unit that other writers were faster than
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _moment(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def _unique_name(api: StoredApi) -> str:
    if api.retired:
        return _name_digest("retired", api.handle)
    return _name_digest("live", api.display_name, api.version)


def _context_digest(api: StoredApi) -> str | None:
    return None if api.served_context is None else _name_digest(api.served_context)


def _name_digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _api(row: Row[Any]) -> StoredApi:
    return StoredApi(
        handle=row.handle,
        revision=row.revision,
        body=row.body,
        display_name=row.display_name,
        version=row.version,
        context=row.context,
        state=row.state,
        created_at=_moment(row.created_at_us),
        updated_at=_moment(row.updated_at_us),
        deployed_at=None if row.deployed_at_us is None else _moment(row.deployed_at_us),
        retired=row.retired,
    )


def _key(row: Row[Any]) -> StoredKey:
    key = ApiKey.model_validate_json(row.body)
    return StoredKey(row.revision, key, _moment(row.updated_at_us), row.revoked)


@contextmanager
def mapped() -> Iterator[None]:
    """SQLAlchemy's exceptions as ours; the driver's own words are kept."""
    try:
        yield
    except IntegrityError as error:
        raise Raced(str(error.orig)) from error
    except DBAPIError as error:
        raise StorageUnavailable(str(error.orig)) from error
    except PoolTimeout as error:
        raise StorageUnavailable("all connections are busy") from error
    except (
        ResourceClosedError,
        PendingRollbackError,
    ) as error:  # the connection was closed under a unit of work
        raise StorageUnavailable(str(error)) from error


# Built once: putting a statement together costs as much as running it. Parameters that are named
# like columns are what is set.
_HOLD = update(APIS).where(APIS.c.handle == bindparam("this")).values(held=APIS.c.held + 1)
_API = select(APIS).where(APIS.c.handle == bindparam("this"))
_NAMED = select(APIS.c.handle).where(APIS.c.unique_name == bindparam("wanted"))
_HOLD_CONTEXT = (
    update(CONTEXTS).where(CONTEXTS.c.digest == bindparam("this")).values(held=CONTEXTS.c.held + 1)
)
_ADD_CONTEXT = insert(CONTEXTS).inline()
_ON_CONTEXT = select(APIS).where(APIS.c.context_digest == bindparam("wanted"))
_CHANGE_API = update(APIS).where(APIS.c.handle == bindparam("this"))
_ADD_API = insert(APIS).inline()
_KEYS = (
    select(KEYS)
    .where(KEYS.c.api_kind == REST_API, KEYS.c.api_handle == bindparam("this"))
    .order_by(KEYS.c.created_at_us, KEYS.c.name)
)
_CHANGE_KEY = update(KEYS).where(
    KEYS.c.api_kind == bindparam("this_kind"),
    KEYS.c.api_handle == bindparam("this_handle"),
    KEYS.c.name == bindparam("this_name"),
)
_ADD_KEY = insert(KEYS).inline()
_TELL = insert(OUTBOX).inline()


class SqlUnit:
    """One transaction."""

    def __init__(self, connection: Connection, *, alone: bool) -> None:
        self._connection = connection
        self._alone = alone  # no other writer until we are done
        self.told = False

    def _do(self, statement: Executable, parameters: dict[str, object]) -> CursorResult[Any]:
        with mapped():
            return self._connection.execute(statement, parameters)

    def hold(self, handle: str) -> StoredApi | None:
        """See UnitOfWork."""
        if not self._alone and self._do(_HOLD, {"this": handle}).rowcount == 0:
            return None
        row = self._do(_API, {"this": handle}).one_or_none()
        return None if row is None else _api(row)

    def named(self, display_name: str, version: str) -> str | None:
        """See UnitOfWork."""
        wanted = _name_digest("live", display_name, version)
        handle: str | None = self._do(_NAMED, {"wanted": wanted}).scalar_one_or_none()
        return handle

    def on_context(self, context: str) -> tuple[StoredApi, ...]:
        """See UnitOfWork; without the row of the context there is nothing to wait at."""
        digest = _name_digest(context.lower())
        if not self._alone and self._do(_HOLD_CONTEXT, {"this": digest}).rowcount == 0:
            self._do(_ADD_CONTEXT, {"digest": digest, "held": 0})
        return tuple(_api(row) for row in self._do(_ON_CONTEXT, {"wanted": digest}))

    def put_api(self, api: StoredApi) -> None:
        """See UnitOfWork."""
        values: dict[str, object] = {
            "revision": api.revision,
            "body": api.body,
            "display_name": api.display_name,
            "version": api.version,
            "context": api.context,
            "state": api.state,
            "created_at_us": _us(api.created_at),
            "updated_at_us": _us(api.updated_at),
            "deployed_at_us": None if api.deployed_at is None else _us(api.deployed_at),
            "retired": api.retired,
            "unique_name": _unique_name(api),
            "context_digest": _context_digest(api),
        }
        if self._do(_CHANGE_API, {"this": api.handle, **values}).rowcount == 0:
            self._do(_ADD_API, {"handle": api.handle, "held": 0, **values})

    def keys(self, handle: str) -> tuple[StoredKey, ...]:
        """See UnitOfWork."""
        return tuple(_key(row) for row in self._do(_KEYS, {"this": handle}))

    def put_key(self, key: StoredKey) -> None:
        """See UnitOfWork."""
        kind, handle, name = key.identity
        values: dict[str, object] = {
            "revision": key.revision,
            "body": key.key.model_dump_json(by_alias=True),
            "updated_at_us": _us(key.updated_at),
            "created_at_us": _us(key.key.created_at or key.updated_at),
            "revoked": key.revoked,
        }
        this = {"this_kind": kind, "this_handle": handle, "this_name": name}
        if self._do(_CHANGE_KEY, {**this, **values}).rowcount == 0:
            self._do(_ADD_KEY, {"api_kind": kind, "api_handle": handle, "name": name, **values})

    def hold_resource(self, model: type[R], name: str) -> StoredResource[R] | None:
        """See UnitOfWork."""
        place = sql_resources.place(KINDS[model], name)
        if not self._alone and self._do(sql_resources.HOLD, place).rowcount == 0:
            return None
        row = self._do(sql_resources.ONE, place).one_or_none()
        return None if row is None else sql_resources.stored(model, row)

    def resource_named(self, model: type[Resource], *unique: str) -> str | None:
        """See UnitOfWork."""
        wanted = sql_resources.unique_name(KINDS[model], unique)
        name: str | None = self._do(sql_resources.NAMED, {"wanted": wanted}).scalar_one_or_none()
        return name

    def resources(self, model: type[R], wanted: ResourceFilter) -> Sequence[StoredResource[R]]:
        """See UnitOfWork."""
        rows = self._do(sql_resources.listing(KINDS[model], wanted), {})
        return [sql_resources.stored(model, row) for row in rows]

    def put_resource(self, row: AnyResource) -> None:
        """See UnitOfWork."""
        kind, name, values = row.kind, row.resource.id, sql_resources.values(row)
        place = sql_resources.place(kind, name)
        if self._do(sql_resources.CHANGE, {**place, **values}).rowcount == 0:
            self._do(sql_resources.ADD, {"kind": kind, "id": name, "held": 0, **values})

    def tell(self, event: Event) -> None:
        """See UnitOfWork."""
        body = event.model_dump_json(by_alias=True)
        self._do(_TELL, {"event_id": str(uuid.uuid4()), "kind": event.kind, "body": body})
        self.told = True


class SqlRecord:
    """See `controller.ports.Record`."""

    durable = True

    def __init__(self, database: Database) -> None:
        self._database = database
        self.told = asyncio.Event()

    @classmethod
    async def open(cls, database_url: str) -> Self:
        """Connect, and create or migrate the tables. Raises StorageUnusable."""
        database = connect(database_url)
        try:
            await database.write(lambda connection: bring_up_to_date(connection, database.where))
        except (SQLAlchemyError, OSError) as error:
            await database.close()
            reason = error.orig if isinstance(error, DBAPIError) else error
            raise StorageUnusable(
                f"the database {database.where} cannot be used: {reason}"
            ) from error
        except StorageUnusable:
            await database.close()
            raise
        return cls(database)

    async def close(self) -> None:
        """See Record."""
        await self._database.close()

    async def change(self, work: Callable[[UnitOfWork], Result]) -> Result:
        """See Record."""

        def attempt(connection: Connection) -> tuple[Result, bool]:
            unit = SqlUnit(connection, alone=self._database.one_writer)
            return work(unit), unit.told

        for _ in range(_ATTEMPTS - 1):
            try:
                return await self._committed(attempt)
            except Raced:
                continue
        return await self._committed(attempt)

    async def _committed(self, attempt: Callable[[Connection], tuple[Result, bool]]) -> Result:
        with mapped():
            result, told = await self._database.write(attempt)
        if told:
            self.told.set()
        return result

    async def _rows(self, *statements: Executable) -> list[Sequence[Row[Any]]]:
        def read(connection: Connection) -> list[Sequence[Row[Any]]]:
            return [connection.execute(one).all() for one in statements]

        with mapped():
            return await self._database.read(read)

    async def api(self, handle: str) -> StoredApi | None:
        """See Record."""
        (rows,) = await self._rows(_API.params(this=handle))
        return _api(rows[0]) if rows else None

    async def apis(self, wanted: ApiFilter) -> Sequence[StoredApi]:
        """See Record."""
        query = select(APIS).where(APIS.c.retired.is_(False))
        for column, value in (
            (APIS.c.display_name, wanted.display_name),
            (APIS.c.version, wanted.version),
            (APIS.c.context, wanted.context),
            (APIS.c.state, wanted.state),
        ):
            if value is not None:
                query = query.where(column == value)
        (rows,) = await self._rows(query.order_by(APIS.c.created_at_us, APIS.c.handle))
        return [_api(row) for row in rows]

    async def keys(self, handle: str) -> Sequence[StoredKey]:
        """See Record."""
        (rows,) = await self._rows(_KEYS.params(this=handle))
        return [_key(row) for row in rows if not row.revoked]

    async def keys_called(self, names: Collection[str]) -> Sequence[StoredKey]:
        """See Record."""
        (rows,) = await self._rows(select(KEYS).where(KEYS.c.revoked.is_(False)))
        return called((_key(row) for row in rows), names)

    async def resource(self, model: type[R], name: str) -> StoredResource[R] | None:
        """See Record."""
        place = sql_resources.place(KINDS[model], name)
        (rows,) = await self._rows(sql_resources.ONE.params(**place))
        return sql_resources.stored(model, rows[0]) if rows else None

    async def resources(
        self, model: type[R], wanted: ResourceFilter
    ) -> Sequence[StoredResource[R]]:
        """See Record."""
        (rows,) = await self._rows(sql_resources.listing(KINDS[model], wanted))
        return [sql_resources.stored(model, row) for row in rows]

    async def everything(self) -> Everything:
        """See Record."""
        apis, keys, resources = await self._rows(select(APIS), select(KEYS), select(RESOURCES))
        return (
            [_api(row) for row in apis],
            [_key(row) for row in keys],
            [sql_resources.any_stored(row) for row in resources],
        )

    async def pending(self, limit: int, without: Collection[int] = ()) -> Sequence[Outgoing]:
        """See Record."""
        query = select(OUTBOX).order_by(OUTBOX.c.number).limit(limit)
        if without:
            query = query.where(OUTBOX.c.number.not_in(without))
        (rows,) = await self._rows(query)
        return [Outgoing(row.number, row.event_id, row.kind, row.body.encode()) for row in rows]

    async def forget(self, numbers: Sequence[int]) -> None:
        """See Record."""
        told = delete(OUTBOX).where(OUTBOX.c.number.in_(numbers))
        with mapped():
            await self._database.write(
                lambda connection: connection.execute(told).close(), synced=False
            )

    async def counts(self) -> Counts:
        """See Record."""
        apis, keys, resources = await self._rows(
            select(APIS.c.state, func.count().label("number"))
            .where(APIS.c.retired.is_(False))
            .group_by(APIS.c.state),
            select(func.count()).select_from(KEYS).where(KEYS.c.revoked.is_(False)),
            select(RESOURCES.c.kind, func.count().label("number"))
            .where(RESOURCES.c.retired.is_(False))
            .group_by(RESOURCES.c.kind),
        )
        by_state = {row.state: row.number for row in apis}
        by_kind = {row.kind: row.number for row in resources}
        states = (by_state.get("deployed", 0), by_state.get("undeployed", 0))
        return Counts(*states, keys[0][0], by_kind)

    async def version(self) -> int:
        """See Record."""
        sums = await self._rows(
            *(
                select(func.coalesce(func.sum(table.c.revision), 0))
                for table in (APIS, KEYS, RESOURCES)
            )
        )
        return sum(int(rows[0][0]) for rows in sums)
