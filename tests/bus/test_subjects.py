"""Subjects, patterns and route keys, over whatever people call their things."""

from hypothesis import given
from hypothesis import strategies as st

from bus.route_key import RouteKey
from bus.subjects import STREAMS, Family, matches, pattern, subject, token, untoken

NAMES = st.text(min_size=1)
SMALL = st.sampled_from(["a", "b", "*", ">"])


@given(NAMES)
def test_a_token_is_one_plain_token_and_keeps_the_name(name):
    said = token(name)
    assert said
    assert not set(said) & set(" .*>\t\r\n")
    assert said.isascii()
    assert untoken(said) == name


@given(st.text())
def test_untoken_takes_anything(text):
    untoken(text)


@given(NAMES, NAMES)
def test_different_names_are_different_tokens(one, other):
    assert (one == other) == (token(one) == token(other))


@given(NAMES, NAMES, st.sampled_from(Family), st.lists(NAMES, min_size=1))
def test_a_subject_falls_under_its_own_patterns_only(org, gateway, family, rest):
    actual = subject(org, gateway, family, *rest)
    assert actual.count(".") == 3 + len(rest)
    assert matches(pattern(family), actual)
    assert matches(pattern(family, org=token(org) if org == "*" else org), actual)
    assert not matches(pattern(family, org=org + "x"), actual)
    assert not matches(pattern(family, gateway=gateway + "x"), actual)
    assert not matches(pattern(family, *(["*"] * (len(rest) + 1))), actual)
    assert matches(pattern(family, *(["*"] * len(rest))), actual)
    for other in Family:
        assert matches(pattern(other), actual) == (other is family)


@given(NAMES, NAMES, st.sampled_from(Family), st.lists(NAMES, min_size=1))
def test_every_subject_belongs_to_exactly_one_stream(org, gateway, family, rest):
    actual = subject(org, gateway, family, *rest)
    takers = [s for s in STREAMS if any(matches(one, actual) for one in s.subjects)]
    assert [stream.family for stream in takers] == [family]


def _by_the_book(wanted: list[str], actual: list[str]) -> bool:
    """NATS' rules, said recursively: `*` is one token, a final `>` is one or more."""
    match wanted, actual:
        case [], []:
            return True
        case [">"], [_, *_]:
            return True
        case ["*", *more], [_, *rest]:
            return _by_the_book(more, rest)
        case [one, *more], [other, *rest]:
            return one == other and _by_the_book(more, rest)
        case _:
            return False


@given(
    st.lists(st.sampled_from("ab*"), max_size=5),
    st.booleans(),
    st.lists(st.sampled_from("ab"), min_size=1, max_size=6),
)
def test_matching_follows_the_rules_of_nats(wanted, below, actual):
    parts = [*wanted, ">"] if below or not wanted else wanted
    assert matches(".".join(parts), ".".join(actual)) == _by_the_book(parts, actual)


@given(NAMES, NAMES, NAMES, NAMES, st.text())
def test_a_route_key_splits_one_way_only(method, path, vhost, api, discriminator):
    key = RouteKey(method, path, vhost, api, discriminator)
    assert RouteKey.parse(str(key)) == key


@given(st.text())
def test_what_envoy_calls_its_own_routes_is_never_an_error(text):
    key = RouteKey.parse(text)
    assert key is None or text.count("|") in (3, 4)
