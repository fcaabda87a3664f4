"""Changes that wait for the policy engine's workers, so that no request has to."""

import asyncio
from typing import Protocol

import structlog

from bus.resources.rest_api import RestApi
from policy_engine.chain import needs_engine
from policy_engine.errors import PolicyError
from xds.compile.api import Catalogue
from xds.inbox import Inbox, WorkersAwake

log = structlog.get_logger()


class Workers(Protocol):
    """Those that run Python policies."""

    @property
    def now(self) -> bool:
        """Whether all of them have woken up."""
        ...

    async def wait(self) -> None:
        """Until they have."""
        ...


class NoWorkers:
    """None that could be waited for."""

    now = True

    async def wait(self) -> None:
        """Not at all."""


class Waiting:
    """The APIs whose newest change waits."""

    def __init__(self, workers: Workers, inbox: Inbox, catalogue: Catalogue, max_s: float) -> None:
        """After `max_s` seconds `inbox` is told to go on, whether `workers` are awake or not."""
        self._workers = workers
        self._inbox = inbox
        self._catalogue = catalogue
        self._max_s = max_s
        self._held: dict[str, None] = {}
        self._some = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._some.wait()
            try:
                async with asyncio.timeout(self._max_s):
                    await self._workers.wait()
            except TimeoutError:
                log.warning("workers do not wake up", waited_s=self._max_s)
            self._some.clear()
            self._inbox.put(WorkersAwake())

    def holds(self, api_id: str, api: RestApi | None) -> bool:
        """Whether the change of the API to `api` (None: it is gone) waits, from now on."""
        self._held.pop(api_id, None)  # an earlier one is no more
        if self._workers.now or not _needs_engine(api, self._catalogue):
            return False
        log.info("api waits for workers", api=api_id)
        self._held[api_id] = None
        self._some.set()
        return True

    def taken(self) -> dict[str, None]:
        """Those that have waited; they do so no longer."""
        held, self._held = self._held, {}
        return held


def _needs_engine(api: RestApi | None, catalogue: Catalogue) -> bool:
    """Whether a deployed API has policies for the engine; one that cannot be compiled has none."""
    if api is None or api.spec.deployment_state != "deployed":
        return False
    attached = (api.spec.policies, *(one.policies for one in api.spec.operations))
    try:
        return any(needs_engine(catalogue.attach(ref)) for refs in attached for ref in refs)
    except PolicyError:
        return False
