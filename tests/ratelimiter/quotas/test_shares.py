from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelimiter.quotas.shares import FLOOR, shares

demands = st.lists(st.floats(min_value=0, max_value=1e6), min_size=1, max_size=30)
limits = st.floats(min_value=1, max_value=1e6)


@given(limits, demands)
def test_what_passes_is_never_above_the_limit_and_all_of_it_if_that_much_is_asked_for(
    limit: float, asked: list[float]
) -> None:
    given_out = shares(limit, asked)
    passes = sum(min(one, share) for one, share in zip(asked, given_out, strict=True))
    assert passes == pytest.approx(min(limit, sum(asked)), rel=1e-6)


@given(limits, demands)
def test_nobody_is_left_without_a_way_to_show_that_more_is_asked_for(
    limit: float, asked: list[float]
) -> None:
    least = limit * min(FLOOR, 1 / len(asked))
    assert min(shares(limit, asked)) >= least * (1 - 1e-9)


@given(limits, demands)
def test_more_demand_is_never_a_smaller_share(limit: float, asked: list[float]) -> None:
    by_demand = sorted(zip(asked, shares(limit, asked), strict=True))
    ordered = [share for _, share in by_demand]
    assert all(less <= more * (1 + 1e-9) for less, more in pairwise(ordered))


def test_examples() -> None:
    assert shares(100, []) == []
    assert shares(100, [10, 30]) == [40, 60]
    assert shares(100, [0, 99]) == [5, 99.5]
    assert shares(100, [300, 300]) == [50, 50]
    assert shares(100, [400, 100]) == [80, 20]
    assert shares(100, [400, 0]) == [100, 5]
