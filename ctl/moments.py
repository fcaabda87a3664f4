"""Times as people write them: `1h` ago, or a moment; and lifetimes such as `30d`."""

import re
from datetime import UTC, datetime, timedelta

from ctl.errors import Misused

_UNITS = {
    "s": "seconds",
    "m": "minutes",
    "h": "hours",
    "d": "days",
    "w": "weeks",
    "mo": "months",
}
_SPAN = re.compile(r"(\d{1,9})(mo|[smhdw])")


def moment(text: str, now: datetime) -> datetime:
    """The time that `text` means: so long before `now` (`90s`, `1h`), or ISO 8601. Raises Misused.

    A time without a zone is in UTC.
    """
    match = _SPAN.fullmatch(text)
    try:
        if match is not None and match[2] != "mo":
            return now - timedelta(**{_UNITS[match[2]]: int(match[1])})
        then = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise Misused(
            f"{text!r} is neither a time ago such as 90s, 15m, 1h, 7d nor a moment"
            " such as 2026-01-31T12:00:00Z"
        ) from None
    return then if then.tzinfo else then.replace(tzinfo=UTC)


def lifetime(text: str) -> dict[str, str | int]:
    """`30d` as the API says it: unit and duration. Raises Misused."""
    match = _SPAN.fullmatch(text)
    if match is None:
        raise Misused(f"{text!r} is not a lifetime; write a number and s, m, h, d, w or mo: 30d")
    return {"unit": _UNITS[match[2]], "duration": int(match[1])}


def zulu(when: datetime) -> str:
    """`when` as the API writes it."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
