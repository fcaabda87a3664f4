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
from pathlib import Path

import structlog

log = structlog.get_logger()

CHUNK_BYTES = 1 << 18
_LINGER_S = 0.25  # for gRPC to hand over what a router sent last
_MESSAGE_S = 0.6  # longer than Envoy keeps a message back (0.5 s, see xds.access_log)
_PAUSE_S = 0.002  # between two messages: one message comes in one piece
_CUT_S = 1.0  # for a router that never pauses
_END_S = 2.0


class _Connection:
    """One router's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._heard = asyncio.Event()  # whether it has said something since it was cleared

    async def pass_on(self, to: asyncio.StreamWriter) -> None:
        """All that the router says, until it ends and a little longer."""
        try:
            while chunk := await self.reader.read(CHUNK_BYTES):
                self._heard.set()
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
        descriptor = self.writer.get_extra_info("socket").fileno()
        if descriptor < 0:
            return
        with socket.socket(fileno=os.dup(descriptor)) as line, contextlib.suppress(OSError):
            self._heard.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_MESSAGE_S):
                    await self._heard.wait()
            deadline = loop.time() + _CUT_S
            while loop.time() < deadline:
                self._heard.clear()
                await asyncio.sleep(_PAUSE_S)
                if not self._heard.is_set() and not _unread(line):
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
        self._open: dict[_Connection, asyncio.Task[None] | None] = {}
        self._none_open = asyncio.Event()
        self._none_open.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until both sides have ended."""
        connection = _Connection(reader, writer)
        self._open[connection] = asyncio.current_task()
        self._none_open.clear()
        try:
            back, there = await asyncio.open_unix_connection(self._target, limit=CHUNK_BYTES)
            async with asyncio.TaskGroup() as both:
                both.create_task(connection.pass_on(there))
                both.create_task(_pass_back(back, writer))
        except OSError as error:
            log.warning("access log connection not accepted", reason=str(error))
            writer.close()
        finally:
            del self._open[connection]
            if not self._open:
                self._none_open.set()

    async def cut(self) -> None:
        """End every router's connection between two messages."""
        async with asyncio.TaskGroup() as group:
            for connection in self._open:
                group.create_task(connection.cut())

    async def ended(self) -> None:
        """Wait until all connections have ended; what does not end is dropped."""
        try:
            async with asyncio.timeout(_END_S):
                await self._none_open.wait()
        except TimeoutError:
            for task in self._open.values():
                if task is not None:
                    task.cancel()
            await self._none_open.wait()


async def _pass_back(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
    except OSError as error:
        log.debug("access log connection broke", reason=str(error))
    finally:
        writer.close()
