"""What is told on the bus: routers that come and go, what they serve, what is refused, and why."""

import asyncio
from collections.abc import Iterable, Mapping

import structlog

from bus.errors import BusUnavailable
from bus.events import (
    ConfigurationApplied,
    ConfigurationRejected,
    Event,
    PolicyFaultsFound,
    RouterConnected,
    RouterDisconnected,
)
from bus.ports import Publisher

log = structlog.get_logger()

_CHUNK = 2_000  # APIs in one event; keeps it well below the broker's message limit
_RETRY_S = 1.0
_FAULT_CHARACTERS = 4_000  # the reason comes first, then its traceback


class Reports:
    """Events are noted at once, and published by `run`."""

    def __init__(self, bus: Publisher, *, org: str, gateway: str) -> None:
        self._bus = bus
        self._address = {"org": org, "gateway": gateway}
        self._outgoing: asyncio.Queue[Event] = asyncio.Queue()
        self._refusals: dict[str, ConfigurationRejected] = {}  # by API, some of them outdated
        self._at_fault: dict[str, tuple[str, ...]] = {}  # API -> its policies with broken files

    async def run(self) -> None:
        """Publish in order; while the bus is away, wait: nothing else waits for this."""
        while True:
            event = await self._outgoing.get()
            while True:
                try:
                    await self._bus.publish(event)
                    break
                except BusUnavailable as error:
                    log.warning("router event waits for the bus", reason=error.reason)
                    await asyncio.sleep(_RETRY_S)

    def connected(self, node: str, version: str) -> None:
        """A router is there; `version` is Envoy's."""
        self._outgoing.put_nowait(RouterConnected(**self._address, node=node, version=version))

    def disconnected(self, node: str) -> None:
        """It is not there any more."""
        self._outgoing.put_nowait(RouterDisconnected(**self._address, node=node))

    def applied(self, node: str, revisions: Mapping[str, int], *, complete: bool = False) -> None:
        """What a router serves; `complete`: and nothing else, further chunks apart."""
        names = list(revisions)
        for start in range(0, max(len(names), 1 if complete else 0), _CHUNK):
            part = {name: revisions[name] for name in names[start : start + _CHUNK]}
            self._outgoing.put_nowait(
                ConfigurationApplied(
                    **self._address, node=node, revisions=part, complete=complete and start == 0
                )
            )

    def refused(self, api_id: str, revision: int, reason: str, *, node: str) -> None:
        """An API cannot be served as it is; by which router, if one has said so."""
        one = self._refusals[api_id] = ConfigurationRejected(
            **self._address, node=node, api_id=api_id, revision=revision, reason=reason
        )
        self._outgoing.put_nowait(one)

    def still_refused(self, held: Mapping[str, int]) -> None:
        """Tell again what is refused of the revisions that are `held` back, by API."""
        for api_id, one in list(self._refusals.items()):
            if held.get(api_id) == one.revision:
                self._outgoing.put_nowait(one)
            else:
                del self._refusals[api_id]

    def use(
        self, policies: Iterable[tuple[str, frozenset[str]]], troubles: Mapping[str, str]
    ) -> None:
        """Which policies APIs use now: tell it if files of theirs are broken, or are mended."""
        before = dict(self._at_fault)
        for api_id, used in policies:
            names = used & troubles.keys()
            if names:
                self._at_fault[api_id] = tuple(sorted(names))
            else:
                self._at_fault.pop(api_id, None)
        if self._at_fault != before:
            self.faults(troubles)

    @property
    def has_faults(self) -> bool:
        """Whether some API uses a policy with broken files."""
        return bool(self._at_fault)

    def faults(self, troubles: Mapping[str, str]) -> None:
        """What is wrong with files of policies that are used, in today's words."""
        names = {name for one in self._at_fault.values() for name in one}
        self._outgoing.put_nowait(
            PolicyFaultsFound(
                **self._address,
                faults={name: troubles.get(name, "")[:_FAULT_CHARACTERS] for name in names},
                apis=self._at_fault,
            )
        )
