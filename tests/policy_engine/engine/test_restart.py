"""After a restart of everything, routers may serve a revision that the state does not have."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx

from bus.events import ApiPublished, ApiRetired, ConfigurationApplied, RecordPublished
from bus.jetstream import JetStreamBus
from bus.resources.rest_api import RestApi
from bus.settings import BusSettings
from compose.settings import Settings
from policy_engine.engine.service import run
from policy_engine.engine.settings import EngineSettings
from policy_engine.hop import ENGINE_CLUSTER
from policy_engine.refusals import local_reply_config
from tests.e2e.waiting import until
from tests.policy_engine.engine.processes import DEADLINE_S, Worker, entry_points_in
from tests.policy_engine.engine.trial_policies import TRIALS
from tests.policy_engine.python_gateway import catalogue_with, python_api, ref
from tests.servers.http_backend import http_backend
from tests.servers.nats import NatsServer, nats_server
from tests.xds.routing import router
from xds.bootstrap import service_cluster

CATALOGUE = catalogue_with(TRIALS, None)


@asynccontextmanager
async def engine(server: NatsServer, folder: Path) -> AsyncIterator[JetStreamBus]:
    """The engine with its workers' socket and its file in `folder`, caught up with the state."""
    ready = asyncio.Event()
    settings = EngineSettings(
        engine_admin_port=0, engine_metrics_port=0, engine_feed_socket=folder / "engine.sock"
    )
    async with (
        JetStreamBus.connect(BusSettings(nats_url=server.url), name="engine") as bus,
        asyncio.TaskGroup() as group,
    ):
        task = group.create_task(
            run(settings, bus, CATALOGUE, ready.set, hops_file=folder / "hops.json")
        )
        async with asyncio.timeout(DEADLINE_S):
            await ready.wait()
        yield bus
        task.cancel()


@asynccontextmanager
async def worker_in(folder: Path) -> AsyncIterator[Path]:
    """A worker, and the socket on which it serves."""
    run_folder = folder / "run"
    settings_file = run_folder / "settings.json"
    settings = Settings().with_values(data=folder, engine_feed_socket=run_folder / "engine.sock")
    settings_file.write_text(json.dumps(settings.dump()))
    place = run_folder / "engine-0.sock"
    async with AsyncExitStack() as stack:
        held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stack.callback(held.close)
        held.bind(str(place))
        held.listen(1024)
        path = entry_points_in(folder)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        worker = Worker(0, held, folder / "w0.log", settings_file, path)
        task = group.create_task(worker.keep())
        try:
            yield place
        finally:
            task.cancel()


async def on_file(file: Path, words: set[str]) -> None:
    """Wait until the engine has written down the hops with these words, and no others."""
    found: set[str] = set()
    async with asyncio.timeout(DEADLINE_S):
        while found != words:
            await asyncio.sleep(0.02)
            told = json.loads(file.read_bytes())["hops"] if file.exists() else {}
            found = {one["params"]["word"] for hop in told.values() for one in hop["policies"]}


def stamping(word: str, upstream: str) -> RestApi:
    return python_api([ref("stamp", word=word)], None, upstream)


async def test_the_last_good_revision_runs_after_a_restart_of_everything(tmp_path: Path) -> None:
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    file = run_folder / "hops.json"
    async with nats_server() as server, http_backend() as backend:
        good, refused = stamping("good", backend.url), stamping("refused", backend.url)
        async with engine(server, run_folder) as bus:
            await bus.publish(ApiPublished(revision=1, api=good))
            await bus.publish(RecordPublished(apis=1))
            await on_file(file, {"good"})
            await bus.publish(ConfigurationApplied(node="r1", revisions={"tried": 1}))
            await bus.publish(ApiPublished(revision=2, api=refused))
            await on_file(file, {"good", "refused"})

        # all that is left is the state, with the newest revision only, and the file
        async with (
            engine(server, run_folder) as bus,
            worker_in(tmp_path) as place,
            router(
                good,
                catalogue=CATALOGUE,
                local_reply=local_reply_config(CATALOGUE.refusals()),
                more_clusters=[service_cluster(ENGINE_CLUSTER, [place])],
            ) as running,
        ):
            running.client.timeout = httpx.Timeout(DEADLINE_S)
            answer = await until(
                lambda: running.client.get("/a"), lambda one: one.status_code == 200
            )
            assert answer.headers["x-stamped"] == "good"

            await bus.publish(ConfigurationApplied(node="r1", revisions={"tried": 2}))
            await on_file(file, {"refused"})


async def test_what_was_retired_while_the_engine_was_away_is_let_go(tmp_path: Path) -> None:
    file = tmp_path / "hops.json"
    async with nats_server() as server:
        async with engine(server, tmp_path) as bus:
            await bus.publish(ApiPublished(revision=1, api=stamping("a", "http://u.example")))
            await on_file(file, {"a"})
        async with JetStreamBus.connect(BusSettings(nats_url=server.url), name="other") as bus:
            await bus.publish(ApiRetired(revision=2, api_id="tried"))
        async with engine(server, tmp_path) as bus:
            await bus.publish(RecordPublished(apis=0))
            await on_file(file, set())


async def test_a_file_that_cannot_be_read_is_written_anew(tmp_path: Path) -> None:
    file = tmp_path / "hops.json"
    file.write_text("{")
    async with nats_server() as server, engine(server, tmp_path) as bus:
        await bus.publish(ApiPublished(revision=1, api=stamping("a", "http://u.example")))
        async with asyncio.timeout(DEADLINE_S):
            while file.read_bytes() == b"{":
                await asyncio.sleep(0.02)
        await on_file(file, {"a"})
