"""The fold of usage events into totals."""

from hypothesis import given
from hypothesis import strategies as st

from analytics.outcome import Outcome
from analytics.totals import Series, Total, fold, summed
from tests.analytics.batches import HOUR_MINUTE, HOUR_MS, ORDERS, WEATHER, Call, served

CALLS = st.builds(
    Call,
    at_ms=st.integers(min_value=HOUR_MS, max_value=HOUR_MS + 180_000),
    route=st.sampled_from([WEATHER, ORDERS, "", "health"]),
    status=st.sampled_from([200, 204, 302, 401, 403, 404, 429, 500, 503, 0]),
    details=st.sampled_from(["via_upstream", "local_rate_limited", "direct_response"]),
    application=st.sampled_from(["", "shop", "app"]),
    duration_us=st.integers(min_value=0, max_value=10_000_000),
    upstream_us=st.integers(min_value=0, max_value=10_000_000),
    request_bytes=st.integers(min_value=0, max_value=10_000_000),
    response_bytes=st.integers(min_value=0, max_value=10_000_000),
)
BATCHES = st.lists(st.lists(CALLS, min_size=1, max_size=30), min_size=1, max_size=5)


def test_requests_are_counted_in_the_minute_in_which_they_began():
    late = Call(at_ms=HOUR_MS + 59_999), Call(at_ms=HOUR_MS + 60_000)
    totals = fold(served([*late, Call(at_ms=HOUR_MS + 1)]))
    weather = Series("weather", "GET", "/weather/v1/{city}", "", 2, Outcome.SERVED)
    assert {place: total.requests for place, total in totals.items()} == {
        (HOUR_MINUTE, weather): 2,
        (HOUR_MINUTE + 1, weather): 1,
    }


def test_statuses_of_one_class_share_a_total():
    totals = fold(served([Call(status=200), Call(status=201), Call(status=404)]))
    assert sorted((place.status_class, total.requests) for (_, place), total in totals.items()) == [
        (2, 2),
        (4, 1),
    ]


def test_a_total_adds_up_every_fact():
    one = Call(duration_us=10, upstream_us=4, request_bytes=5, response_bytes=7)
    two = Call(duration_us=1000, upstream_us=400, request_bytes=50, response_bytes=70)
    (total,) = fold(served([one, two])).values()
    assert (total.requests, total.duration_us, total.upstream_us) == (2, 1010, 404)
    assert (total.request_bytes, total.response_bytes) == (55, 77)
    assert total.latency.count == 2


def test_what_matched_no_route_is_counted_under_no_api():
    ((_, series),) = fold(served([Call(route="", status=404, details="route_not_found")]))
    assert series == Series("", "", "", "", 4, Outcome.UNROUTED)


def test_a_route_of_the_gateway_itself_keeps_its_name():
    ((_, series),) = fold(served([Call(route="health", details="direct_response")]))
    assert series == Series("", "", "health", "", 2, Outcome.SERVED)


@given(BATCHES)
def test_folding_batches_apart_or_together_gives_the_same(batches):
    apart = summed(fold(served(calls)) for calls in batches)
    assert apart == fold(served([call for calls in batches for call in calls]))
    assert sum(total.requests for total in apart.values()) == sum(map(len, batches))


@given(BATCHES)
def test_a_sum_leaves_its_parts_alone(batches):
    parts = [fold(served(calls)) for calls in batches]
    summed(parts)
    assert parts == [fold(served(calls)) for calls in batches]
    assert all(isinstance(total, Total) for part in parts for total in part.values())
