"""The record on SQLite: what a file, another process and an older program do to it."""

import sqlite3
from pathlib import Path

import pytest
import sqlalchemy.exc
from sqlalchemy import Connection, text

from bus.resources.subscription import Subscription
from controller.database import connect
from controller.errors import (
    Raced,
    SchemaTooNew,
    StorageError,
    StorageUnavailable,
    StorageUnusable,
)
from controller.resources import ResourceFilter
from controller.schema import VERSION, bring_up_to_date
from controller.sql import SqlRecord, mapped
from tests.controller.samples import NOW, api, key, plan, put, subscription


def url(path: Path) -> str:
    return f"sqlite:///{path}"


async def test_everything_is_there_after_a_restart(tmp_path: Path) -> None:
    first = await SqlRecord.open(url(tmp_path / "record.db"))
    await put(first, api(), key(), subscription())
    pending = await first.pending(10)
    await first.close()
    second = await SqlRecord.open(url(tmp_path / "record.db"))
    assert await second.everything() == ([api()], [key()], [subscription()])
    assert list(await second.pending(10)) == list(pending)
    await second.close()


async def test_commits_are_synced_with_a_write_ahead_log(tmp_path: Path) -> None:
    database = connect(url(tmp_path / "record.db"))

    def pragmas(connection: Connection) -> tuple[object, object]:
        mode = connection.execute(text("PRAGMA journal_mode")).scalar()
        return mode, connection.execute(text("PRAGMA synchronous")).scalar()

    assert await database.write(pragmas) == ("wal", 2)
    assert await database.write(pragmas, synced=False) == ("wal", 1)
    assert await database.read(pragmas) == ("wal", 1)
    await database.close()


async def test_a_database_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "record.db"
    await (await SqlRecord.open(url(path))).close()
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE controller_schema SET version = 99")
    raw.close()
    with pytest.raises(SchemaTooNew, match="schema version 99, this program knows up to 3"):
        await SqlRecord.open(url(path))


async def test_an_older_database_is_migrated_step_by_step(tmp_path: Path) -> None:
    path = tmp_path / "record.db"
    record = await SqlRecord.open(url(path))
    await put(record, api())
    await record.close()
    steps = {
        VERSION + 1: lambda c: c.execute(text("ALTER TABLE rest_apis ADD COLUMN one INTEGER")),
        VERSION + 2: lambda c: c.execute(text("UPDATE rest_apis SET one = 7")),
    }
    database = connect(url(path))
    for _ in range(2):  # the second time there is nothing to do
        await database.write(
            lambda c: bring_up_to_date(c, "here", version=VERSION + 2, migrations=steps)
        )
    assert await database.read(lambda c: c.execute(text("SELECT one FROM rest_apis")).scalar()) == 7
    await database.close()
    with pytest.raises(SchemaTooNew):
        await SqlRecord.open(url(path))


async def test_a_database_of_version_1_learns_who_is_on_which_context(tmp_path: Path) -> None:
    path = tmp_path / "record.db"
    record = await SqlRecord.open(url(path))
    await put(record, api(), api("off", deploymentState="undeployed"), api("gone").tombstone(NOW))
    await record.close()
    with sqlite3.connect(path) as raw:
        raw.execute("DROP INDEX rest_apis_context")
        raw.execute("ALTER TABLE rest_apis DROP COLUMN context_digest")
        raw.execute("DROP TABLE contexts")
        raw.execute("DROP TABLE resources")
        raw.execute("UPDATE controller_schema SET version = 1")
    raw.close()
    again = await SqlRecord.open(url(path))
    for name, found in (("weather", [api()]), ("off", []), ("gone", [])):
        context = f"/{name.upper()}/V1.0"
        assert await again.change(lambda unit, at=context: list(unit.on_context(at))) == found
    await again.close()


async def test_a_database_of_version_2_takes_plans_and_subscriptions(tmp_path: Path) -> None:
    path = tmp_path / "record.db"
    record = await SqlRecord.open(url(path))
    await put(record, api())
    await record.close()
    with sqlite3.connect(path) as raw:
        raw.execute("DROP TABLE resources")
        raw.execute("UPDATE controller_schema SET version = 2")
    raw.close()
    again = await SqlRecord.open(url(path))
    await put(again, plan(), subscription(subscription_plan_id="gold"))
    found = await again.resources(Subscription, ResourceFilter(plan="gold"))
    assert [one.resource.id for one in found] == ["s-1"]
    await again.close()


