"""Workers of the engine as processes of their own, started again when they end, as in a gateway."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from prometheus_client import CollectorRegistry

from bus.events import Event
from bus.resources.rest_api import PolicyRef, RestApi
from compose.settings import Settings
from policy_engine.engine.feed import listening
from policy_engine.engine.hop_feed import Hops
from policy_engine.engine.reports import FailureEvents
from policy_engine.hop import ENGINE_CLUSTER
from policy_engine.refusals import local_reply_config
from tests.policy_engine.engine.trial_policies import TRIALS
from tests.policy_engine.python_gateway import catalogue_with, python_api
from tests.servers.envoy import Envoy
from tests.servers.http_backend import HttpBackend, http_backend
from tests.xds.routing import router
from xds.bootstrap import service_cluster

ROOT = Path(__file__).parents[3]
DEADLINE_S = 60


@dataclass
class Told:
    """The bus, as far as the engine publishes on it."""

    events: list[Event] = field(default_factory=list)

    async def publish(self, event: Event, *, event_id: str | None = None) -> None:
        self.events.append(event)


@dataclass
class Worker:
    """One worker; `pid` changes when it is started again."""

    number: int
    held: socket.socket
    log: Path
    settings_file: Path
    path: str
    starts: int = 0
    process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    async def keep(self) -> None:
        """Run it, and again when it ends, until cancelled."""
        while True:
            with self.log.open("ab") as output:
                self.process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "compose.engine_worker"),
                    *(str(self.settings_file), str(self.number), str(self.held.fileno())),
                    pass_fds=(self.held.fileno(),),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, "PYTHONPATH": self.path, "MALLOC_ARENA_MAX": "2"},
                )
            self.starts += 1
            try:
                await self.process.wait()
            except asyncio.CancelledError:
                with contextlib.suppress(ProcessLookupError):
                    self.process.terminate()
                try:
                    async with asyncio.timeout(10):
                        await self.process.wait()
                except TimeoutError:
                    self.process.kill()
                    await self.process.wait()
                raise
            await asyncio.sleep(0.1)

    def resident_mb(self) -> float:
        words = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(words[1]) * 4096 / (1 << 20)


@dataclass
class ProcessGateway:
    """Envoy, workers, and this process as the engine."""

    client: httpx.AsyncClient
    backend: HttpBackend
    envoy: Envoy
    workers: list[Worker]
    hops: Hops
    api: RestApi
    bus: Told
    url: str

    async def serving(self, count: int = 1) -> None:
        """Wait until that many workers are awake and know all hops."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                known = [one.report.get("hops") for one in self.hops.feed.workers.values()]
                if known.count(len(self.hops.book.hops)) >= count:
                    return
                await asyncio.sleep(0.02)

    async def until(self, path: str, status: int) -> None:
        """Wait until `path` is answered with `status`."""
        async with asyncio.timeout(DEADLINE_S):
            while (await self.client.get(path)).status_code != status:
                await asyncio.sleep(0.02)


def entry_points_in(folder: Path) -> str:
    """A path on which the trial policies are installed, for a process of its own."""
    installed = folder / "installed"
    metadata = installed / "trials-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: trials\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[signalbox.policies]\n"
        "trials = tests.policy_engine.engine.trial_policies\n"
        "broken = tests.policy_engine.engine.broken_policies\n"
    )
    return os.pathsep.join((str(installed), str(ROOT)))


@asynccontextmanager
async def process_gateway(
    folder: Path,
    operations: Mapping[str, Sequence[PolicyRef]],
    *,
    workers: int = 1,
    settings: Mapping[str, Any] | None = None,
    upstream: str = "",
) -> AsyncIterator[ProcessGateway]:
    """An API whose Python policies run in processes of their own; `upstream`: not the echo."""
    run = folder / "run"
    run.mkdir(parents=True)
    given = Settings().with_values(data=folder, **(settings or {}))
    settings_file = run / "settings.json"
    settings_file.write_text(json.dumps(given.dump()))
    catalogue = catalogue_with(TRIALS, None)
    bus = Told()
    async with AsyncExitStack() as stack:
        backend = await stack.enter_async_context(http_backend())
        api = python_api((), operations, upstream or backend.url)
        events = FailureEvents(bus)
        hops = Hops(catalogue, events, CollectorRegistry(), run / "hops.json")
        hops._put(api)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        tasks = [group.create_task(hops.keep_file()), group.create_task(events.publish())]
        await stack.enter_async_context(listening(hops.feed, run / "engine.sock"))
        path = entry_points_in(folder)
        started = []
        for number in range(workers):
            held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            stack.callback(held.close)
            held.bind(str(run / f"engine-{number}.sock"))
            held.listen(1024)
            worker = Worker(number, held, folder / f"w{number}.log", settings_file, path)
            started.append(worker)
            tasks.append(group.create_task(worker.keep()))
        places = [run / f"engine-{number}.sock" for number in range(workers)]
        running = await stack.enter_async_context(
            router(
                api,
                catalogue=catalogue,
                local_reply=local_reply_config(catalogue.refusals()),
                more_clusters=[service_cluster(ENGINE_CLUSTER, places)],
            )
        )
        running.client.timeout = httpx.Timeout(DEADLINE_S)
        gateway = ProcessGateway(
            client=running.client,
            backend=backend,
            envoy=running.envoy,
            workers=started,
            hops=hops,
            api=api,
            bus=bus,
            url=str(running.client.base_url),
        )
        try:
            yield gateway
        finally:
            for task in tasks:
                task.cancel()


def kill(worker: Worker) -> None:
    """As the system does it: without a word."""
    os.kill(worker.pid, signal.SIGKILL)
