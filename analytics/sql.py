"""Totals in a database, by SQLAlchemy Core: any dialect, no upsert statements.

A batch is counted once because its id is written in the transaction that adds its totals. What
SQLite, PostgreSQL, MySQL, SQL Server and Oracle have in common for "insert or add" is to read, add
in Python and write; that needs no lock here, because each process has rows of its own (`writer`).
"""

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from time import time
from typing import Any, TypeVar

from sqlalchemy import Connection, and_, bindparam, delete, event, func, insert, or_, select, update
from sqlalchemy import Row as SqlRow
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DataError, IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from sqlalchemy.sql.elements import ColumnElement

from analytics.errors import TotalsRefused, TotalsUnavailable
from analytics.outcome import Outcome
from analytics.ports import MINUTES_PER_HOUR, Row, Selection
from analytics.sketch import LatencySketch
from analytics.tables import CHORES, COUNTED, GAPS, SERIES, TOTALS, bring_up_to_date
from analytics.totals import MINUTE_MS, NAME_MAX, Batch, Gap, Series, Total, Totals, add_up

_T = TypeVar("_T")
_CHUNK = 200  # rows per statement: some milliseconds in which the event loop does nothing else
_ATTEMPTS = 5  # of a transaction that lost a race with another process
_IDS_KEPT_MINUTES = 8 * 24 * 60  # a day longer than the bus keeps usage events
_ROLLED_UP_SERIES = 100  # in one transaction: up to 6,000 rows of each process
_BUSY_MS = 10_000  # how long SQLite waits for another writer
_OLDEST_COLUMNS = len(Series._fields) - 2  # of a series, before subscriptions and shadow mode
_WRITE = "usage_write"
_ROLL_UP = "roll-up"


@asynccontextmanager
async def open_totals(url: str) -> AsyncIterator["SqlTotals"]:
    """The totals in the database at `url`; tables are created. Raises TotalsUnavailable."""
    engine = create_async_engine(url, pool_size=2, max_overflow=3, pool_pre_ping=True)
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine)
    try:
        async with _reported(), engine.execution_options(**{_WRITE: True}).begin() as connection:
            await connection.run_sync(bring_up_to_date)
            known = await connection.execute(select(CHORES.c.turn).where(CHORES.c.name == _ROLL_UP))
            if known.first() is None:
                await connection.execute(insert(CHORES).values(name=_ROLL_UP, turn=0))
        yield SqlTotals(engine)
    finally:
        await engine.dispose()


