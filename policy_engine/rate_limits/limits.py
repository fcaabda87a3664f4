"""Limits as text: how a policy tells the rate limiter what to enforce.

Envoy's rate limit call carries a domain and descriptors. Each descriptor begins with an entry whose
key is `LIMIT_ENTRY` and whose value is `encode(quota)`; the entries after it are the parts of the
key (a client, an address, a header ...), whose values share nothing but the quota. So the limiter
needs no configuration of its own that could be older or newer than the router's:

    {"rate_limits": [{"actions": [
        {"generic_key": {"descriptor_key": LIMIT_ENTRY, "descriptor_value": encode(quota)}},
        {"request_headers": {"header_name": "x-client", "descriptor_key": "client"}},
    ]}]}

All limits of all quotas of one call must hold; a call that is refused takes nothing from any.

A counter is known by domain, bucket, key parts, algorithm and one limit. What else of a quota or
an API changes leaves it alone; another limit, duration, burst or time zone starts a new one.

The text holds no `%`, which Envoy would take for a command operator.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from policy_engine.errors import MalformedQuota

RATELIMITER_CLUSTER = "ratelimiter"
"""Envoy's name for the rate limiter."""

LIMIT_ENTRY = "limit"
"""The key of the first entry of each descriptor."""

SHADOW_HEADER = "x-signalbox-shadow-limited"
"""Request header that tells later filters that a limit in shadow mode would have refused."""

LIMIT_MAX = 2**53 - 1  # what a double counts exactly, for so does the script in the store
DURATION_MIN_S, DURATION_MAX_S = 0.001, 10 * 366 * 86_400.0
LIMITS_MAX = 10
_VERSION = 1
_KEPT = 4_096  # decoded quotas


class Algorithm(StrEnum):
    """How hits are counted against a limit."""

    FIXED_WINDOW = "fixed-window"
    """`limit` in each window; windows begin at multiples of the duration since 1970 (UTC), or with
    the calendar. Up to twice the limit may pass around a window's end."""

    SLIDING_WINDOW = "sliding-window"
    """At most `limit` in any stretch of the duration, kept in 16ths of it: hits are forgotten up to
    a 16th later than they need to be, never earlier."""

    GCRA = "gcra"
    """A bucket of `burst` (default: `limit`) hits that fills evenly, `limit` per duration."""


class Hits(StrEnum):
    """What a call does to the counters of its quota."""

    CONSUME = "consume"
    """Pass and count if the hits fit. Zero hits always pass."""

    CHECK = "check"
    """Pass if anything is left; count nothing. For a cost that is known only afterwards."""

    CHARGE = "charge"
    """Count, never refuse; counting stops at the limit. The other half of `CHECK`, for Envoy's
    `apply_on_stream_done`."""


class Calendar(StrEnum):
    """Windows that a person would name. A week begins on Monday."""

    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


class WhenAway(StrEnum):
    """What holds while the store of counters is out of reach."""

    LOCAL = "local"
    """Each rate limiter keeps its share of the limit, and tells the store once it is back."""

    OPEN = "open"
    """All pass, uncounted."""

    CLOSED = "closed"
    """None pass."""


