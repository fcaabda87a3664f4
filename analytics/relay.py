"""Connections of routers, passed on byte by byte to the gRPC server of this process.

gRPC opens its own sockets and drops what it has not read when a connection ends. Standing between,
the relay can listen on a socket that a supervisor holds, keep gRPC's side open until all is read,
and end a router's connection between two messages instead of within one.
"""

import asyncio
import contextlib
import os
import select
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from analytics.framing import Framing

log = structlog.get_logger()

CHUNK_BYTES = 1 << 17  # more than a message of Envoy
_LINGER_S = 0.25  # for gRPC to hand over what a router sent last
_MESSAGE_S = 0.6  # longer than Envoy keeps a message back (0.5 s, see xds.access_log)
_PAUSE_S = 0.002  # between two messages
_CUT_S = 5.0  # for a router that never pauses, or has much to say that it has kept
_AFTER_FAILURE_S = 0.1


class _Connection:
    """One router's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._framing = Framing()
        self._heard = asyncio.Event()  # whether it has said something since it was cleared

    async def pass_on(self, to: asyncio.StreamWriter) -> None:
        """All that the router says, until it ends and a little longer."""
        try:
            while chunk := await self.reader.read(CHUNK_BYTES):
                self._heard.set()
                self._framing.feed(chunk)
                to.write(chunk)
                await to.drain()
            await asyncio.sleep(_LINGER_S)
        except OSError as error:
            log.debug("access log connection broke", reason=str(error))
        finally:
            to.close()

    async def cut(self) -> None:
        """End it just after a message, when the next one is farthest away; soon in any case."""
        loop = asyncio.get_running_loop()
        own = self.writer.get_extra_info("socket")  # uvloop has none once it is closed
        if own is None or own.fileno() < 0 or self.reader.at_eof():
            return
        with socket.socket(fileno=os.dup(own.fileno())) as line, contextlib.suppress(OSError):
            self._heard.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_MESSAGE_S):
                    await self._heard.wait()
            deadline = loop.time() + _CUT_S
            while loop.time() < deadline:
                self._heard.clear()
                await asyncio.sleep(_PAUSE_S)
                quiet = not self._heard.is_set() and not _unread(line)
                if quiet and self._framing.between_messages:
                    break
            line.shutdown(socket.SHUT_RDWR)  # at once: closing would take another turn


def _unread(line: socket.socket) -> bool:
    poll = select.poll()
    poll.register(line, select.POLLIN)
    return bool(poll.poll(0))


class Relay:
    """Passes connections on to a Unix socket."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._connections: set[_Connection] = set()
        self._accepting: list[asyncio.Task[None]] = []

    @asynccontextmanager
    async def running(self, listening: Iterable[socket.socket]) -> AsyncIterator[None]:
        """Accept on these sockets; they are left open, with what nobody has accepted yet.

        At the end, wait until all connections have ended; what does not end is dropped.
        """
        async with asyncio.TaskGroup() as group:
            for one in listening:
                one.setblocking(False)
                accepting = group.create_task(self._accept(one, group), name="access-log-accept")
                self._accepting.append(accepting)
            try:
                yield
            finally:
                self._stop_accepting()

    async def cut(self) -> None:
        """Accept no more, and end every router's connection between two messages."""
        self._stop_accepting()
        async with asyncio.TaskGroup() as group:
            for connection in self._connections:
                group.create_task(connection.cut())

    def _stop_accepting(self) -> None:
        for task in self._accepting:
            task.cancel()

    async def _accept(self, listening: socket.socket, group: asyncio.TaskGroup) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except OSError as error:  # the caller has left again, or no descriptor is free
                log.warning("access log connection not accepted", reason=str(error))
                await asyncio.sleep(_AFTER_FAILURE_S)
            else:
                group.create_task(self._serve(accepted), name="access-log-connection")

    async def _serve(self, accepted: socket.socket) -> None:
        """One connection, until both sides have ended."""
        opened = (
            asyncio.open_unix_connection
            if accepted.family == socket.AF_UNIX
            else asyncio.open_connection
        )
        reader, writer = await opened(sock=accepted, limit=CHUNK_BYTES)
        connection = _Connection(reader, writer)
        self._connections.add(connection)
        try:
            back, there = await asyncio.open_unix_connection(self._target, limit=CHUNK_BYTES)
            async with asyncio.TaskGroup() as both:
                both.create_task(connection.pass_on(there))
                both.create_task(_pass_back(back, writer))
        except OSError as error:
            log.warning("access log connection not served", reason=str(error))
            writer.close()
        finally:
            self._connections.discard(connection)


async def _pass_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    except OSError as error:
        log.debug("access log connection broke", reason=str(error))
    finally:
        writer.close()
