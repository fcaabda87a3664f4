"""The engine's side of its workers: it tells them the hops, and hears what has happened."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from policy_engine.engine.book import Change, HopBook
from policy_engine.engine.standby import LENGTH

log = structlog.get_logger()

_MESSAGE_MAX_BYTES: Final = 64 << 20
_UNSENT_MAX: Final = 10_000  # changes that wait for a worker that does not read


@dataclass(slots=True, eq=False)
class WorkerState:
    """What is known of one worker."""

    number: int
    pid: int
    asleep: bool = False
    report: dict[str, Any] = field(default_factory=dict)  # the latest


class Feed:
    """All workers that are connected."""

    def __init__(
        self,
        book: HopBook,
        heard: Callable[[WorkerState], None] = lambda _worker: None,
        gone: Callable[[WorkerState], None] = lambda _worker: None,
        met: Callable[[], None] = lambda: None,
    ) -> None:
        """`met` is told that a worker has come."""
        self.book = book
        self.workers: dict[int, WorkerState] = {}
        self._heard = heard
        self._gone = gone
        self._met = met
        self._queues: set[asyncio.Queue[bytes | None]] = set()

    def tell(self, change: Change, *, retry: bool = False) -> None:
        """All workers learn `change`; `retry`: what could not be made may be possible now."""
        if not change and not retry:
            return
        message = _framed({"hops": change.hops, "gone": change.gone, "retry": retry})
        for queue in self._queues:
            if queue.qsize() > _UNSENT_MAX:
                queue.put_nowait(None)  # it starts over
            else:
                queue.put_nowait(message)

    def close(self) -> None:
        """Every connection ends."""
        for queue in self._queues:
            queue.put_nowait(None)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One worker, for as long as it is connected."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        worker: WorkerState | None = None
        try:
            hello = await _message(reader)
            if hello is None:
                return
            worker = WorkerState(hello["worker"], hello["pid"], asleep=hello.get("asleep", False))
            self.workers[worker.number] = worker
            self._met()
            self._queues.add(queue)
            queue.put_nowait(_framed({"hops": self.book.hops, "whole": True}))
            async with asyncio.TaskGroup() as group:
                telling = group.create_task(_tell(queue, writer))
                while (told := await _message(reader)) is not None:
                    worker.report = told
                    self._heard(worker)
                telling.cancel()
        except* (OSError, ValueError, KeyError, asyncio.IncompleteReadError) as errors:
            log.warning("worker not understood", reason=str(errors.exceptions[0]))
        finally:
            self._queues.discard(queue)
            if worker is not None:
                if self.workers.get(worker.number) is worker:
                    del self.workers[worker.number]
                self._gone(worker)
            writer.close()


async def _tell(queue: asyncio.Queue[bytes | None], writer: asyncio.StreamWriter) -> None:
    while True:
        message = await queue.get()
        if message is None:
            writer.close()
            return
        writer.write(message)
        await writer.drain()


async def _message(reader: asyncio.StreamReader) -> dict[str, Any] | None:
    """The next message; None when the worker is gone. Raises ValueError."""
    try:
        head = await reader.readexactly(LENGTH.size)
        size = LENGTH.unpack(head)[0]
        if size > _MESSAGE_MAX_BYTES:
            raise ValueError(f"a message of {size} bytes")
        told: dict[str, Any] = orjson.loads(await reader.readexactly(size))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return told


def _framed(message: object) -> bytes:
    body = orjson.dumps(message)
    return LENGTH.pack(len(body)) + body


@asynccontextmanager
async def listening(feed: Feed, path: Path) -> AsyncIterator[None]:
    """Workers of this user may connect at `path`. Raises OSError."""
    server = await asyncio.start_unix_server(feed.serve, sock=_bound(path))
    try:
        yield
    finally:
        server.close()
        feed.close()
        _remove(path)


def _bound(path: Path) -> socket.socket:
    _remove(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(str(path))
        path.chmod(0o600)  # before anybody can connect: it does not listen yet
    except OSError:
        bound.close()
        raise
    return bound


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
