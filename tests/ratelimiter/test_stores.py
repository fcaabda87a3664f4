"""The contract of every store: memory, one server, found by Sentinel, a cluster of three nodes."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from policy_engine.rate_limits.limits import Algorithm, Calendar, Hits, Limit, Quota
from ratelimiter.counters import REFUND, Counted, Part, Take
from ratelimiter.ports import Due
from ratelimiter.stores.redis import RedisStore
from tests.ratelimiter.stores import KINDS, Timed, running, takes

DAY_S = 86_400.0
EVERY = tuple(Algorithm)


@pytest_asyncio.fixture(params=KINDS, scope="module", loop_scope="module")
async def timed(request: pytest.FixtureRequest) -> AsyncIterator[Timed]:
    async with running(request.param) as found:
        yield found


pytestmark = pytest.mark.asyncio(loop_scope="module")


def quota(name: str, *limits: Limit, algorithm: Algorithm = Algorithm.FIXED_WINDOW) -> Quota:
    return Quota(f"{name} {algorithm}", limits or (Limit(10, DAY_S),), algorithm=algorithm)


@pytest.mark.parametrize("algorithm", EVERY)
async def test_what_is_charged_afterwards_stops_at_the_limit(
    timed: Timed, algorithm: Algorithm
) -> None:
    of = quota("charge", algorithm=algorithm)
    for charged, left in ((4, 6), (4, 2), (4, 0), (4, 0)):
        (standing,) = await timed.one(takes(of, "a", charged, Hits.CHARGE))
        assert standing.remaining == left
        assert not standing.refused
    (standing,) = await timed.one(takes(of, "a", 1, Hits.CONSUME))
    assert standing.refused


@pytest.mark.parametrize("algorithm", EVERY)
async def test_a_check_passes_while_anything_is_left_and_counts_nothing(
    timed: Timed, algorithm: Algorithm
) -> None:
    of = quota("check", algorithm=algorithm)
    for _ in range(3):
        (standing,) = await timed.one(takes(of, "a", 100, Hits.CHECK))
        assert (standing.refused, standing.remaining) == (False, 10)
    await timed.one(takes(of, "a", 10, Hits.CONSUME))
    (standing,) = await timed.one(takes(of, "a", 1, Hits.CHECK))
    assert standing.refused
    assert 0 < standing.retry_us <= 2 * DAY_S * 1e6


@pytest.mark.parametrize("algorithm", EVERY)
async def test_zero_hits_are_free_even_over_the_limit(timed: Timed, algorithm: Algorithm) -> None:
    of = quota("free", algorithm=algorithm)
    await timed.one(takes(of, "a", 10))
    (standing,) = await timed.one(takes(of, "a", 0))
    assert not standing.refused


@pytest.mark.parametrize("algorithm", EVERY)
async def test_hits_can_be_given_back(timed: Timed, algorithm: Algorithm) -> None:
    of = quota("refund", algorithm=algorithm)
    await timed.one(takes(of, "a", 8))
    (standing,) = await timed.one(takes(of, "a", 5, REFUND))
    assert standing.remaining == 7
    (standing,) = await timed.one(takes(of, "a", 50, REFUND))
    assert standing.remaining == 10


@pytest.mark.parametrize("algorithm", EVERY)
async def test_a_group_is_taken_whole_or_not_at_all(timed: Timed, algorithm: Algorithm) -> None:
    of = quota("whole", Limit(10, DAY_S), Limit(3, DAY_S), algorithm=algorithm)
    for _ in range(5):
        standings = await timed.one(takes(of, "a"))
    assert [standing.remaining for standing in standings] == [7, 0]
    assert [standing.refused for standing in standings] == [False, True]


async def test_a_counter_that_is_named_twice_in_a_group_counts_twice(timed: Timed) -> None:
    of = quota("twice", Limit(3, DAY_S))
    double = takes(of, "a") + takes(of, "a")
    assert [one.remaining for one in await timed.one(double)][-1] == 1
    assert any(one.refused for one in await timed.one(double))
    (standing,) = await timed.one(takes(of, "a", 0))
    assert standing.remaining == 1


async def test_groups_of_a_part_do_not_depend_on_each_other(timed: Timed) -> None:
    small, large = quota("small", Limit(1, DAY_S)), quota("large", Limit(5, DAY_S))
    first, second = takes(small, "a"), takes(large, "a")
    if timed.store.splits:
        pytest.skip("parts of one tag only")
    part = Part(first[0].tag, (first, second))
    for left in (4, 3):
        decided = await timed.store.decide(timed.store.place(part.tag), [part])
        assert decided.standings[0] is not None
        assert decided.standings[0][1].remaining == left
    assert decided.standings[0][0].refused


async def test_calls_at_once_get_no_more_than_the_limit(timed: Timed) -> None:
    of = quota("at once", Limit(50, DAY_S))

    async def some() -> int:
        batches = [await timed.decide(*[takes(of, "a")] * 10) for _ in range(5)]
        return sum(not one.refused for batch in batches for (one,) in batch)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(some()) for _ in range(4)]
    assert sum(task.result() for task in tasks) == 50


async def test_another_limit_is_another_counter_and_the_same_one_is_the_same(timed: Timed) -> None:
    before = quota("update", Limit(5, DAY_S))
    after = Quota(before.bucket, (Limit(6, DAY_S), Limit(5, DAY_S)), name="renamed")
    await timed.one(takes(before, "a", 4))
    assert [one.remaining for one in await timed.one(takes(after, "a", 0))] == [6, 1]


@pytest.mark.parametrize("algorithm", EVERY)
@pytest.mark.parametrize(("hits", "duration_s"), [(7, 3.7), (1_000, 60.0), (3, 86_400.0)])
async def test_who_waits_as_told_gets_in_and_nobody_does_before(
    timed: Timed, algorithm: Algorithm, hits: int, duration_s: float
) -> None:
    of = quota(f"wait {hits}", Limit(hits, duration_s), algorithm=algorithm)
    await timed.one(takes(of, "a", hits))
    for _ in range(5):
        (standing,) = await timed.one(takes(of, "a"))
        assert standing.refused
        timed.pass_us(standing.retry_us - 20)
        assert (await timed.one(takes(of, "a")))[0].refused
        timed.pass_us(21)
        (standing,) = await timed.one(takes(of, "a"))
        assert not standing.refused
        if standing.remaining:
            await timed.one(takes(of, "a", standing.remaining))


# -- merging -----------------------------------------------------------------------------------


def due(of: Quota, floor: Counted, *counted: Counted, client: str = "a") -> Due:
    (take,) = takes(of, client)
    return Due(take.key, take.rule, floor, counted)


async def merge(timed: Timed, one: Due) -> None:
    await timed.store.merge(timed.store.place(one.tag), [one])


async def left(timed: Timed, of: Quota) -> int:
    (standing,) = await timed.one(takes(of, "a", 0))
    return standing.remaining


@pytest.mark.parametrize("calendar", [False, True], ids=["duration", "calendar"])
async def test_what_was_counted_elsewhere_is_added_in_its_window_only(
    timed: Timed, calendar: bool
) -> None:
    limit = Limit(10, calendar=Calendar.DAY) if calendar else Limit(10, DAY_S)
    of = quota(f"merge {calendar}", limit)
    await timed.one(takes(of, "a", 2))
    end = limit.window_end_us(timed.now_us)
    await merge(timed, due(of, Counted(end, 2), Counted(end, 3), Counted(end - 86_400_000_000, 4)))
    assert await left(timed, of) == 5
    await merge(timed, due(of, Counted(end, 2), Counted(end, 100)))
    assert await left(timed, of) == 0  # at the limit, not beyond


async def test_hits_of_a_sliding_window_are_merged_when_they_were_made(timed: Timed) -> None:
    of = quota("merge", Limit(10, 16.0), algorithm=Algorithm.SLIDING_WINDOW)
    now = timed.now_us
    ago = [Counted(now - seconds * 1_000_000, 2) for seconds in (15, 8, 17)]
    await merge(timed, due(of, Counted(0, 0), *ago))
    assert await left(timed, of) == 6
    timed.pass_us(4_000_000)
    assert await left(timed, of) == 8
    timed.pass_us(10_000_000)
    assert await left(timed, of) == 10


async def test_a_bucket_takes_what_is_in_the_other(timed: Timed) -> None:
    of = quota("merge", Limit(10, 10.0), algorithm=Algorithm.GCRA)
    await timed.one(takes(of, "a", 2))
    await merge(timed, due(of, Counted(0, 0), Counted(timed.now_us, 3.5)))
    assert await left(timed, of) == 4
    timed.pass_us(2_000_000)
    assert await left(timed, of) == 6


@pytest.mark.parametrize("algorithm", EVERY)
async def test_what_the_store_had_counted_is_counted_again_if_it_was_lost(
    timed: Timed, algorithm: Algorithm
) -> None:
    limit = Limit(10, DAY_S)
    of = quota("floor", limit, algorithm=algorithm)
    fixed = algorithm is Algorithm.FIXED_WINDOW
    at_us = limit.window_end_us(timed.now_us) if fixed else timed.now_us
    one = due(of, Counted(at_us, 6), Counted(at_us, 1))
    await merge(timed, one)
    assert await left(timed, of) == 3
    await merge(timed, one._replace(counted=(Counted(at_us, 2),)))  # another limiter's
    assert await left(timed, of) == 1


async def test_many_counters_are_merged_in_one_go(timed: Timed) -> None:
    of = quota("many", Limit(10, DAY_S))
    end = of.limits[0].window_end_us(timed.now_us)
    clients = [str(number) for number in range(350)]
    dues = [due(of, Counted(0, 0), Counted(end, 4), client=client) for client in clients]
    by_place: dict[object, list[Due]] = {}
    for one in dues:
        by_place.setdefault(timed.store.place(one.tag), []).append(one)
    for place, mine in by_place.items():
        await timed.store.merge(place, mine)
    answers = await timed.decide(*(takes(of, client, 0) for client in clients))
    assert {one.remaining for (one,) in answers} == {6}


# -- what only servers do ----------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", EVERY)
async def test_a_server_that_lost_the_script_is_told_it_again(
    timed: Timed, algorithm: Algorithm
) -> None:
    store = timed.store
    if not isinstance(store, RedisStore):
        pytest.skip("no server")
    of = quota("flushed", algorithm=algorithm)
    await timed.one(takes(of, "a"))
    for place in {store.place(tag) for tag in range(256)}:
        assert await store._exchange(place, [(b"SCRIPT", b"FLUSH")]) == [b"OK"]
    assert (await timed.one(takes(of, "a")))[0].remaining == 8


@pytest.mark.parametrize("algorithm", EVERY)
async def test_keys_expire_when_nothing_of_them_matters_any_more(
    timed: Timed, algorithm: Algorithm
) -> None:
    store = timed.store
    if not isinstance(store, RedisStore):
        pytest.skip("no server")
    of = quota("expiry", Limit(10, 60.0), algorithm=algorithm)
    (take,) = takes(of, "a", 3)
    (standing,) = await timed.one((take,))
    (expires_ms,) = await store._exchange(store.place(take.tag), [(b"PEXPIRETIME", take.key)])
    over_ms = (timed.now_us + standing.reset_us) // 1_000
    assert over_ms <= expires_ms <= over_ms + 2
    assert standing.reset_us <= 60_000_000 * 17 // 16 + 1


async def test_names_of_counters_tell_nobody_who_calls(timed: Timed) -> None:
    of = quota("private", Limit(10, 60.0))
    (take,) = takes(of, "203.0.113.9")
    assert isinstance(take, Take)
    assert b"203.0.113.9" not in take.key
    assert take.key.startswith(b"ratelimit:v1:{%02x}" % take.tag)
    assert take.key.endswith(b":f10/60000000")
