from hypothesis import given, settings
from hypothesis import strategies as st

from policy_engine.rate_limits.balanced_limits import FILL_S, capacity, fill
from policy_engine.rate_limits.limits import Algorithm, Limit, Quota
from ratelimiter.counters import Rule, Take
from ratelimiter.quotas.assignment import Assignment
from ratelimiter.quotas.bucket import Bucket, Share
from ratelimiter.reading import Row


class Named:
    """A router by name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def assign(self, entries: object, made: Assignment) -> None: ...

    def abandon(self, entries: object) -> None: ...


def bucket(limit: Limit, *routers: Named, algorithm: Algorithm = Algorithm.FIXED_WINDOW) -> Bucket:
    rule = Rule(algorithm, limit)
    row = Row(Quota("b", (limit,)), 0, 1, (), ("b",), "b")
    made = Bucket((("limit", "x"),), row, Take(b"{00}k:l", rule, "check", 0), left=limit.limit)
    for one in routers:
        made.shares[one] = Share()
    return made


def per_s(one: Assignment) -> float:
    return one.tokens / one.interval_s


def give(of: Bucket, now_s: float) -> dict[Named, Assignment]:
    made = of.assignments()
    for router, one in made.items():
        of.given(router, one, now_s)
    return made  # type: ignore[return-value]


def test_a_rate_is_divided_and_begins_carefully() -> None:
    one, two = Named("one"), Named("two")
    of = bucket(Limit(100, 1.0), one, two)
    first = give(of, 0.0)
    assert [round(per_s(made)) for made in first.values()] == [50, 50]
    assert all(made.size <= 4 and not made.anew for made in first.values())
    assert all(made.size > 4 for made in give(of, 0.1).values())
    assert give(of, 0.2) == {}  # nothing new to say


def test_reports_move_a_rate() -> None:
    one, two = Named("one"), Named("two")
    of = bucket(Limit(100, 1.0), one, two)
    for router, hits in ((one, 1), (two, 1)):
        of.report(router, hits, 0, 100.0)
    of.report(one, 250, 1750, 105.0)
    of.report(two, 100, 0, 105.0)
    rates = {router.name: round(per_s(made), 1) for router, made in give(of, 105.0).items()}
    assert rates == {"one": 95.0, "two": 5.0}


def test_seconds_of_a_fill_are_whole_and_tokens_fit() -> None:
    for rate in (0.001, 0.5, 19.99, 1e6, 4e9):
        tokens, interval_s = fill(rate)
        assert 1 <= interval_s <= FILL_S
        assert 1 <= tokens < 2**32
        assert abs(tokens / interval_s - rate) <= max(0.001, rate * 0.001)
    assert capacity(0.3) == 1


@settings(max_examples=200)
@given(
    limit=st.integers(min_value=20, max_value=5000),
    steps=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 400), st.booleans()), min_size=1, max_size=60
    ),
)
def test_portions_never_let_more_pass_than_the_window_has(
    limit: int, steps: list[tuple[int, int, bool]]
) -> None:
    """Routers use what they have, report at any time, and are told anew; the store may lag."""
    routers = [Named(name) for name in "abc"]
    of = bucket(Limit(limit, 3600.0), *routers)
    of.told(float(limit), 1e9, 0.0)
    holds = dict.fromkeys(routers, 0)
    unreported = dict.fromkeys(routers, 0)
    passed, now_s = 0, 1.0
    for router, made in give(of, now_s).items():
        holds[router] = made.size
    for which, wanted, store_answers in steps:
        router = routers[which]
        now_s += 1.0
        used = min(wanted, holds[router])
        holds[router] -= used
        unreported[router] += used
        passed += used
        assert passed <= limit
        of.report(router, unreported[router], wanted - used, now_s)
        unreported[router] = 0
        if store_answers:
            of.owed = 0
            of.told(float(limit - passed), 1e9, now_s)
        for other, made in give(of, now_s).items():
            holds[other] = made.size


def test_all_of_a_window_can_be_used_by_one_router() -> None:
    one, idle = Named("one"), Named("idle")
    of = bucket(Limit(1000, 3600.0), one, idle)
    of.told(1000.0, 1e9, 0.0)
    passed, now_s = 0, 1.0
    holds = give(of, now_s)[one].size
    for _ in range(40):
        now_s += 5.0
        passed += holds
        of.report(one, holds, 100, now_s)
        if idle in of.shares:
            of.report(idle, 0, 0, now_s)
        holds = 0
        made = give(of, now_s)
        if one in made:
            holds = made[one].size
        if idle in of.shares and of.is_idle(of.shares[idle]):
            del of.shares[idle]
    assert passed == 1000


def test_a_new_window_gives_everybody_a_new_portion() -> None:
    one = Named("one")
    of = bucket(Limit(100, 3600.0), one)
    of.told(0.0, 50.0, 0.0)
    assert give(of, 0.0)[one].size == 0
    assert give(of, 1.0) == {}
    assert of.told(100.0, 3650.0, 50.1)
    assert give(of, 50.1)[one].size >= 50


def test_without_the_store_a_limiter_gives_its_equal_part() -> None:
    one = Named("one")
    of = bucket(Limit(100, 1.0), one)
    of.alone(4, 0.0)
    assert round(per_s(give(of, 0.0)[one])) == 25
