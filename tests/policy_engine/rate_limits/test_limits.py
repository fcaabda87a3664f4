"""Limits as text, and the calendar."""
# ruff: noqa: DTZ001 - what a wall clock shows, before a zone is chosen

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy_engine.errors import MalformedQuota
from policy_engine.rate_limits.limits import (
    LIMIT_MAX,
    Algorithm,
    Answer,
    Calendar,
    Hits,
    Limit,
    Quota,
    Told,
    WhenAway,
    calendar_end_us,
    decode,
    encode,
)

ZONES = ("UTC", "Europe/Zurich", "Asia/Kolkata", "America/New_York", "Australia/Lord_Howe")

timed = st.builds(
    Limit,
    st.integers(1, LIMIT_MAX),
    st.integers(1_000, 10**12).map(lambda us: us / 1e6),
    st.integers(0, LIMIT_MAX),
)
by_calendar = st.builds(
    Limit,
    st.integers(1, LIMIT_MAX),
    calendar=st.sampled_from(Calendar),
    time_zone=st.sampled_from(ZONES),
)
names = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=100)


@st.composite
def quotas(draw: st.DrawFn) -> Quota:
    algorithm = draw(st.sampled_from(Algorithm))
    limit = timed | by_calendar if algorithm is Algorithm.FIXED_WINDOW else timed
    return Quota(
        bucket=draw(st.text(min_size=1)),
        limits=tuple(draw(st.lists(limit, min_size=1, max_size=10))),
        name=draw(names),
        algorithm=algorithm,
        hits=draw(st.sampled_from(Hits)),
        shadow=draw(st.booleans()),
        when_away=draw(st.sampled_from(WhenAway)),
        told=Told(draw(st.booleans()), draw(st.booleans()), draw(st.booleans())),
        answer=draw(st.none() | st.builds(Answer, st.text(), st.text())),
        api=draw(st.text()),
        tells_key=draw(st.booleans()),
        events=draw(st.booleans()),
    )


@given(quotas())
def test_what_was_encoded_is_decoded(quota: Quota) -> None:
    text = encode(quota)
    assert decode(text) == quota
    assert "%" not in text
    assert text.isascii()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "Expecting value"),
        ("[]", "list indices"),
        ("7", "not subscriptable"),
        ("{}", "v: missing"),
        ('{"v":2}', "v: version 2 is not 1"),
        ('{"v":1,"n":"q","l":[[1,1,0]],"a":"gcra","h":"consume"}', "b: missing"),
        ('{"v":1,"b":1,"n":"q","l":[[1,1,0]],"a":"gcra","h":"consume"}', "b: 1 is not text"),
        ('{"v":1,"b":"b","n":"q","l":[],"a":"gcra","h":"consume"}', "limits: there are 0"),
        ('{"v":1,"b":"b","n":"q","l":[[0,1,0]],"a":"gcra","h":"consume"}', "limit: 0 is not"),
        ('{"v":1,"b":"b","n":"q","l":[[1,1]],"a":"gcra","h":"consume"}', "index out of range"),
        ('{"v":1,"b":"b","n":"q","l":[[1,1,0]],"a":"leaky","h":"consume"}', "'leaky' is not"),
        (
            '{"v":1,"b":"b","n":"q","l":[[1,0,0,"day","Mars/Base"]],"a":"fixed-window","h":"check"}',
            "time_zone: 'Mars/Base' is not an IANA time zone",
        ),
    ],
)
def test_what_is_not_a_quota_is_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(MalformedQuota) as caught:
        decode(text)
    assert reason in caught.value.reason


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Limit(0, 1), "limit: 0"),
        (lambda: Limit(LIMIT_MAX + 1, 1), "limit: "),
        (lambda: Limit(True, 1), "limit: True"),
        (lambda: Limit(1), "duration_s: 0"),
        (lambda: Limit(1, 1, -1), "burst: -1"),
        (lambda: Limit(1, 1, calendar=Calendar.DAY), "duration_s: give either"),
        (lambda: Quota("", (Limit(1, 1),)), "bucket: "),
        (lambda: Quota("b", ()), "limits: there are 0"),
        (lambda: Quota("b", (Limit(1, 1),), name="é"), "name: "),
        (
            lambda: Quota("b", (Limit(1, calendar=Calendar.DAY),), algorithm=Algorithm.GCRA),
            r"limits\[0\].calendar: ",
        ),
    ],
)
def test_a_bad_field_is_named(make, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        make()


def us(moment: datetime) -> int:
    return round(moment.timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("calendar", "zone", "now", "end"),
    [
        (Calendar.HOUR, "UTC", datetime(2026, 5, 1, 10, 59, 59), datetime(2026, 5, 1, 11)),
        (Calendar.HOUR, "Asia/Kolkata", datetime(2026, 5, 1, 10, 29), datetime(2026, 5, 1, 11)),
        (Calendar.DAY, "Europe/Zurich", datetime(2026, 3, 29, 1), datetime(2026, 3, 30)),
        (Calendar.DAY, "Europe/Zurich", datetime(2026, 10, 25, 1), datetime(2026, 10, 26)),
        (Calendar.WEEK, "America/New_York", datetime(2026, 11, 23), datetime(2026, 11, 30)),
        (Calendar.WEEK, "UTC", datetime(2026, 11, 29, 23, 59, 59), datetime(2026, 11, 30)),
        (Calendar.MONTH, "UTC", datetime(2028, 2, 29, 12), datetime(2028, 3, 1)),
        (Calendar.MONTH, "Asia/Kolkata", datetime(2026, 12, 31, 23), datetime(2027, 1, 1)),
    ],
)
def test_a_period_ends_where_people_of_that_zone_say(
    calendar: Calendar, zone: str, now: datetime, end: datetime
) -> None:
    there = ZoneInfo(zone)
    moment = us(now.replace(tzinfo=there))
    assert calendar_end_us(calendar, zone, moment) == us(end.replace(tzinfo=there))


def test_days_in_which_clocks_change_have_23_and_25_hours() -> None:
    zurich = ZoneInfo("Europe/Zurich")
    for day, hours in ((29, 23), (30, 24)):
        start = datetime(2026, 3, day, tzinfo=zurich).astimezone(UTC)
        end = calendar_end_us(Calendar.DAY, "Europe/Zurich", us(start))
        assert end - us(start) == hours * 3_600_000_000
    start = datetime(2026, 10, 25, tzinfo=zurich).astimezone(UTC)
    end = calendar_end_us(Calendar.DAY, "Europe/Zurich", us(start))
    assert end - us(start) == 25 * 3_600_000_000


@given(timed | by_calendar, st.datetimes(datetime(1990, 1, 1), datetime(2090, 1, 1)))
def test_now_is_in_its_window_and_the_end_begins_the_next(limit: Limit, moment: datetime) -> None:
    now = us(moment.replace(tzinfo=UTC))
    end = limit.window_end_us(now)
    longest = timedelta(days=31, hours=2) if limit.calendar else timedelta(limit.duration_s / 86400)
    assert now < end <= now + longest / timedelta(microseconds=1) + 1
    assert limit.window_end_us(end - 1) == end
    assert limit.window_end_us(end) > end


def test_equal_quotas_give_equal_text() -> None:
    one = Quota("b", (Limit(5, 60.0),))
    other = Quota("b", (Limit(5, 60),))
    assert encode(one) == encode(other)
    assert json.loads(encode(one))["l"] == [[5, 60, 0]]
