"""A worker, awake: it serves Envoy's calls, learns hops from the engine, and reports to it.

It goes on with what it knows while the engine is away.
"""

import asyncio
import contextlib
import gc
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from policy_engine.catalogue import Catalogue
from policy_engine.engine.call import Call
from policy_engine.engine.marks import Marks
from policy_engine.engine.outside import opened
from policy_engine.engine.process_memory import data_bytes, resident_bytes
from policy_engine.engine.runtime import Runtime
from policy_engine.engine.standby import LENGTH
from policy_engine.engine.watch import StuckWatch
from policy_engine.hooks import Place
from policy_engine.hop import HOP_FIELD, Hop
from xds.wire.h2 import H2Server, Limits, serve_stream

log = structlog.get_logger()

_MIB: Final = 1 << 20
_RETRY_S: Final = 0.5  # between two attempts to reach the engine
_REPORT_S: Final = 1.0
_FULL: Final = 0.95  # of the memory allowed, behind which a worker ends ...
_NEARLY_FULL: Final = 0.6  # ... when a policy has asked in vain


@dataclass(frozen=True, slots=True)
class Work:
    """What one worker is told when it starts."""

    number: int
    feed: Path  # the engine's socket
    hops_file: Path  # what the engine has told last
    marks_file: Path
    max_body_bytes: int
    max_answer_bytes: int
    memory_bytes: int
    stuck_s: float
    grace_s: float  # for calls in flight at the end
    held: socket.socket | None = None  # bound by somebody who keeps it over restarts
    path: Path | None = None  # else, a Unix socket
    address: tuple[str, int] | None = None  # else


async def run(work: Work, catalogue: Catalogue, ready: Any = lambda: None) -> None:  # noqa: ANN401
    """Serve until cancelled. Raises OSError."""
    marks = Marks(work.marks_file)
    left = marks.left()
    async with opened() as outside:
        runtime = Runtime(
            catalogue,
            outside,
            max_body_bytes=work.max_body_bytes,
            max_answer_bytes=work.max_answer_bytes,
            marks=marks,
        )
        _recall(runtime, work, left)
        longest = max(work.max_body_bytes, work.max_answer_bytes)
        limits = Limits(message_max_bytes=longest + _MIB, drain_timeout_s=work.grace_s)
        host, port = work.address or ("127.0.0.1", 0)
        with StuckWatch(work.stuck_s) as watch:
            runtime.patience = watch.paused
            runtime.learn(_on_file(work.hops_file))
            async with serve_stream(
                lambda stream: Call(runtime, stream),
                host=host,
                port=port,
                held=work.held,
                path=work.path,
                limits=limits,
                field=HOP_FIELD,
            ) as server:
                log.info("worker serves", worker=work.number, address=server.address)
                ready()
                link = Link(work, runtime, server)
                try:
                    await link.keep()
                finally:
                    await server.drain()
                    await runtime.close()
                    if link.full_by:
                        marks.set(link.full_by)


def limit_memory(memory_bytes: int) -> None:
    """No more than that of data for this process; who asks for more gets MemoryError."""
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))


def _recall(runtime: Runtime, work: Work, left: tuple[str, str] | None) -> None:
    """What ended the worker before this one, if it was a policy; those that have rest."""
    file = work.marks_file.with_suffix(".deaths")
    try:
        known = orjson.loads(file.read_bytes())
        runtime.deaths.update({(one[0], one[1]): (one[2], one[3]) for one in known})
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, IndexError) as error:
        log.warning("what ended earlier workers cannot be read", reason=str(error))
    if left is None:
        return
    hop, policy = left
    runtime.died(hop, policy)
    document = _on_file(work.hops_file).get(hop)
    place, mode = Place("api", "", "", "", ""), "closed"
    if document is not None:
        known_hop = Hop.of(document)
        place, mode = known_hop.place, "open" if known_hop.fails_open else "closed"
    cause = RuntimeError(f"it ran when worker {work.number} was ended or died")
    runtime.failures.note(place, policy, "any", mode, cause, kind="died")
    told = [[*key, *value] for key, value in runtime.deaths.items()]
    with contextlib.suppress(OSError):
        file.write_bytes(orjson.dumps(told))


def _on_file(file: Path) -> dict[str, Any]:
    try:
        hops: dict[str, Any] = orjson.loads(file.read_bytes())["hops"]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("hops on file cannot be read", file=str(file), reason=str(error))
        return {}
    return hops


class Link:
    """The connection to the engine: hops come in, reports go out."""

    def __init__(self, work: Work, runtime: Runtime, server: H2Server) -> None:
        self._work = work
        self._runtime = runtime
        self._server = server
        self._told = b""
        self.full_by = b""
        """The mark of the policy that has filled the worker, which ends because of that."""

    async def keep(self) -> None:
        """Connect, and again when the connection ends, until cancelled."""
        while True:
            try:
                async with self._connected() as (reader, writer), asyncio.TaskGroup() as group:
                    reporting = group.create_task(self._report(writer))
                    await self._listen(reader)
                    reporting.cancel()
            except* OSError as errors:
                log.debug("the engine is away", reason=str(errors.exceptions[0]))
            self._check_memory()
            await asyncio.sleep(_RETRY_S)

    @asynccontextmanager
    async def _connected(
        self,
    ) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_unix_connection(str(self._work.feed))
        try:
            writer.write(_framed({"worker": self._work.number, "pid": os.getpid()}))
            self._told = b""
            yield reader, writer
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Take in what the engine tells, until it is gone."""
        runtime = self._runtime
        while True:
            try:
                head = await reader.readexactly(LENGTH.size)
                body = await reader.readexactly(LENGTH.unpack(head)[0])
            except asyncio.IncompleteReadError:
                return
            told = orjson.loads(body)
            if told.get("whole"):
                runtime.forget(runtime.hops.keys() - told["hops"].keys())
            runtime.learn(told["hops"])
            runtime.forget(told.get("gone", ()))
            if told.get("retry"):
                runtime.retry()

    async def _report(self, writer: asyncio.StreamWriter) -> None:
        """Tell the engine what has happened, when something has."""
        while True:
            self._check_memory()
            runtime = self._runtime
            runtime.tidy()
            failures = [one.document() for one in runtime.failures.taken()]
            report = {
                "figures": runtime.figures.document(),
                "counters": asdict(self._server.counters),
                "hops": len(runtime.hops),
                "programs": len(runtime.programs),
            }
            body = orjson.dumps(report)
            if failures or body != self._told:
                self._told = body
                writer.write(
                    _framed({**report, "failures": failures, "memory_bytes": resident_bytes()})
                )
                await writer.drain()
            await asyncio.sleep(_REPORT_S)

    def _check_memory(self) -> None:
        """A worker whose memory is used up ends, in order: nobody's policies could run in it.

        If a policy has asked for more than there was, it rests in the worker that follows.
        """
        runtime = self._runtime
        greedy, runtime.greedy = runtime.greedy, b""
        most = self._work.memory_bytes * (_NEARLY_FULL if greedy else _FULL)
        if data_bytes() < most:
            return
        gc.collect()
        used = data_bytes()
        if used >= most:
            log.error("worker is full, and ends", worker=self._work.number, data_bytes=used)
            self.full_by = greedy
            signal.raise_signal(signal.SIGTERM)


def _framed(message: object) -> bytes:
    body = orjson.dumps(message)
    return LENGTH.pack(len(body)) + body
