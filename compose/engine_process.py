"""A worker of the policy engine, awake."""

import asyncio
import gc
import json
import signal
import socket
import sys
from pathlib import Path

import structlog
import uvloop

from compose import log_output
from compose.data_folder import DataFolder
from compose.errors import BadSettings, ComposeError
from compose.settings import Settings
from compose.signing_key import with_signing_key
from policy_engine import catalogue as policies
from policy_engine.engine.worker import Work, limit_memory
from policy_engine.engine.worker import run as serve
from policy_engine.loading import watched

log = structlog.get_logger()

_FAILED, _STOPPED = 1, 0
_ATTENTIVE = 50_000, 20, 50  # collections are rare: a request leaves few cycles behind


def run(settings_file: str, number: int, descriptor: int) -> int:
    """Serve with the launcher's settings, on its socket, until SIGTERM; the exit status."""
    try:
        text = Path(settings_file).read_text(encoding="utf-8")
        settings = Settings.restore(json.loads(text))
    except (OSError, ValueError, BadSettings) as error:
        sys.stderr.write(f"the settings of the launcher cannot be used: {error}\n")
        return _FAILED
    held = socket.socket(fileno=descriptor)
    held.setblocking(False)
    return run_worker(settings, number, held=held)


def run_worker(
    settings: Settings,
    number: int,
    *,
    held: socket.socket | None = None,
    path: Path | None = None,
    address: tuple[str, int] | None = None,
) -> int:
    """Serve until SIGTERM or SIGINT; the exit status."""
    log_output.configure(settings.gateway)
    folder = DataFolder(settings.gateway.data.expanduser().absolute())
    engine = settings.policy_engine
    work = Work(
        number=number,
        feed=engine.engine_feed_socket or folder.engine_socket,
        hops_file=folder.hops_file,
        marks_file=folder.run / f"engine-{number}.mark",
        max_body_bytes=settings.xds.engine_max_body_bytes,
        max_answer_bytes=settings.xds.engine_max_answer_bytes,
        memory_bytes=engine.engine_worker_memory_mb << 20,
        stuck_s=engine.engine_stuck_s,
        grace_s=engine.engine_shutdown_grace_s,
        held=held,
        path=path,
        address=address,
    )
    try:
        catalogue = policies.load(system=with_signing_key(settings.policies, folder))
        catalogue.sources = watched.folder_of(settings.policies, folder.root)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*_ATTENTIVE)
        limit_memory(work.memory_bytes)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_until_stopped(work, catalogue))
    except (ComposeError, OSError) as error:
        log.error("worker cannot go on", worker=number, reason=str(error))  # noqa: TRY400
        return _FAILED
    log.info("worker stopped", worker=number)
    return _STOPPED


async def _until_stopped(work: Work, catalogue: policies.Catalogue) -> None:
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(serve(work, catalogue), name="worker")
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
