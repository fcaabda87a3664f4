"""Times as people write them."""

from datetime import UTC, datetime

import pytest

from ctl.errors import Misused
from ctl.moments import lifetime, moment, zulu

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("90s", "2026-05-04T11:58:30.000Z"),
        ("1h", "2026-05-04T11:00:00.000Z"),
        ("7d", "2026-04-27T12:00:00.000Z"),
        ("2w", "2026-04-20T12:00:00.000Z"),
        ("2026-01-01", "2026-01-01T00:00:00.000Z"),
        ("2026-01-01T02:00:00+02:00", "2026-01-01T00:00:00.000Z"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000Z"),
    ],
)
def test_a_time_is_ago_or_a_moment(text: str, meant: str) -> None:
    assert zulu(moment(text, NOW)) == meant


@pytest.mark.parametrize("text", ["", "1y", "h", "-1h", "1.5h", "yesterday", "999999999w"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(Misused, match="neither a time ago"):
        moment(text, NOW)


def test_a_lifetime_is_said_as_the_api_says_it() -> None:
    assert lifetime("30d") == {"unit": "days", "duration": 30}
    assert lifetime("6mo") == {"unit": "months", "duration": 6}
    with pytest.raises(Misused, match="not a lifetime"):
        lifetime("long")