@dataclass(frozen=True, slots=True)
class Limit:
    """So many hits in so much time. Raises ValueError, naming the field."""

    limit: int
    """Hits, 1 to `LIMIT_MAX`."""

    duration_s: float = 0.0
    """Length of the window, 1 ms to ten years, in whole microseconds; 0 with `calendar`."""

    burst: int = 0
    """Size of the bucket of `Algorithm.GCRA`; 0: `limit`. The window algorithms ignore it."""

    calendar: Calendar | None = None
    """The window is the calendar's, not `duration_s`; for `Algorithm.FIXED_WINDOW` only."""

    time_zone: str = "UTC"
    """IANA name of the time zone whose calendar it is; without effect otherwise."""

    def __post_init__(self) -> None:
        _whole("limit", self.limit, 1)
        _whole("burst", self.burst, 0)
        if self.calendar is not None:
            if self.duration_s:
                raise ValueError("duration_s: give either a duration or a calendar period")
            _zone(self.time_zone)
        elif not DURATION_MIN_S <= self.duration_s <= DURATION_MAX_S:
            raise ValueError(
                f"duration_s: {self.duration_s:g} is not within 1 ms to ten years (3660 days)"
            )

    @property
    def capacity(self) -> int:
        """What a bucket holds: `burst`, or `limit` where none is given."""
        return self.burst or self.limit

    @property
    def window_s(self) -> float:
        """Length of the window, seconds; of a month, the longest."""
        return _CALENDAR_S[self.calendar] if self.calendar is not None else self.duration_s

    def window_end_us(self, now_us: int) -> int:
        """When the fixed window that holds `now_us` ends; both Unix time, microseconds.

        It is above `now_us`, and the first moment of the next window.
        """
        if self.calendar is not None:
            return calendar_end_us(self.calendar, self.time_zone, now_us)
        duration_us = round(self.duration_s * 1e6)
        return now_us - now_us % duration_us + duration_us

    def __str__(self) -> str:
        if self.calendar is not None:
            return f"{self.limit} per {self.calendar} ({self.time_zone})"
        return f"{self.limit} per {self.duration_s:g} s"


@dataclass(frozen=True, slots=True)
class Told:
    """Which groups of headers tell callers about the quota."""

    x_ratelimit: bool = True
    """`X-RateLimit-Limit`, `-Remaining`, `-Reset` (seconds), and `X-RateLimit-Quota` on refusal."""

    ietf: bool = True
    """`RateLimit-Policy` and `RateLimit`, draft-ietf-httpapi-ratelimit-headers-10."""

    retry_after: bool = True
    """`Retry-After` on refusal."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The body of a refusal. Its status is the filter's `rate_limited_status`."""

    body: str
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Quota:
    """Limits on one kind of key, which must all hold. Raises ValueError, naming the field."""

    bucket: str
    """What is counted, apart from the key parts: such as API, operation, policy and quota. Two
    quotas with the same bucket share their counters."""

    limits: tuple[Limit, ...]
    """One to ten."""

    name: str = "default"
    """How callers are told of it: printable ASCII, at most 100 characters."""

    algorithm: Algorithm = Algorithm.FIXED_WINDOW
    hits: Hits = Hits.CONSUME

    shadow: bool = False
    """Count and report, but neither refuse nor tell callers."""

    when_away: WhenAway = WhenAway.LOCAL
    told: Told = field(default_factory=Told)

    answer: Answer | None = None
    """The body of a refusal; None: the router's own."""

    api: str = ""
    """Handle of the API, for events about the limit; no part of the counters' identity."""

    tells_key: bool = False
    """Whether events may hold the values of the key parts. Never where they are credentials."""

    events: bool = True
    """Whether `limit.approaching`, `limit.exceeded` and `quota.reset` are published."""

    def __post_init__(self) -> None:
        if not self.bucket:
            raise ValueError("bucket: must not be empty")
        if not 1 <= len(self.limits) <= LIMITS_MAX:
            raise ValueError(f"limits: there are {len(self.limits)}, not 1 to {LIMITS_MAX}")
        if not (self.name.isascii() and self.name.isprintable() and 0 < len(self.name) <= 100):
            raise ValueError("name: must be 1 to 100 printable ASCII characters")
        if self.algorithm is not Algorithm.FIXED_WINDOW:
            for index, limit in enumerate(self.limits):
                if limit.calendar is not None:
                    raise ValueError(
                        f"limits[{index}].calendar: calendar periods need the algorithm"
                        f" {Algorithm.FIXED_WINDOW.value}, not {self.algorithm.value}"
                    )


def encode(quota: Quota) -> str:
    """`quota` as the value of an entry: equal quotas give equal text."""
    document: dict[str, Any] = {"v": _VERSION, "b": quota.bucket, "n": quota.name}
    document["l"] = [_limit_document(limit) for limit in quota.limits]
    document["a"] = quota.algorithm.value
    document["h"] = quota.hits.value
    if quota.shadow:
        document["s"] = 1
    if quota.when_away is not WhenAway.LOCAL:
        document["w"] = quota.when_away.value
    if quota.told != Told():
        told = quota.told
        document["t"] = [int(told.x_ratelimit), int(told.ietf), int(told.retry_after)]
    if quota.answer is not None:
        document["r"] = [quota.answer.body, quota.answer.content_type]
    if quota.api:
        document["i"] = quota.api
    if quota.tells_key:
        document["k"] = 1
    if not quota.events:
        document["e"] = 0
    return json.dumps(document, separators=(",", ":")).replace("%", "\\u0025")


