"""What the routers made of what users asked for: a fold over `router.*` events."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal

from bus.events import (
    ConfigurationApplied,
    ConfigurationRejected,
    Event,
    PolicyFaultsFound,
    RouterConnected,
    RouterDisconnected,
)

Outcome = Literal["live", "rejected", "pending"]


@dataclass(slots=True)
class Router:
    """One router, as it last reported."""

    node: str
    version: str = ""
    connected: bool = True
    reported: bool = False  # whether it ever told what it serves
    revisions: dict[str, int] = field(default_factory=dict)  # API -> revision in force

    def serves(self, api_id: str, revision: int, *, retired: bool) -> bool:
        """Whether it is at this revision of the API or beyond; retired: has nothing of it."""
        known = self.revisions.get(api_id)
        if known is None:
            return retired and self.reported
        return known >= revision


@dataclass(frozen=True, slots=True)
class Rejection:
    """A revision that is not served, and why."""

    revision: int
    reason: str


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one revision of an API has come."""

    live: int  # connected routers that serve it
    total: int  # connected routers
    reason: str | None  # why it is refused, in the refuser's words
    fault: str | None = None  # what is wrong with the files of its policies, served or not

    @property
    def outcome(self) -> Outcome:
        """Nothing more is to be waited for unless it is pending."""
        if self.reason is not None:
            return "rejected"
        return "live" if 0 < self.total == self.live else "pending"


@dataclass(slots=True)
class Fleet:
    """All routers and what they refused. `apply` is idempotent."""

    routers: dict[str, Router] = field(default_factory=dict)
    rejections: dict[str, dict[str, Rejection]] = field(
        default_factory=lambda: defaultdict(dict)
    )  # API -> refuser -> what it refused
    faults: dict[str, str] = field(default_factory=dict)  # API -> what is wrong with its policies

    def apply(self, event: Event) -> set[str] | None:
        """Take `event` in; the APIs it is about, None for all. Foreign events change nothing."""
        match event:
            case RouterConnected():
                return self._connected(event)
            case RouterDisconnected(node=node):
                if node in self.routers:
                    self.routers[node].connected = False
                return None
            case ConfigurationApplied():
                return self._applied(event)
            case ConfigurationRejected(node=node, api_id=api_id, revision=revision, reason=reason):
                known_one = self.rejections[api_id].get(node)
                if known_one is None or known_one.revision <= revision:
                    self.rejections[api_id][node] = Rejection(revision, reason)
                return {api_id}
            case PolicyFaultsFound(faults=faults, apis=apis):
                before = self.faults
                self.faults = {
                    api_id: "\n".join(f"policy {name!r}: {faults.get(name, '')}" for name in names)
                    for api_id, names in apis.items()
                }
                return {*before, *self.faults}
            case _:
                return set()

    def _connected(self, event: RouterConnected) -> set[str] | None:
        known = self.routers.get(event.node)
        if known is None or not known.connected:
            self.routers[event.node] = Router(event.node, event.version)
            return None
        known.version = event.version or known.version
        return set()

    def _applied(self, event: ConfigurationApplied) -> set[str] | None:
        router = self.routers.get(event.node)
        if router is None or not router.connected:
            router = self.routers[event.node] = Router(event.node)
        router.reported = True
        if event.complete:
            router.revisions = dict(event.revisions)
        else:
            router.revisions |= event.revisions
        for api_id, revision in event.revisions.items():
            refused = self.rejections.get(api_id)
            for node in [n for n, one in (refused or {}).items() if one.revision <= revision]:
                if node in ("", event.node) and refused is not None:
                    del refused[node]
            if refused is not None and not refused:
                del self.rejections[api_id]
        return None if event.complete else set(event.revisions)

    def standing(self, api_id: str, revision: int, *, retired: bool = False) -> Standing:
        """How far `revision` of the API has come."""
        connected = [one for one in self.routers.values() if one.connected]
        live = sum(one.serves(api_id, revision, retired=retired) for one in connected)
        refused = [
            one for one in self.rejections.get(api_id, {}).values() if one.revision >= revision
        ]
        newest = max(refused, key=lambda one: one.revision, default=None)
        fault = None if retired else self.faults.get(api_id)
        return Standing(live, len(connected), newest.reason if newest else None, fault)


class Deployments:
    """The fleet, who waits for it, and how long changes took."""

    def __init__(self, observe: Callable[[float], None] = lambda _: None) -> None:
        self.fleet = Fleet()
        self._observe = observe  # told the seconds from commit to live
        self._waiting: dict[str, set[asyncio.Future[None]]] = defaultdict(set)
        self._committed: dict[str, tuple[int, bool, float]] = {}  # not live yet
        self._elapsed_s: dict[str, tuple[int, float]] = {}

    def committed(self, api_id: str, revision: int, *, retired: bool) -> None:
        """A revision was committed just now."""
        self._committed[api_id] = (revision, retired, monotonic())
        self._settle({api_id})

    def apply(self, event: Event) -> None:
        """Take in what a router told."""
        touched = self.fleet.apply(event)
        if touched is None:
            touched = {*self._waiting, *self._committed}
        self._settle(touched)
        for api_id in touched & self._waiting.keys():
            for waiter in self._waiting[api_id]:
                if not waiter.done():
                    waiter.set_result(None)

    def _settle(self, api_ids: set[str]) -> None:
        for api_id in api_ids & self._committed.keys():
            revision, retired, since_s = self._committed[api_id]
            outcome = self.fleet.standing(api_id, revision, retired=retired).outcome
            if outcome == "pending":
                continue
            del self._committed[api_id]
            if outcome == "live":
                elapsed_s = monotonic() - since_s
                self._elapsed_s[api_id] = (revision, elapsed_s)
                self._observe(elapsed_s)

    def elapsed_ms(self, api_id: str, revision: int) -> float | None:
        """From commit to the last router; None when it is not live or came from elsewhere."""
        known = self._elapsed_s.get(api_id)
        return round(known[1] * 1000, 3) if known and known[0] == revision else None

    async def wait(self, api_id: str, revision: int, *, retired: bool, wait_s: float) -> Standing:
        """The standing as soon as it is not pending, or after `wait_s` seconds."""
        deadline = asyncio.get_running_loop().time() + wait_s
        waiting = self._waiting[api_id]
        try:
            async with asyncio.timeout_at(deadline):
                while True:
                    standing = self.fleet.standing(api_id, revision, retired=retired)
                    if standing.outcome != "pending" or wait_s <= 0:
                        return standing
                    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    waiting.add(waiter)
                    try:
                        await waiter
                    finally:
                        waiting.discard(waiter)
        except TimeoutError:
            return self.fleet.standing(api_id, revision, retired=retired)
        finally:
            if not waiting and self._waiting.get(api_id) is waiting:
                del self._waiting[api_id]

    @property
    def routers(self) -> Mapping[str, Router]:
        """All routers that were heard of."""
        return self.fleet.routers
