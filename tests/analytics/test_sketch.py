"""The latency sketch against exact percentiles, and against the reference implementation."""

from math import ceil

import pytest
from ddsketch import DDSketch
from hypothesis import given
from hypothesis import strategies as st

from analytics.errors import MalformedSketch
from analytics.sketch import RELATIVE_ACCURACY, LatencySketch

DURATIONS = st.lists(st.integers(min_value=1, max_value=3_600_000_000), min_size=1, max_size=300)
SHARES = (0.0, 0.5, 0.9, 0.95, 0.99, 1.0)


def sketch_of(durations):
    sketch = LatencySketch()
    for one in durations:
        sketch.add(one)
    return sketch


@given(DURATIONS)
def test_every_quantile_is_within_one_percent_of_the_exact_one(durations):
    exact = sorted(durations)
    for share, found in zip(SHARES, sketch_of(durations).quantiles_us(*SHARES), strict=True):
        # the rank lies between two durations: either is exact
        rank = share * (len(exact) - 1)
        candidates = exact[int(rank)], exact[ceil(rank)]
        assert any(abs(found - one) <= RELATIVE_ACCURACY * one * 1.000_001 for one in candidates)


@given(DURATIONS)
def test_it_answers_as_the_reference_implementation(durations):
    reference = DDSketch(RELATIVE_ACCURACY)
    for one in durations:
        reference.add(one)
    found = sketch_of(durations).quantiles_us(*SHARES)
    for share, ours in zip(SHARES, found, strict=True):
        theirs = reference.get_quantile_value(share)
        # a duration on a bucket's edge may fall to either side by rounding
        assert ours == pytest.approx(theirs, rel=2.1 * RELATIVE_ACCURACY)


@given(DURATIONS, DURATIONS, DURATIONS)
def test_merging_is_counting_together_in_any_order(one, two, three):
    together = sketch_of(one + two + three)
    left = sketch_of(one)
    left.merge(sketch_of(two))
    left.merge(sketch_of(three))
    right = sketch_of(three)
    tail = sketch_of(two)
    tail.merge(sketch_of(one))
    right.merge(tail)
    assert left == right == together
    assert together.count == len(one) + len(two) + len(three)


@given(DURATIONS)
def test_bytes_give_the_sketch_back(durations):
    sketch = sketch_of(durations)
    assert LatencySketch.from_bytes(sketch.to_bytes()) == sketch


def test_large_counts_survive_the_bytes():
    sketch = LatencySketch({0: 1, 700: 10**12})
    assert LatencySketch.from_bytes(sketch.to_bytes()) == sketch


def test_a_minute_of_one_operation_takes_less_than_200_bytes():
    assert len(sketch_of(range(900, 3000, 7)).to_bytes()) < 200


def test_nothing_has_no_percentile():
    assert LatencySketch().quantiles_us(0.5, 0.99) == (None, None)


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x02\x01\x01", b"\x01\x05", b"\x01\x05\x80"],
    ids=["nothing", "another format", "no count", "half a number"],
)
def test_bytes_that_are_no_sketch_are_refused(raw):
    with pytest.raises(MalformedSketch):
        LatencySketch.from_bytes(raw)