@lru_cache(maxsize=_KEPT)
def decode(text: str) -> Quota:
    """The quota that `encode` made `text` of. Raises MalformedQuota.

    The last few thousand are remembered, for a router sends the same few with every request.
    """
    try:
        document = json.loads(text)
        version = document["v"]
        if version != _VERSION:
            raise ValueError(f"v: version {version!r} is not {_VERSION}")  # noqa: TRY301
        return _quota(document)
    except KeyError as error:
        raise MalformedQuota(f"{error.args[0]}: missing") from error
    except (ValueError, TypeError, IndexError) as error:
        raise MalformedQuota(str(error)) from error


def _quota(document: Mapping[str, Any]) -> Quota:
    told = document.get("t", (1, 1, 1))
    answer = document.get("r")
    return Quota(
        bucket=_text("b", document["b"]),
        name=_text("n", document["n"]),
        limits=tuple(_limit(one) for one in document["l"]),
        algorithm=Algorithm(document["a"]),
        hits=Hits(document["h"]),
        shadow=bool(document.get("s", 0)),
        when_away=WhenAway(document.get("w", WhenAway.LOCAL.value)),
        told=Told(bool(told[0]), bool(told[1]), bool(told[2])),
        answer=None if answer is None else Answer(_text("r", answer[0]), _text("r", answer[1])),
        api=_text("i", document.get("i", "")),
        tells_key=bool(document.get("k", 0)),
        events=bool(document.get("e", 1)),
    )


def _limit_document(limit: Limit) -> list[int | float | str]:
    if limit.calendar is not None:
        return [limit.limit, 0, limit.burst, limit.calendar.value, limit.time_zone]
    duration = limit.duration_s
    return [limit.limit, int(duration) if duration == int(duration) else duration, limit.burst]


def _limit(parts: list[Any]) -> Limit:
    if len(parts) == 3:
        return Limit(parts[0], float(parts[1]), parts[2])
    return Limit(parts[0], 0.0, parts[2], Calendar(parts[3]), _text("l", parts[4]))


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{key}: {value!r} is not text")
    return value


def _whole(name: str, value: int, least: int) -> None:
    if type(value) is not int or not least <= value <= LIMIT_MAX:
        raise ValueError(f"{name}: {value!r} is not a whole number of {least} to {LIMIT_MAX}")


# -- the calendar ------------------------------------------------------------------------------

_CALENDAR_S: Mapping[Calendar, float] = {
    Calendar.HOUR: 3_600.0,
    Calendar.DAY: 86_400.0,
    Calendar.WEEK: 7 * 86_400.0,
    Calendar.MONTH: 31 * 86_400.0,
}


@lru_cache(maxsize=512)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"time_zone: {name!r} is not an IANA time zone") from error


def calendar_end_us(calendar: Calendar, time_zone: str, now_us: int) -> int:
    """When the period of `time_zone`'s calendar that holds `now_us` ends, Unix time.

    Days are as long as their zone makes them: 23 to 25 hours when clocks change.
    """
    return _calendar_end_s(calendar, time_zone, math.floor(now_us / 1_000_000)) * 1_000_000


def _calendar_end_s(calendar: Calendar, time_zone: str, now_s: int) -> int:
    zone = _zone(time_zone)
    local = datetime.fromtimestamp(now_s, zone)
    if calendar is Calendar.HOUR:
        return now_s + 3_600 - local.minute * 60 - local.second
    first = local.date()
    match calendar:
        case Calendar.DAY:
            after = first + timedelta(days=1)
        case Calendar.WEEK:
            after = first + timedelta(days=7 - first.weekday())
        case _:
            after = (first.replace(day=1) + timedelta(days=32)).replace(day=1)
    end = datetime(after.year, after.month, after.day, tzinfo=zone).astimezone(UTC)
    return int(end.timestamp())
