"""One contract for every store of totals."""

import asyncio
import sqlite3
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from analytics.errors import TotalsUnavailable
from analytics.memory import MemoryTotals
from analytics.ports import Selection
from analytics.sql import open_totals
from analytics.subscription_usage import Served
from analytics.subscription_usage import served as served_by
from analytics.totals import Batch, Gap, Total, fold, summed
from tests.analytics.batches import HOUR_MINUTE, HOUR_MS, ORDERS, Call, served

ALL = Selection(0, HOUR_MINUTE * 2)


@asynccontextmanager
async def _memory(_):
    yield MemoryTotals()


def _sqlite(folder):
    return open_totals(f"sqlite+aiosqlite:///{folder}/totals.db")


@pytest.fixture(params=["memory", "sqlite"])
async def store(request, tmp_path):
    async with {"memory": _memory, "sqlite": _sqlite}[request.param](tmp_path) as opened:
        yield opened


def batch(event_id, *calls):
    return Batch(event_id, fold(served(calls or [Call()])))


async def stored(store, selection=ALL):
    """All rows of the selection, parts added, by (minute, span, series)."""
    places = {}
    async for row in store.rows(selection):
        place = row.minute, row.span_minutes, row.series
        places.setdefault(place, Total()).merge(row.total)
    return places


async def requests(store, selection=ALL):
    return sum(total.requests for total in (await stored(store, selection)).values())


async def test_totals_of_batches_add_up(store):
    one = batch("one", Call(duration_us=10), Call(route=ORDERS, application="shop"))
    two = batch("two", Call(duration_us=4_000_000), Call(at_ms=HOUR_MS + 60_000))
    three = batch("three", Call(status=500), Call(duration_us=77))
    assert await store.count([one, two]) == {"one", "two"}
    assert await store.count([three]) == {"three"}
    wanted = summed([one.totals, two.totals, three.totals])
    assert await stored(store) == {
        (minute, 1, series): total for (minute, series), total in wanted.items()
    }


async def test_a_batch_that_comes_again_counts_once(store):
    assert await store.count([batch("one"), batch("two")]) == {"one", "two"}
    assert await store.count([batch("two"), batch("three")]) == {"three"}
    assert await store.count([batch("one"), batch("three")]) == frozenset()
    assert await requests(store) == 3


async def test_a_batch_that_is_twice_in_one_write_counts_once(store):
    assert await store.count([batch("one"), batch("one")]) == {"one"}
    assert await requests(store) == 1


async def test_counting_leaves_the_batches_alone(store):
    one, two = batch("one"), batch("two")
    await store.count([one, two])
    await store.count([batch("three")])
    assert one == batch("one")
    assert two == batch("two")


async def test_nothing_to_count_is_nothing_counted(store):
    assert await store.count([]) == frozenset()


async def test_rows_are_those_selected(store):
    await store.count(
        [
            batch("one", Call(), Call(application="shop")),
            batch("two", Call(route=ORDERS, at_ms=HOUR_MS + 60_000), Call(route="", status=404)),
        ]
    )
    assert await requests(store, Selection(HOUR_MINUTE, HOUR_MINUTE + 1)) == 3
    assert await requests(store, Selection(HOUR_MINUTE + 1, HOUR_MINUTE + 2)) == 1
    assert await requests(store, Selection(0, HOUR_MINUTE)) == 0
    assert await requests(store, Selection(0, HOUR_MINUTE * 2, api="weather")) == 2
    assert await requests(store, Selection(0, HOUR_MINUTE * 2, api="")) == 1
    assert await requests(store, Selection(0, HOUR_MINUTE * 2, application="shop")) == 1
    assert await requests(store, Selection(0, HOUR_MINUTE * 2, application="")) == 3
    assert await requests(store, Selection(0, HOUR_MINUTE * 2, api="weather", application="")) == 1


async def test_a_gap_is_kept_once(store):
    gap = Gap("router-1", 17, HOUR_MS, HOUR_MS + 500, "buffer-full")
    later = Gap("router-1", 1, HOUR_MS + 60_000, HOUR_MS + 60_000, "unreadable")
    assert await store.count([Batch("later", gap=later), Batch("gap", gap=gap)]) == {"gap", "later"}
    assert await store.count([Batch("gap", gap=gap)]) == frozenset()
    assert await store.gaps(HOUR_MS - 1, HOUR_MS + 120_000) == [gap, later]
    assert await store.gaps(HOUR_MS + 501, HOUR_MS + 120_000) == [later]
    assert await store.gaps(HOUR_MS - 1, HOUR_MS) == []


async def test_minutes_of_ended_hours_become_hours(store):
    calls = [Call(at_ms=HOUR_MS + minute * 60_000, duration_us=1 + minute) for minute in range(70)]
    calls += [call._replace(route=ORDERS) for call in calls]
    await store.count([batch("one", *calls)])
    assert await store.roll_up(HOUR_MINUTE + 65) == 120

    places = await stored(store)
    hours = [total for (minute, span, _), total in places.items() if span == 60]
    assert [total.requests for total in hours] == [60, 60]
    assert [total.latency.count for total in hours] == [60, 60]
    assert len(places) == 2 + 2 * 10
    assert await requests(store) == 140
    assert await store.roll_up(HOUR_MINUTE + 65) == 0