class SqlTotals:
    """A TotalsStore in a database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._writing = engine.execution_options(**{_WRITE: True})
        self._writer = secrets.randbits(62)
        self._series_ids: dict[Series, int] = {}  # committed ones only

    async def count(self, batches: Sequence[Batch]) -> frozenset[str]:
        """Add the batches not counted yet, all or none; the ids of those."""
        by_id = {one.event_id: one for one in batches}
        if not by_id:
            return frozenset()
        async with _reported():
            for _ in range(_ATTEMPTS - 1):
                # refused when another process wrote one of these ids or series first
                with contextlib.suppress(IntegrityError):
                    return await _unbroken(self._count(by_id))
            return await _unbroken(self._count(by_id))

    async def rows(self, selection: Selection) -> AsyncIterator[Row]:
        """The totals that begin in the selection."""
        wanted = [
            TOTALS.c.minute >= selection.from_minute,
            TOTALS.c.minute < selection.to_minute,
        ]
        if selection.api is not None:
            wanted.append(_equals(SERIES.c.api, selection.api))
        if selection.application is not None:
            wanted.append(_equals(SERIES.c.application, selection.application))
        if selection.subscription is not None:
            wanted.append(_equals(SERIES.c.subscription, selection.subscription))
        question = (
            select(TOTALS, *(column for column in SERIES.c if column.name not in ("id", "digest")))
            .join(SERIES, SERIES.c.id == TOTALS.c.series_id)
            .where(*wanted)
        )
        async with _reported(), self._engine.connect() as connection:
            async for found in await connection.stream(question):
                yield Row(found.minute, found.span_minutes, _series(found), _total(found))

    async def gaps(self, from_ms: int, to_ms: int) -> list[Gap]:
        """The losses that overlap this time, oldest first."""
        question = (
            select(GAPS)
            .where(GAPS.c.since_ms < to_ms, GAPS.c.until_ms >= from_ms)
            .order_by(GAPS.c.since_ms)
        )
        async with _reported(), self._engine.connect() as connection:
            return [
                Gap(one.node or "", one.entries, one.since_ms, one.until_ms, one.reason)
                for one in await connection.execute(question)
            ]

    async def roll_up(self, before_minute: int) -> int:
        """Add up minutes to hours, for the hours that end by then; how many rows went.

        Some series of one hour per transaction. Of several processes, one does it.
        """
        limit = before_minute - before_minute % MINUTES_PER_HOUR
        minutes = and_(TOTALS.c.span_minutes == 1, TOTALS.c.minute < limit)
        went = 0
        async with _reported():
            while True:
                async with self._writing.begin() as connection:
                    oldest = await connection.scalar(
                        select(func.min(TOTALS.c.minute)).where(minutes)
                    )
                    if oldest is None or not await _take_turn(connection):
                        return went
                    went += await self._roll_up_some(connection, oldest - oldest % MINUTES_PER_HOUR)

    async def forget(self, before_minute: int) -> int:
        """Delete totals and losses that are older; how many rows went."""
        ids_before = int(time() // 60) - _IDS_KEPT_MINUTES
        async with _reported(), self._writing.begin() as connection:
            gone = await connection.execute(
                delete(TOTALS).where(TOTALS.c.minute + TOTALS.c.span_minutes <= before_minute)
            )
            await connection.execute(
                delete(GAPS).where(GAPS.c.until_ms < before_minute * MINUTE_MS)
            )
            await connection.execute(delete(COUNTED).where(COUNTED.c.minute < ids_before))
            return max(gone.rowcount, 0)

    async def _count(self, by_id: Mapping[str, Batch]) -> frozenset[str]:
        async with self._writing.begin() as connection:
            known: set[str] = set()
            for chunk in _chunks(by_id):
                found = select(COUNTED.c.event_id).where(COUNTED.c.event_id.in_(chunk))
                known.update(await connection.scalars(found))
            fresh = {event_id: one for event_id, one in by_id.items() if event_id not in known}
            if not fresh:
                return frozenset()
            minute = int(time() // 60)
            await connection.execute(
                insert(COUNTED), [{"event_id": one, "minute": minute} for one in fresh]
            )
            lost = [_gap_values(event_id, one.gap) for event_id, one in fresh.items() if one.gap]
            if lost:
                await connection.execute(insert(GAPS), lost)
            totals: Totals = {}
            for one in fresh.values():
                add_up(totals, one.totals)
                await asyncio.sleep(0)
            ids = await self._identify(connection, {series for _, series in totals})
            await self._add(connection, totals, ids)
        self._series_ids.update(ids)
        return frozenset(fresh)

    async def _identify(
        self, connection: AsyncConnection, wanted: Iterable[Series]
    ) -> dict[Series, int]:
        """The ids of all `wanted`; new ones are inserted."""
        ids = {one: self._series_ids[one] for one in wanted if one in self._series_ids}
        unknown = {_digest(one): one for one in wanted if one not in ids}
        new = dict(unknown)
        for chunk in _chunks(unknown):
            found = select(SERIES.c.digest, SERIES.c.id).where(SERIES.c.digest.in_(chunk))
            for digest, number in await connection.execute(found):
                ids[new.pop(digest)] = number
        if new:
            await connection.execute(
                insert(SERIES),
                [{"digest": digest, **series._asdict()} for digest, series in new.items()],
            )
            for chunk in _chunks(new):
                found = select(SERIES.c.digest, SERIES.c.id).where(SERIES.c.digest.in_(chunk))
                for digest, number in await connection.execute(found):
                    ids[new[digest]] = number
        return ids

    async def _add(
        self, connection: AsyncConnection, totals: Totals, ids: Mapping[Series, int]
    ) -> None:
        """Add to the minute rows of this process."""
        by_minute: dict[int, dict[int, Total]] = {}
        for (minute, series), total in totals.items():
            by_minute.setdefault(minute, {})[ids[series]] = total
        changed, new = [], []
        for minute, parts in by_minute.items():
            mine = and_(
                TOTALS.c.minute == minute,
                TOTALS.c.span_minutes == 1,
                TOTALS.c.writer == self._writer,
            )
            for chunk in _chunks(parts):
                found = select(TOTALS).where(mine, TOTALS.c.series_id.in_(chunk)).with_for_update()
                for stored in await connection.execute(found):
                    total = parts.pop(stored.series_id)
                    total.merge(_total(stored))
                    changed.append({**_place(stored), **_amounts(total)})
            place = {"minute": minute, "span_minutes": 1, "writer": self._writer}
            new += [{**place, "series_id": key, **_amounts(one)} for key, one in parts.items()]
        for values in _chunks(changed):
            await connection.execute(_OVERWRITE, values)
        for values in _chunks(new):
            await connection.execute(insert(TOTALS), values)

    async def _roll_up_some(self, connection: AsyncConnection, hour: int) -> int:
        """Replace the rows of some series in that hour by one each; how many rows went."""
        within = and_(TOTALS.c.minute >= hour, TOTALS.c.minute < hour + MINUTES_PER_HOUR)
        some = list(
            await connection.scalars(
                select(TOTALS.c.series_id)
                .where(within, TOTALS.c.span_minutes == 1)
                .distinct()
                .limit(_ROLLED_UP_SERIES)
            )
        )
        hours: dict[int, Total] = {}
        gone = []
        found = select(TOTALS).where(within, TOTALS.c.series_id.in_(some)).with_for_update()
        for stored in await connection.execute(found):
            gone.append(_place(stored))
            hours.setdefault(stored.series_id, Total()).merge(_total(stored))
        place = {"minute": hour, "span_minutes": MINUTES_PER_HOUR, "writer": self._writer}
        await connection.execute(_REMOVE, gone)  # row by row: others may have come meanwhile
        await connection.execute(
            insert(TOTALS),
            [{**place, "series_id": key, **_amounts(total)} for key, total in hours.items()],
        )
        return len(gone)


_HERE = and_(
    TOTALS.c.minute == bindparam("at_minute"),
    TOTALS.c.span_minutes == bindparam("of_span"),
    TOTALS.c.series_id == bindparam("of_series"),
    TOTALS.c.writer == bindparam("of_writer"),
)
_AMOUNTS = ("requests", "request_bytes", "response_bytes", "duration_us", "upstream_us", "latency")
_OVERWRITE = update(TOTALS).where(_HERE).values({name: bindparam(name) for name in _AMOUNTS})
_REMOVE = delete(TOTALS).where(_HERE)


def _place(stored: SqlRow[Any]) -> dict[str, int]:
    return {
        "at_minute": stored.minute,
        "of_span": stored.span_minutes,
        "of_series": stored.series_id,
        "of_writer": stored.writer,
    }


def _amounts(total: Total) -> dict[str, int | bytes]:
    return {
        "requests": total.requests,
        "request_bytes": total.request_bytes,
        "response_bytes": total.response_bytes,
        "duration_us": total.duration_us,
        "upstream_us": total.upstream_us,
        "latency": total.latency.to_bytes(),
    }


def _total(stored: SqlRow[Any]) -> Total:
    return Total(
        stored.requests,
        stored.request_bytes,
        stored.response_bytes,
        stored.duration_us,
        stored.upstream_us,
        LatencySketch.from_bytes(stored.latency),
    )


def _series(stored: SqlRow[Any]) -> Series:
    return Series(
        stored.api or "",
        stored.method or "",
        stored.path or "",
        stored.application or "",
        stored.status_class,
        Outcome(stored.outcome),
        stored.subscription or "",
        stored.shadow or "",
    )


def _digest(series: Series) -> str:
    parts = tuple(series)
    while len(parts) > _OLDEST_COLUMNS and not parts[-1]:
        parts = parts[:-1]  # as it was before there were any
    return hashlib.sha256(repr(tuple(map(str, parts))).encode()).hexdigest()


def _gap_values(event_id: str, gap: Gap) -> dict[str, str | int]:
    return {
        "event_id": event_id,
        "node": gap.node[:NAME_MAX],
        "entries": gap.entries,
        "since_ms": gap.since_ms,
        "until_ms": gap.until_ms,
        "reason": gap.reason,
    }


def _equals(column: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    return column == text if text else or_(column == "", column.is_(None))


def _chunks(many: Iterable[_T]) -> Iterator[list[_T]]:
    rest = iter(list(many))
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk


async def _take_turn(connection: AsyncConnection) -> bool:
    """Whether the chore is ours: of several processes that read the same turn, one raises it."""
    turn = await connection.scalar(select(CHORES.c.turn).where(CHORES.c.name == _ROLL_UP))
    mine = CHORES.c.name == _ROLL_UP, CHORES.c.turn == turn
    raised = await connection.execute(update(CHORES).where(*mine).values(turn=CHORES.c.turn + 1))
    return raised.rowcount == 1


async def _unbroken(work: Coroutine[None, None, _T]) -> _T:
    """Do `work` to its end, also when cancelled: breaking it off would cost the connection."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


@asynccontextmanager
async def _reported() -> AsyncIterator[None]:
    """Say the driver's errors in the port's terms."""
    try:
        yield
    except (DataError, OverflowError) as error:
        raise TotalsRefused(str(error)) from error
    except (SQLAlchemyError, OSError) as error:
        raise TotalsUnavailable(str(getattr(error, "orig", None) or error)) from error


def _prepare_sqlite(engine: AsyncEngine) -> None:
    """Writers queue instead of failing half-way, readers see a snapshot and block nobody."""

    @event.listens_for(engine.sync_engine, "connect")
    def connected(raw: DBAPIConnection, _: ConnectionPoolEntry) -> None:
        raw.isolation_level = None  # we say BEGIN ourselves
        cursor = raw.cursor()
        for pragma in ("journal_mode=WAL", f"busy_timeout={_BUSY_MS}"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITE)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
