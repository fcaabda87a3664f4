"""Subscriptions as policies see them: who may call an API, and how much of it."""

from dataclasses import dataclass
from typing import Literal

Unit = Literal["Min", "Hour", "Day", "Month"]

UNIT_S: dict[Unit, int] = {"Min": 60, "Hour": 3600, "Day": 86_400, "Month": 30 * 86_400}
"""How long a unit is for who cannot know the calendar, seconds; a month has 30 days."""


@dataclass(frozen=True, slots=True)
class Quota:
    """How many requests a plan allows."""

    plan: str  # its id
    limit: int  # requests in each `unit`
    unit: Unit
    stop: bool = True  # whether requests beyond it are refused; else they are only counted
    time_zone: str | None = None  # whose calendar it is; None: the gateway's


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A live subscription to an API."""

    id: str
    digest: str  # lower-case hex SHA-256 of its token
    application: str = ""  # for whom it is, as usage shows it; empty: nobody said
    callers: tuple[str, ...] = ()
    """Names under which authenticating policies may know the application."""
    plan: str = ""  # the plan's id; empty: without a plan
    quota: Quota | None = None  # None: unlimited