async def test_what_comes_late_is_added_to_its_hour(store):
    await store.count([batch("one")])
    await store.roll_up(HOUR_MINUTE + 60)
    await store.count([batch("late"), batch("later", Call(at_ms=HOUR_MS + 60_000))])
    assert await requests(store) == 3
    await store.roll_up(HOUR_MINUTE + 60)
    assert [total.requests for total in (await stored(store)).values()] == [3]


async def test_many_series_of_an_hour_are_rolled_up(store):
    calls = [Call(route=f"GET|/a/{number}|*|a") for number in range(1234)]
    calls += [call._replace(at_ms=call.at_ms + 60_000) for call in calls]
    await store.count([batch("one", *calls)])
    await store.roll_up(HOUR_MINUTE + 60)
    places = await stored(store)
    assert len(places) == 1234
    assert {total.requests for total in places.values()} == {2}


async def test_what_is_too_old_is_forgotten(store):
    old = Gap("router-1", 17, HOUR_MS, HOUR_MS + 500, "buffer-full")
    await store.count([batch("old"), batch("new", Call(at_ms=HOUR_MS + 3_600_000))])
    await store.count([Batch("gap", gap=old)])
    await store.roll_up(HOUR_MINUTE + 60)
    assert await store.forget(HOUR_MINUTE + 59) == 0  # the hour has not ended by then
    assert await store.forget(HOUR_MINUTE + 60) == 1
    assert await requests(store) == 1
    assert await store.gaps(0, HOUR_MS * 2) == []


async def test_memory_is_bounded_and_the_oldest_minutes_go_first():
    store = MemoryTotals(rows_max=10)
    for minute in range(50):
        await store.count([batch(f"{minute}", Call(at_ms=HOUR_MS + minute * 60_000))])
    minutes = sorted(minute for minute, _, _ in await stored(store))
    assert minutes == list(range(HOUR_MINUTE + 40, HOUR_MINUTE + 50))


async def test_several_processes_count_each_batch_once(tmp_path):
    """Two writers on one database, both given every batch, at the same time."""
    async with _sqlite(tmp_path) as one, _sqlite(tmp_path) as two:
        batches = [batch(f"{number}", Call(), Call(route=ORDERS)) for number in range(40)]
        counted = await asyncio.gather(
            *(
                store.count(batches[start : start + 7])
                for start in range(0, 40, 5)
                for store in (one, two)
            )
        )
        assert sum(map(len, counted)) == 40
        assert await requests(one) == await requests(two) == 80

        went = await asyncio.gather(one.roll_up(HOUR_MINUTE + 60), two.roll_up(HOUR_MINUTE + 60))
        assert sum(went) > 0
        places = await stored(one)
        assert [span for _, span, _ in places] == [60, 60]
        assert await requests(two) == 80


async def test_totals_outlive_the_process(tmp_path):
    async with _sqlite(tmp_path) as first:
        await first.count([batch("one")])
    async with _sqlite(tmp_path) as second:
        assert await second.count([batch("one"), batch("two")]) == {"two"}
        assert await requests(second) == 2


async def test_a_database_that_cannot_be_opened_is_unavailable(tmp_path):
    with pytest.raises(TotalsUnavailable, match="unable to open"):
        async with _sqlite(tmp_path / "missing"):
            pass


async def test_what_a_subscription_has_used_is_told_apart(store):
    mine = Call(subscription="s-1", application="shop")
    calls = [
        mine,
        mine._replace(at_ms=HOUR_MS + 59_999),
        mine._replace(at_ms=HOUR_MS + 60_000, status=500),
        mine._replace(status=429, details="local_rate_limited"),
        mine._replace(subscription="s-2"),
        Call(application="shop"),
    ]
    await store.count([batch("one", *calls)])
    start = datetime.fromtimestamp(HOUR_MS / 1000, UTC)
    minute, hour = timedelta(minutes=1), timedelta(hours=1)
    assert await served_by(store, "s-1", start, start + minute) == Served(2, 1)
    assert await served_by(store, "s-1", start, start + hour) == Served(3, 1)
    assert await served_by(store, "s-2", start, start + hour) == Served(1, 0)
    assert await served_by(store, "s-3", start, start + hour) == Served(0, 0)
    assert await requests(store, Selection(0, HOUR_MINUTE * 2, subscription="")) == 1
    await store.roll_up(HOUR_MINUTE + 60)
    assert await served_by(store, "s-1", start, start + hour) == Served(3, 1)


async def test_a_database_that_is_older_than_subscriptions_learns_of_them(tmp_path):
    async with _sqlite(tmp_path) as opened:
        await opened.count([batch("one", Call())])
    with sqlite3.connect(tmp_path / "totals.db") as raw:
        raw.execute("DROP INDEX usage_series_by_subscription")
        raw.execute("ALTER TABLE usage_series DROP COLUMN subscription")
        raw.execute("ALTER TABLE usage_series DROP COLUMN shadow")
    raw.close()
    for _ in range(2):
        async with _sqlite(tmp_path) as opened:
            calls = Call(), Call(subscription="s-1"), Call(shadow=("csrf: no origin",))
            await opened.count([batch("two", *calls)])
            assert await requests(opened) == 4
            every = {row.series.shadow async for row in opened.rows(Selection(0, HOUR_MINUTE * 2))}
            assert every == {"", "csrf"}
            assert await requests(opened, Selection(0, HOUR_MINUTE * 2, subscription="s-1")) == 1
    with sqlite3.connect(tmp_path / "totals.db") as raw:
        (series,) = raw.execute("SELECT count(*) FROM usage_series").fetchone()
    raw.close()
    assert series == 3  # what was there before goes on
