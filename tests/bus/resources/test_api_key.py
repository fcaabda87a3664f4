"""How long keys live."""

from datetime import UTC, datetime

import pytest

from bus.resources.api_key import ApiKey, Lifetime

START = datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("unit", "duration", "end"),
    [
        ("seconds", 90, datetime(2026, 1, 31, 12, 1, 30, tzinfo=UTC)),
        ("weeks", 1, datetime(2026, 2, 7, 12, tzinfo=UTC)),
        ("months", 1, datetime(2026, 2, 28, 12, tzinfo=UTC)),
        ("months", 11, datetime(2026, 12, 31, 12, tzinfo=UTC)),
        ("months", 25, datetime(2028, 2, 29, 12, tzinfo=UTC)),
    ],
)
def test_a_lifetime_ends(unit: str, duration: int, end: datetime) -> None:
    assert Lifetime.model_validate({"unit": unit, "duration": duration}).end(START) == end


@pytest.mark.parametrize("unit", ["seconds", "hours", "months"])
def test_a_lifetime_beyond_the_calendar_is_refused(unit: str) -> None:
    lifetime = Lifetime.model_validate({"unit": unit, "duration": 1_000_000_000})
    if unit == "seconds":
        assert lifetime.end(START).year == 2057
        return
    with pytest.raises(ValueError, match="too far"):
        lifetime.end(START)


def test_a_key_expires_at_its_end() -> None:
    key = ApiKey(api_id="a", name="k", digest="0" * 64, application="app", expires_at=START)
    assert key.expired(START)
    assert not key.expired(START.replace(hour=11))
