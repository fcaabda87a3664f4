"""Every algorithm on every store against what it promises, under random traffic.

The reference remembers each hit that passed and when, in exact numbers; it shares no code and no
idea of how to count with what is tested.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from policy_engine.rate_limits.limits import Algorithm, Calendar, Limit, Quota
from ratelimiter.counters import Standing
from tests.ratelimiter.stores import KINDS, Timed, held, takes

EXAMPLES = 40
CLOSE = Fraction(1, 10_000)  # of a hit: doubles cannot tell what is nearer


@dataclass
class Reference:
    """One key under one limit."""

    limit: Limit
    algorithm: Algorithm
    passed: list[tuple[int, int]] = field(default_factory=list)  # when, how many

    def must_pass(self, now: int, hits: int) -> bool | None:
        """Whether `hits` must pass at `now`; None where either is right."""
        if not hits:
            return True
        period = round(self.limit.duration_s * 1e6)
        match self.algorithm:
            case Algorithm.FIXED_WINDOW:
                end = self.limit.window_end_us(now)
                used = sum(n for at, n in self.passed if self.limit.window_end_us(at) == end)
                return used + hits <= self.limit.limit
            case Algorithm.SLIDING_WINDOW:
                if self.within(now, period) + hits > self.limit.limit:
                    return False
                if self.within(now, period + period // 16 + 1) + hits <= self.limit.limit:
                    return True
                return None
            case _:
                room = self.limit.capacity - self.level(now) - hits
                return None if abs(room) < CLOSE else room > 0

    def within(self, now: int, us: int) -> int:
        return sum(n for at, n in self.passed if at > now - us)

    def level(self, now: int) -> Fraction:
        """GCRA by its definition: when would the bucket be empty, and how far is that."""
        spacing = Fraction(round(self.limit.duration_s * 1e6), self.limit.limit)
        empty = Fraction(0)
        for at, hits in self.passed:
            empty = max(empty, Fraction(at)) + hits * spacing
        return max(Fraction(0), empty - now) / spacing

    def remaining(self, now: int) -> tuple[int, int]:
        """The least and the most that may be said to be left."""
        period = round(self.limit.duration_s * 1e6)
        match self.algorithm:
            case Algorithm.FIXED_WINDOW:
                end = self.limit.window_end_us(now)
                used = sum(n for at, n in self.passed if self.limit.window_end_us(at) == end)
                return self.limit.limit - used, self.limit.limit - used
            case Algorithm.SLIDING_WINDOW:
                most = self.limit.limit - self.within(now, period)
                return self.limit.limit - self.within(now, period + period // 16 + 1), most
            case _:
                left = self.limit.capacity - self.level(now)
                return max(0, int(left - CLOSE)), int(left + CLOSE)


@pytest.fixture(scope="module", params=KINDS)
def store(request: pytest.FixtureRequest) -> Iterator[tuple]:
    with held(request.param) as found:
        yield found


# durations are multiples of 16 us, so that slices of sliding windows are whole
durations = st.sampled_from([0.016, 0.48, 1.6, 16.0, 60.0, 3_600.0])
limits = st.builds(
    Limit, st.sampled_from([1, 2, 3, 5, 10, 1_000]), durations, st.sampled_from([0, 1, 4, 20])
)
steps = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 7, 100]) | st.integers(0, 1_000),  # thousandths of a duration
        st.sampled_from("ab"),
        st.sampled_from([1, 1, 1, 0, 2, 5, 400]),
    ),
    min_size=1,
    max_size=40,
)
_counter = iter(range(10**9))


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.sampled_from(Algorithm), st.lists(limits, min_size=1, max_size=2), steps)
def test_exactly_what_may_pass_passes(store, algorithm, some, story) -> None:
    runner, timed = store
    runner.run(_follow(timed, algorithm, some, story))


async def _follow(timed: Timed, algorithm: Algorithm, some: list[Limit], story: list) -> None:
    timed.start(next(_counter) * 1_013)
    quota = Quota(f"story {next(_counter)}", tuple(some), algorithm=algorithm)
    distinct = tuple(dict.fromkeys(_effective(limit, algorithm) for limit in some))
    models = {client: [Reference(limit, algorithm) for limit in distinct] for client in "ab"}
    for thousandths, client, hits in story:
        timed.pass_us(round(some[0].duration_s * 1e6) * thousandths // 1_000)
        now = timed.now_us
        standings = await timed.one(takes(quota, client, hits))
        assert len(standings) == len(distinct)
        expected = [model.must_pass(now, hits) for model in models[client]]
        for standing, must in zip(standings, expected, strict=True):
            if must is not None:
                assert standing.refused == (not must), (now, hits, standing)
        if not any(standing.refused for standing in standings):  # all, or none
            for model in models[client]:
                model.passed.append((now, hits))
        for standing, model in zip(standings, models[client], strict=True):
            least, most = model.remaining(now)
            assert max(0, least) <= standing.remaining <= max(0, most)
            await _retry_is_right(timed, model, standing, hits)


async def _retry_is_right(timed: Timed, model: Reference, standing: Standing, hits: int) -> None:
    """Who waits that long gets in, unless it is more than the limit; who does not, does not."""
    if not standing.refused or hits > _capacity(model):
        return
    assert model.must_pass(timed.now_us + standing.retry_us + 1, hits) is not False
    if model.algorithm is not Algorithm.SLIDING_WINDOW:
        assert model.must_pass(timed.now_us + standing.retry_us - 2, hits) is not True


def _capacity(model: Reference) -> int:
    gcra = model.algorithm is Algorithm.GCRA
    return model.limit.capacity if gcra else model.limit.limit


def _effective(limit: Limit, algorithm: Algorithm) -> Limit:
    """Windows have no burst: limits that differ in it only are one."""
    if algorithm is Algorithm.GCRA:
        return Limit(limit.limit, limit.duration_s, limit.capacity)
    return Limit(limit.limit, limit.duration_s)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from(Calendar),
    st.sampled_from(["UTC", "Europe/Zurich", "Asia/Kolkata"]),
    st.lists(st.tuples(st.integers(0, 40 * 24 * 60), st.sampled_from([1, 2])), max_size=30),
)
def test_calendar_periods_begin_when_that_zone_says(store, calendar, zone, story) -> None:
    runner, timed = store

    async def follow() -> None:
        timed.start(next(_counter) * 1_013)
        limit = Limit(3, calendar=calendar, time_zone=zone)
        quota = Quota(f"calendar {next(_counter)}", (limit,))
        used: dict[int, int] = {}
        for minutes, hits in story:
            timed.pass_us(minutes * 60_000_000)
            end = limit.window_end_us(timed.now_us)
            (standing,) = await timed.one(takes(quota, "a", hits))
            assert standing.refused == (used.get(end, 0) + hits > 3)
            assert standing.reset_us == end - timed.now_us
            if not standing.refused:
                used[end] = used.get(end, 0) + hits
            assert standing.remaining == 3 - used.get(end, 0)

    runner.run(follow())


@pytest.mark.parametrize(("month", "hours"), [(3, 23), (10, 25)])
def test_a_day_on_which_clocks_change_is_as_long_as_it_is(store, month: int, hours: int) -> None:
    runner, timed = store
    zone = ZoneInfo("Europe/Zurich")
    year = datetime.now(UTC).year + 1
    last = datetime(year, month, 31, tzinfo=zone)
    sunday = last - timedelta(days=(last.weekday() + 1) % 7)
    midnight_us = int(sunday.timestamp()) * 1_000_000
    hour_us = 3_600_000_000

    async def follow() -> None:
        quota = Quota(
            f"change {next(_counter)}",
            (Limit(2, calendar=Calendar.DAY, time_zone="Europe/Zurich"),),
        )

        async def passed(at_us: int) -> bool:
            timed.at(at_us)
            (standing,) = await timed.one(takes(quota, "a"))
            assert standing.reset_us > 0
            return not standing.refused

        assert await passed(midnight_us)
        assert await passed(midnight_us + 5 * hour_us)
        assert not await passed(midnight_us + hours * hour_us - 1)
        assert await passed(midnight_us + hours * hour_us)
        assert await passed(midnight_us + (hours + 24) * hour_us - 1)
        assert not await passed(midnight_us + (hours + 24) * hour_us - 1)

    runner.run(follow())
