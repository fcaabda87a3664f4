"""Envoy's access log over gRPC, received: `envoy.service.accesslog.v3.AccessLogService`.

Envoy gets no acknowledgements, so that what it sends while nobody listens is lost. Therefore the
listening socket may be one that a supervisor holds while this process restarts: Envoy connects,
sends and waits. gRPC cannot take such a socket over; `analytics.relay` stands between.
"""

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError

from analytics import metrics
from analytics.batch import requests_served
from analytics.errors import CannotListen
from analytics.outbox import Outbox
from analytics.relay import Relay
from analytics.settings import AnalyticsSettings
from analytics.totals import NAME_MAX
from xds.wire.messages import message_class

log = structlog.get_logger()

_SERVICE = "envoy.service.accesslog.v3.AccessLogService"
_MESSAGE = "envoy.service.accesslog.v3.StreamAccessLogsMessage"
_OPTIONS = (
    ("grpc.max_receive_message_length", 16 << 20),
    # What may be in this process unread: several messages, and little to lose in a kill.
    ("grpc.http2.lookahead_bytes", 1 << 18),
    ("grpc.http2.bdp_probe", 0),
)
_EVENT_ENTRIES_MAX = 2_000  # ten times Envoy's batch; larger ones might not fit the bus
_BACKLOG = 128
_QUIET_S = 0.1  # a stream that is silent this long once routers are cut off has nothing left
_GRACE_S = 1.0


@dataclass(frozen=True, slots=True)
class Listening:
    """Where routers can deliver."""

    port: int | None  # TCP, if any


@asynccontextmanager
async def receive_access_logs(
    settings: AnalyticsSettings, outbox: Outbox
) -> AsyncIterator[Listening]:
    """Receive as long as the context lasts; at its end, take what is under way.

    An inherited socket stays open: connections made meanwhile wait for the next process.
    Raises CannotListen.
    """
    streams = _Streams(outbox)
    with tempfile.TemporaryDirectory(prefix="signalbox-") as folder, _sockets(settings) as sockets:
        inner = Path(folder) / "grpc.sock"
        server = grpc.aio.server(options=_OPTIONS)
        handler = grpc.stream_unary_rpc_method_handler(streams.receive)  # raw bytes
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(_SERVICE, {"StreamAccessLogs": handler}),)
        )
        server.add_insecure_port(f"unix:{inner}")
        await server.start()
        relay = Relay(inner)
        async with relay.running(sockets):
            try:
                tcp = [one for one in sockets if one.family != socket.AF_UNIX]
                yield Listening(port=tcp[0].getsockname()[1] if tcp else None)
            finally:
                await relay.cut()
                streams.finish()
                await server.stop(_GRACE_S)


class _Streams:
    """The streams of all routers."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._message = message_class(_MESSAGE)
        self._reads: set[asyncio.Timeout] = set()
        self._quiet_s: float | None = None  # None: wait for ever

    def finish(self) -> None:
        """End each stream as soon as it is silent."""
        self._quiet_s = _QUIET_S
        deadline = asyncio.get_running_loop().time() + _QUIET_S
        for read in self._reads:
            read.reschedule(deadline)

    async def receive(self, _: object, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        """One router's stream, to its end; the answer is an empty StreamAccessLogsResponse."""
        node = ""
        metrics.STREAMS.inc()
        try:
            while (raw := await self._next(context)) is not None:
                node = self._received(node, raw)
                await self._outbox.room()
        finally:
            metrics.STREAMS.dec()
            log.info("access log stream ended", node=node)
        return b""

    async def _next(self, context: grpc.aio.ServicerContext[Any, Any]) -> bytes | None:
        read = asyncio.timeout(self._quiet_s)
        try:
            async with read:
                self._reads.add(read)
                raw = await context.read()
        except TimeoutError:
            return None
        finally:
            self._reads.discard(read)
        return raw if isinstance(raw, bytes) else None  # grpc.aio.EOF

    def _received(self, node: str, raw: bytes) -> str:
        """Hand one message on; the node's id, which only the first message of a stream tells."""
        try:
            message = self._message.FromString(raw)
        except DecodeError as error:
            log.warning("unreadable access log message", node=node, reason=str(error))
            self._outbox.lose(node, 1, "unreadable")
            return node
        if message.HasField("identifier"):
            node = message.identifier.node.id[:NAME_MAX]
            log.info("access log stream began", node=node)
        entries = message.http_logs.log_entry
        metrics.RECEIVED.inc(len(entries))
        for start in range(0, len(entries), _EVENT_ENTRIES_MAX):
            part = entries[start : start + _EVENT_ENTRIES_MAX]
            self._outbox.put(requests_served(node, part))
        return node


@contextlib.contextmanager
def _sockets(settings: AnalyticsSettings) -> Iterator[list[socket.socket]]:
    """The listening sockets; a Unix socket of our own is removed at the end."""
    with contextlib.ExitStack() as stack:
        sockets: list[socket.socket] = []
        if settings.access_log_fd is not None:
            sockets.append(_inherited(settings.access_log_fd))
        elif settings.access_log_socket is not None:
            sockets.append(_unix(settings.access_log_socket))
            stack.callback(settings.access_log_socket.unlink, missing_ok=True)
        if settings.access_log_port is not None:
            sockets.append(_tcp(settings.access_log_host, settings.access_log_port))
        if not sockets:
            raise CannotListen("nothing", "access_log_socket and access_log_port are both unset")
        for one in sockets:
            stack.callback(one.close)
        yield sockets


def _inherited(descriptor: int) -> socket.socket:
    try:
        return socket.socket(fileno=os.dup(descriptor))
    except OSError as error:
        raise CannotListen(f"file descriptor {descriptor}", str(error)) from error


def _unix(path: Path) -> socket.socket:
    """A listening socket for this user only; what a dead process left behind is replaced."""
    with socket.socket(socket.AF_UNIX) as probe:
        if probe.connect_ex(str(path)) == 0:
            raise CannotListen(str(path), "another process listens there")
    listening = socket.socket(socket.AF_UNIX)
    try:
        path.unlink(missing_ok=True)
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise CannotListen(str(path), error.strerror or str(error)) from error
    return listening


def _tcp(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), backlog=_BACKLOG)
    except OSError as error:
        raise CannotListen(f"{host}:{port}", error.strerror or str(error)) from error
