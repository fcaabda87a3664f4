"""From the state to the workers: every change of an API becomes a change of hops."""

import asyncio
import contextlib
import os
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any, Final

import orjson
import structlog
from prometheus_client import CollectorRegistry

from bus.events import ApiPublished, ApiRetired, Event
from bus.resources.rest_api import RestApi
from policy_engine.catalogue import Catalogue
from policy_engine.engine.awake import Awake
from policy_engine.engine.book import Change, HopBook
from policy_engine.engine.feed import Feed, WorkerState
from policy_engine.engine.hops import hops_of
from policy_engine.engine.model import Model
from policy_engine.engine.reports import FailureEvents
from policy_engine.engine.serving import Serving
from policy_engine.engine.worker_metrics import WorkerMetrics
from policy_engine.errors import PolicyError

log = structlog.get_logger()

_QUIET_S: Final = 0.2  # before a change is written to the file


class Hops:
    """The hops of all APIs, and who runs them."""

    def __init__(
        self,
        catalogue: Catalogue,
        events: FailureEvents,
        registry: CollectorRegistry,
        file: Path | None,
        lengths: Callable[[float], None] = lambda _policies: None,
        awake: Awake | None = None,
    ) -> None:
        """`file` is kept for restarts; `lengths` is told how many policies a new hop has."""
        self._catalogue = catalogue
        self._events = events
        self._file = file
        self._lengths = lengths
        self._changed = asyncio.Event()
        self._serving = Serving()
        self.book = HopBook()
        self._awake = awake
        self.feed = Feed(self.book, self._heard, self._gone, self._met)
        self._metrics = WorkerMetrics(self.feed)
        registry.register(self._metrics)

    def recall(self) -> None:
        """Before all else: what is on file. Routers may serve revisions that the state has not."""
        if self._file is None:
            return
        try:
            self.book.recall(orjson.loads(self._file.read_bytes()))
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            log.warning("hops on file are not known", file=str(self._file), reason=str(error))

    def take(self, event: Event) -> None:
        """An event of the state that has changed something."""
        match event:
            case ApiPublished(api=api, revision=revision):
                self._put(api, revision)
            case ApiRetired(api_id=api_id):
                self._tell(self.book.remove(api_id))

    def keep_only(self, apis: Container[str]) -> None:
        """The state is whole: other APIs than these were retired while nobody listened."""
        for api_id in self.book.apis():
            if api_id not in apis:
                self._tell(self.book.remove(api_id))

    def reported(self, event: Event) -> None:
        """A router has told what it serves: what came before is needed no more."""
        for api_id, revision in self._serving.apply(event):
            self._tell(self.book.served(api_id, revision))

    def _tell(self, change: Change) -> None:
        if change:
            self._changed.set()
            self.feed.tell(change)

    def _put(self, api: RestApi, revision: int | None = None) -> None:
        try:
            hops = hops_of(api, self._catalogue)
        except PolicyError as error:
            # the router refuses it for the same reason, and serves what it has
            log.warning("hops of an API stay as they were", api=api.id, reason=str(error))
            return
        change = self.book.put(api.id, hops, revision)
        for hop in change.hops.values():
            self._lengths(len(hop["policies"]))
        if change or self.book.of(api.id):
            self._changed.set()
        self.feed.tell(change)

    async def follow_catalogue(self, model: Model) -> None:
        """When policies change, hops of the APIs that use them do, too; until cancelled."""
        async for names in self._catalogue.changes():
            for api in model.deployed():
                refs = [*api.spec.policies, *(p for o in api.spec.operations for p in o.policies)]
                if any(ref.name in names for ref in refs):
                    self._put(api)
            self.feed.tell(Change(), retry=True)

    async def keep_file(self) -> None:
        """Keep the file what the book is, until cancelled."""
        while True:
            await self._changed.wait()
            await asyncio.sleep(_QUIET_S)
            self._changed.clear()
            if self._file is not None:
                body = orjson.dumps(self.book.document())
                await asyncio.to_thread(_write, self._file, body)

    def _heard(self, worker: WorkerState) -> None:
        failures: list[dict[str, Any]] = worker.report.pop("failures", [])
        self._events.put(failures)

    def _met(self) -> None:
        if self._awake is not None:
            self._awake.update(self.feed.workers.values())

    def _gone(self, worker: WorkerState) -> None:
        self._metrics.gone(worker)


def _write(file: Path, body: bytes) -> None:
    """Whole or not at all, for this user only; parameters of policies may be secret."""
    new = file.with_name(file.name + ".new")
    try:
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
            output.write(body)
        new.replace(file)
    except OSError as error:
        log.warning("hops are not on file", file=str(file), reason=str(error))
