"""Doors to SQL databases: a transaction is a function of a connection, run off the event loop.

SQLite runs in this process, in a thread of its own for writers and one for readers: a transaction
costs one hop between threads, not one per statement. It keeps a write-ahead log. Writes are
synced (`synchronous=FULL`, one fsync per commit) unless the caller can bear to lose them.

Servers are spoken to with an asyncio driver.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from controller.errors import StorageUnusable

Result = TypeVar("Result")

BUSY_MS = 5000  # how long SQLite waits for a writer of another process
_ASYNC_DRIVERS = {
    "postgresql": "asyncpg",
    "mysql": "aiomysql",
    "mariadb": "aiomysql",
    "oracle": "oracledb_async",
    "mssql": "aioodbc",
}


class Database(Protocol):
    """Runs transactions. Raises SQLAlchemy's errors."""

    where: str
    """The URL without the password."""

    one_writer: bool
    """Whether no two writing transactions ever overlap."""

    async def write(self, work: Callable[[Connection], Result], *, synced: bool = True) -> Result:
        """Run `work` in a transaction; unless `synced`, a power failure may undo it."""
        ...

    async def read(self, work: Callable[[Connection], Result]) -> Result:
        """Run `work`, which only reads."""
        ...

    async def close(self) -> None:
        """Let go of all connections."""
        ...


def connect(database_url: str) -> Database:
    """The door to the database at `database_url`. Raises StorageUnusable."""
    try:
        url = make_url(database_url)
    except ArgumentError as error:
        raise StorageUnusable(f"the database URL cannot be read: {error}") from error
    if url.get_backend_name() == "sqlite":
        if url.database in (None, "", ":memory:"):
            raise StorageUnusable(
                "a SQLite database needs a file, such as sqlite:////var/lib/signalbox/record.db; "
                "to store nothing, choose the tier basic"
            )
        return SqliteDatabase(url.set(drivername="sqlite"))
    backend = "postgresql" if url.get_backend_name() == "postgres" else url.get_backend_name()
    if backend not in _ASYNC_DRIVERS:
        known = ", ".join(("sqlite", *_ASYNC_DRIVERS))
        raise StorageUnusable(f"unknown kind of database {backend!r}: use one of {known}")
    named = "+" in url.drivername
    return ServerDatabase(
        url if named else url.set(drivername=f"{backend}+{_ASYNC_DRIVERS[backend]}")
    )


class SqliteDatabase:
    """See Database."""

    one_writer = True

    def __init__(self, url: URL) -> None:
        self.where = url.render_as_string(hide_password=True)
        self._synced = _sqlite(url, "FULL", "BEGIN IMMEDIATE")
        self._unsynced = _sqlite(url, "NORMAL", "BEGIN IMMEDIATE")
        self._reads = _sqlite(url, "NORMAL", "BEGIN")
        self._writer = ThreadPoolExecutor(1, "sqlite-writer")
        self._reader = ThreadPoolExecutor(1, "sqlite-reader")

    async def write(self, work: Callable[[Connection], Result], *, synced: bool = True) -> Result:
        """See Database."""
        engine = self._synced if synced else self._unsynced
        return await self._run(self._writer, engine, work)

    async def read(self, work: Callable[[Connection], Result]) -> Result:
        """See Database."""
        return await self._run(self._reader, self._reads, work)

    @staticmethod
    async def _run(
        thread: ThreadPoolExecutor, engine: Engine, work: Callable[[Connection], Result]
    ) -> Result:
        def transaction() -> Result:
            with engine.begin() as connection:
                return work(connection)

        return await asyncio.get_running_loop().run_in_executor(thread, transaction)

    async def close(self) -> None:
        """See Database."""
        for thread in (self._writer, self._reader):
            await asyncio.to_thread(thread.shutdown)
        for engine in (self._synced, self._unsynced, self._reads):
            engine.dispose()


def _sqlite(url: URL, synchronous: str, begin: str) -> Engine:
    engine = create_engine(url, pool_size=1, max_overflow=0)

    def prepare(connection: DBAPIConnection, _record: object) -> None:
        connection.isolation_level = None  # `begin` below begins, not the driver
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout = {BUSY_MS}",
            "journal_mode = WAL",
            f"synchronous = {synchronous}",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    event.listen(engine, "connect", prepare)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


class ServerDatabase:
    """See Database."""

    one_writer = False

    def __init__(self, url: URL) -> None:
        self.where = url.render_as_string(hide_password=True)
        try:
            self._engine: AsyncEngine = create_async_engine(url, pool_pre_ping=True)
        except (NoSuchModuleError, ModuleNotFoundError) as error:
            raise StorageUnusable(
                f"the driver of the database {self.where} is not installed: {error}"
            ) from error

    async def write(self, work: Callable[[Connection], Result], *, synced: bool = True) -> Result:
        """See Database; how durable a commit is, is set at the server."""
        del synced
        async with self._engine.begin() as connection:
            return await connection.run_sync(work)

    async def read(self, work: Callable[[Connection], Result]) -> Result:
        """See Database."""
        async with self._engine.connect() as connection:
            return await connection.run_sync(work)

    async def close(self) -> None:
        """See Database."""
        await self._engine.dispose()
