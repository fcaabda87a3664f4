"""Questions about usage, as the query string of a report says them."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

from analytics.errors import InvalidQuery
from analytics.ports import MINUTES_PER_HOUR, Selection
from analytics.totals import MINUTE_MS

Group = Literal[
    "api", "operation", "application", "subscription", "shadow", "status", "minute", "hour"
]
GROUPS: tuple[Group, ...] = get_args(Group)

NOT_KNOWN = "-"
"""As a filter: no API had a route for it, or the application is not known."""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SPAN = re.compile(r"(\d{1,6})([smhdw])")
_STEP_MINUTES = {"m": 1, "h": MINUTES_PER_HOUR, "d": 24 * MINUTES_PER_HOUR}
_STEP = re.compile(r"([1-9]\d{0,3})([mhd])")
_POINTS_MAX = 5_000
_DEFAULT_SPAN = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Period:
    """A time in whole minutes, which is how usage is kept."""

    from_minute: int  # Unix time / 60 s, inclusive
    to_minute: int  # exclusive

    @property
    def from_ms(self) -> int:
        """Start, Unix time."""
        return self.from_minute * MINUTE_MS

    @property
    def to_ms(self) -> int:
        """End, Unix time, exclusive."""
        return self.to_minute * MINUTE_MS

    def selection(
        self, api: str | None, application: str | None, subscription: str | None = None
    ) -> Selection:
        """The totals of this period that pass the filters (None or empty: all)."""
        return Selection(
            self.from_minute,
            self.to_minute,
            _filter(api),
            _filter(application),
            _filter(subscription),
        )


def period(from_: str | None, to: str | None, now: datetime) -> Period:
    """The period from one moment to another, by default the last 24 hours. Raises InvalidQuery."""
    end = _moment("to", to, now) if to else now
    start = _moment("from", from_, now) if from_ else end - _DEFAULT_SPAN
    if start >= end:
        raise InvalidQuery("from", f"must be before to: {at(start)} is not before {at(end)}")
    return Period(int(start.timestamp()) // 60, -(-int(end.timestamp() * 1000) // MINUTE_MS))


def groups(text: str | None) -> tuple[Group, ...]:
    """What to group by, comma-separated, in the order of the columns. Raises InvalidQuery."""
    wanted: list[Group] = []
    for name in (text or "api").split(","):
        group = next((one for one in GROUPS if one == name.strip()), None)
        if group is None:
            raise InvalidQuery("groupBy", f"unknown group {name!r}; known: {', '.join(GROUPS)}")
        if group not in wanted:
            wanted.append(group)
    if "minute" in wanted and "hour" in wanted:
        raise InvalidQuery("groupBy", "minute and hour exclude each other")
    return tuple(wanted)


def step_minutes(text: str | None, asked: Period) -> int:
    """The distance of points on a timeline, by default about 60 of them. Raises InvalidQuery."""
    minutes = asked.to_minute - asked.from_minute
    if not text:
        steps = (1, 5, 15, 60, 360, 1440)
        return next((step for step in steps if minutes / step <= 100), steps[-1])
    match = _STEP.fullmatch(text)
    if match is None:
        raise InvalidQuery("step", f"{text!r} is not a step such as 1m, 15m, 1h or 1d")
    step = int(match[1]) * _STEP_MINUTES[match[2]]
    if minutes / step > _POINTS_MAX:
        raise InvalidQuery("step", f"gives more than {_POINTS_MAX} points; choose a longer one")
    return step


def only(given: Iterable[str], known: Collection[str]) -> None:
    """Refuse parameters that are not known. Raises InvalidQuery."""
    for name in given:
        if name not in known:
            raise InvalidQuery(name, f"unknown parameter; known: {', '.join(sorted(known))}")


def at(moment: datetime | int) -> str:
    """A moment (or Unix time in ms) as reports write it: RFC 3339 in UTC."""
    if isinstance(moment, int):
        moment = datetime.fromtimestamp(moment / 1000, UTC)
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _filter(text: str | None) -> str | None:
    if not text:
        return None
    return "" if text == NOT_KNOWN else text


def _moment(field: str, text: str, now: datetime) -> datetime:
    then = _understood(text, now)
    if then is None or then.year < 1970:
        raise InvalidQuery(
            field,
            f"{text!r} is neither a moment such as 2026-01-31T12:00:00Z "
            "nor a time ago such as 90s, 15m, 24h, 7d",
        )
    return then


def _understood(text: str, now: datetime) -> datetime | None:
    match = _SPAN.fullmatch(text.removeprefix("-"))
    try:
        if match is not None:
            return now - timedelta(**{_UNITS[match[2]]: int(match[1])})
        # a `+` of an offset that was not encoded arrives as a blank
        then = datetime.fromisoformat(text.replace(" ", "+") if "T" in text else text)
        return (then if then.tzinfo else then.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
