"""Headers as Envoy sends them behave like plain ones, however little of them is decoded."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from policy_engine.engine.messages import ReceivedHeaders
from policy_engine.hooks import Headers

NAMES = st.sampled_from(["a", "b", "c", "D", ":path"])
VALUES = st.text(alphabet="xyz\u00e9", max_size=3)
PAIRS = st.lists(st.tuples(NAMES.map(str.lower), VALUES), max_size=6)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), NAMES, VALUES),
        st.tuples(st.just("append"), NAMES, VALUES),
        st.tuples(st.just("remove"), NAMES),
        st.tuples(st.just("get"), NAMES),
        st.tuples(st.just("all"), NAMES),
        st.tuples(st.just("in"), NAMES),
        st.tuples(st.just("items")),
        st.tuples(st.just("take")),
        st.tuples(st.just("lists")),
    ),
    max_size=12,
)


def done(headers: Any, step: tuple[str, ...]) -> object:
    match step:
        case ("set", name, value):
            return headers.set(name, value)
        case ("append", name, value):
            return headers.append(name, value)
        case ("remove", name):
            return headers.remove(name)
        case ("get", name):
            return headers.get(name, "none")
        case ("all", name):
            return headers.all(name)
        case ("in", name):
            return name in headers
        case ("items",):
            return sorted(headers.items())
        case ("lists",):
            return headers.as_lists()
    return None


@settings(max_examples=500, deadline=None)
@given(pairs=PAIRS, steps=STEPS)
def test_they_are_like_plain_headers(pairs: list[tuple[str, str]], steps: list[Any]) -> None:
    plain, received = Headers(pairs), ReceivedHeaders.of(pairs)
    taken: dict[str, tuple[str, ...]] = {}
    for step in steps:
        if step == ("take",):
            taken |= received.take_edits()
            continue
        assert done(plain, step) == done(received, step), step
    assert {**taken, **received.edits} == plain.edits
    assert sorted(plain.items()) == sorted(received.items())


@settings(max_examples=300, deadline=None)
@given(pairs=PAIRS, before=STEPS, after=STEPS)
def test_what_a_failed_policy_has_edited_is_undone(
    pairs: list[tuple[str, str]], before: list[Any], after: list[Any]
) -> None:
    headers, expected = ReceivedHeaders.of(pairs), ReceivedHeaders.of(pairs)
    for step in before:
        done(headers, step)
        done(expected, step)
    saved = headers.saved()
    for step in after:
        done(headers, step)
    headers.restore(saved)
    assert headers.edits == expected.edits
    assert sorted(headers.items()) == sorted(expected.items())