async def test_a_migration_that_fails_leaves_the_older_database(tmp_path: Path) -> None:
    path = tmp_path / "record.db"
    record = await SqlRecord.open(url(path))
    await put(record, api())
    await record.close()
    steps = {
        VERSION + 1: lambda c: c.execute(text("DROP TABLE api_keys")),
        VERSION + 2: lambda c: c.execute(text("nonsense")),
    }
    database = connect(url(path))
    with pytest.raises(sqlalchemy.exc.OperationalError):
        await database.write(
            lambda c: bring_up_to_date(c, "here", version=VERSION + 2, migrations=steps)
        )
    await database.close()
    again = await SqlRecord.open(url(path))
    assert await again.everything() == ([api()], [], [])
    await again.close()


@pytest.mark.parametrize(
    ("database_url", "words"),
    [
        ("sqlite:////nowhere/at/all/record.db", "unable to open database file"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("nonsense", "cannot be read"),
        ("mongodb://localhost/x", "unknown kind of database 'mongodb'"),
        ("postgresql://user:pw@127.0.0.1/x", "driver of the database .* is not installed"),
    ],
)
async def test_a_database_that_cannot_be_used_is_one_clear_sentence(
    database_url: str, words: str
) -> None:
    with pytest.raises(StorageUnusable, match=words) as caught:
        await SqlRecord.open(database_url)
    assert "pw" not in str(caught.value)


async def test_a_database_that_may_only_be_read_is_one_clear_sentence(tmp_path: Path) -> None:
    path = tmp_path / "record.db"
    await (await SqlRecord.open(url(path))).close()
    with pytest.raises(StorageUnusable, match="readonly database"):
        await SqlRecord.open(f"sqlite:///file:{path}?mode=ro&uri=true")


async def test_a_file_that_is_no_database_is_one_clear_sentence(tmp_path: Path) -> None:
    path = tmp_path / "record.db"
    path.write_text("this is a letter to grandmother, not a database\n" * 50)
    with pytest.raises(StorageUnusable, match="file is not a database"):
        await SqlRecord.open(url(path))


async def test_a_database_that_may_only_be_read_refuses_changes_and_answers_reads(
    tmp_path: Path,
) -> None:
    path = tmp_path / "record.db"
    first = await SqlRecord.open(url(path))
    await put(first, api())
    with sqlite3.connect(path) as other:
        # what a lost permission or a full disk does, also when the tests run as root
        other.execute(
            "CREATE TRIGGER full BEFORE UPDATE ON rest_apis "
            "BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
        )
    other.close()
    with pytest.raises(StorageError, match="disk is full"):
        await put(first, api())
    assert await first.api("weather") == api()
    assert len(await first.pending(10)) == 1
    await first.close()


async def test_a_writer_in_another_process_is_waited_for_and_then_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.database.BUSY_MS", 50)
    path = tmp_path / "record.db"
    record = await SqlRecord.open(url(path))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StorageUnavailable, match="locked"):
        await put(record, api())
    assert await record.api("weather") is None  # readers are not kept
    other.execute("ROLLBACK")
    other.close()
    await put(record, api())
    await record.close()


async def test_two_processes_share_one_record(tmp_path: Path) -> None:
    one = await SqlRecord.open(url(tmp_path / "record.db"))
    two = await SqlRecord.open(url(tmp_path / "record.db"))
    await put(one, api("a"))
    await put(two, api("b"))
    assert {row.handle for row in (await one.everything())[0]} == {"a", "b"}
    assert [outgoing.number for outgoing in await two.pending(10)] == [1, 2]
    await one.close()
    await two.close()


def _driver_errors() -> list[type[sqlalchemy.exc.SQLAlchemyError]]:
    found = [sqlalchemy.exc.DBAPIError]
    for one in found:
        found.extend(one.__subclasses__())
    return [*found, sqlalchemy.exc.TimeoutError, sqlalchemy.exc.ResourceClosedError]


@pytest.mark.parametrize("kind", _driver_errors(), ids=lambda kind: kind.__name__)
def test_every_error_of_a_driver_is_mapped(kind: type[sqlalchemy.exc.SQLAlchemyError]) -> None:
    error = (
        kind("SELECT 1", {}, Exception("words of the driver"))
        if issubclass(kind, sqlalchemy.exc.DBAPIError)
        else kind("closed")
    )
    expected = Raced if issubclass(kind, sqlalchemy.exc.IntegrityError) else StorageUnavailable
    with pytest.raises(expected), mapped():
        raise error
