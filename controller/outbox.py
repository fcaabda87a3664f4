"""Telling the bus what was committed: at least once, in order, each event under one id.

What was told is taken out of the outbox a little later, many at once: a process that dies before
tells it again under the same id, and the broker keeps it once.

Everything that is published is published by one task, so that an older shape of an API never
overtakes a newer one.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog
from pydantic import ValidationError

from bus.errors import BusError, BusUnavailable
from bus.events import RecordPublished, event_class
from controller.errors import StorageError
from controller.model import Outgoing
from controller.ports import ControllerBus, Record
from controller.reconcile import Reconciliation, reconcile

log = structlog.get_logger()

_QUIET_S = 0.05  # when nothing was committed for so long, the outbox is tidied up
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


class Relay:
    """Moves events from the outbox to the bus."""

    def __init__(
        self,
        record: Record,
        bus: ControllerBus,
        *,
        poll_s: float,
        batch: int,
        sent: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._record = record
        self._bus = bus
        self._poll_s = poll_s
        self._batch = batch
        self._sent = sent  # told the kind of each event
        self._done: set[int] = set()  # on the bus, and still in the outbox
        self._told_all_in: int | None = None  # the epoch in which all of the record was told

    async def start(self) -> None:
        """Make record and bus agree, waited for as long as it takes; then `run` may follow."""
        await _until_done("record and bus are compared", self._whole)

    async def run(self) -> None:
        """Relay until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_epochs(), name="controller: watch epochs")
            group.create_task(self._relay(), name="controller: relay")

    async def _watch_epochs(self) -> None:
        epoch = self._bus.epoch
        while True:
            epoch = await self._bus.next_epoch(epoch)
            self._record.told.set()

    async def _relay(self) -> None:
        while True:
            self._record.told.clear()
            await _until_done("record and bus are compared", self._whole)
            await _until_done("outbox is relayed", self._drain)
            if await self._woken(_QUIET_S if self._done else self._poll_s):
                continue
            if self._done:  # nothing waits for us: time to tidy up
                await _until_done("outbox is tidied", self._forget)

    async def _woken(self, within_s: float) -> bool:
        try:
            async with asyncio.timeout(within_s):
                return await self._record.told.wait()
        except TimeoutError:
            return False

    async def _whole(self) -> None:
        """Unless done in this epoch: tell all that the bus does not know."""
        epoch = self._bus.epoch
        if self._told_all_in == epoch:
            return
        if self._done:
            await self._forget()
        told = await reconcile(self._record, self._bus)
        await self._drain()
        if self._bus.epoch != epoch:
            raise BusUnavailable("the broker lost its data meanwhile")
        await self._bus.publish(RecordPublished(apis=told.apis))
        self._told_all_in = epoch
        _report(told, epoch)

    async def _drain(self) -> None:
        while True:
            batch = await self._record.pending(self._batch, self._done)
            for outgoing in batch:
                await self._publish(outgoing)
                self._done.add(outgoing.number)
            if len(self._done) >= self._batch:
                await self._forget()
            if len(batch) < self._batch:
                return

    async def _forget(self) -> None:
        await self._record.forget(tuple(self._done))
        self._done.clear()

    async def _publish(self, outgoing: Outgoing) -> None:
        try:
            event = event_class(outgoing.kind).model_validate_json(outgoing.body)
            await self._bus.publish(event, event_id=outgoing.event_id)
        except BusUnavailable:
            raise
        except (BusError, ValidationError) as error:  # it can never be told, others can
            log.exception(
                "event cannot be told",
                kind=outgoing.kind,
                event_id=outgoing.event_id,
                reason=str(error),
            )
            return
        self._sent(outgoing.kind)


async def _until_done(what: str, work: Callable[[], Awaitable[None]]) -> None:
    pause_s = _FIRST_PAUSE_S
    while True:
        try:
            return await work()
        except (BusUnavailable, StorageError) as error:
            log.warning("will try again", until=what, reason=str(error), pause_s=round(pause_s, 3))
        await asyncio.sleep(pause_s * random.uniform(0.5, 1))  # noqa: S311  (not a secret)
        pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _report(told: Reconciliation, epoch: int) -> None:
    log.info(
        "record and bus agree",
        apis=told.apis,
        published=told.published,
        adopted=told.adopted,
        epoch=epoch,
    )
