"""What patterns come down to, checked against every subject of a small world."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.selection import selected
from bus.subjects import Family, matches, pattern

WORLD = [
    ".".join(("sbx", org, gateway, "state", *rest))
    for org, gateway in itertools.product("ab", repeat=2)
    for length in (1, 2, 3)
    for rest in itertools.product("ab", repeat=length)
]
TOKENS = st.sampled_from("ab*")
PATTERNS = st.builds(
    lambda org, gateway, rest, below: ".".join(
        ("sbx", org, gateway, "state", *rest, *([">"] if below or not rest else []))
    ),
    TOKENS,
    TOKENS,
    st.lists(TOKENS, max_size=2),
    st.booleans(),
)


def in_the_world(pattern: str) -> set[str]:
    return {subject for subject in WORLD if matches(pattern, subject)}


@given(st.lists(PATTERNS, min_size=1, max_size=4))
def test_the_selection_covers_what_was_asked_and_each_subject_once_or_is_refused(patterns):
    sets = [in_the_world(pattern) for pattern in patterns]
    widest = [one for one in sets if not any(one < other for other in sets)]
    if any(one != other and one & other for one in widest for other in widest):
        with pytest.raises(ValueError, match="overlap"):
            selected(tuple(patterns))
        return
    chosen = selected(tuple(patterns))["sbx-state"]
    hits = [subject for subject in WORLD for one in chosen if matches(one, subject)]
    assert len(hits) == len(set(hits))
    assert set(hits) == set().union(*sets)


def test_patterns_are_sorted_by_the_stream_that_keeps_them():
    patterns = (pattern(Family.STATE), pattern(Family.ROUTER, "r"), pattern(Family.ROUTER, "s"))
    assert selected(patterns) == {"sbx-state": patterns[:1], "sbx-router": patterns[1:]}
