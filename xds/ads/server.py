"""The delta ADS server: streams of routers over gRPC, on a Unix socket, TCP, or both.

A change is handed to every connected router at once; a router that is slow or dead holds up only
itself. Of two streams with one node id the newer is served and the older is ended: after a lost
connection the older is dead, and two routers that were given the same id would take turns, which
is logged.
"""
# ruff: noqa: ANN401 - grpcio has no types

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Any, Self

import grpc
import structlog

from xds.ads import metrics
from xds.ads.codec import METHOD, SERVICE, NotARequest, Router, decode, encode
from xds.ads.protocol import (
    Desired,
    Key,
    Memory,
    Outcome,
    Publication,
    Request,
    Resource,
    RouterEvents,
)
from xds.ads.stream import Pace, Stream

log = structlog.get_logger()

_REMEMBERED_ROUTERS = 1_000  # whose quarantine outlives their stream
_KEEPALIVE_MS, _KEEPALIVE_TIMEOUT_MS = 10_000, 5_000
_OPTIONS = (
    ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
    ("grpc.keepalive_timeout_ms", _KEEPALIVE_TIMEOUT_MS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),  # routers ping, too
    ("grpc.max_receive_message_length", -1),  # a router with 100,000 scopes names them all
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
)


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files of the TCP port; with `client_authorities`, routers must show a certificate."""

    certificate: Path
    key: Path
    client_authorities: Path | None = None

    def credentials(self) -> Any:
        """What grpcio needs."""
        authorities = self.client_authorities
        return grpc.ssl_server_credentials(
            [(self.key.read_bytes(), self.certificate.read_bytes())],
            authorities.read_bytes() if authorities is not None else None,
            require_client_auth=authorities is not None,
        )


class _Connection:
    """One open stream and its outgoing bytes."""

    def __init__(self, stream: Stream, router: Router) -> None:
        self.stream = stream
        self.router = router
        self.outgoing: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.timer: asyncio.TimerHandle | None = None
        self.replaced = False

    def close(self) -> None:
        """Send nothing more, and end the stream once it is written."""
        if self.timer is not None:
            self.timer.cancel()
        self.outgoing.put_nowait(None)


class AdsServer:
    """Async context manager; single-threaded, all methods belong to the event loop."""

    def __init__(
        self,
        events: RouterEvents,
        *,
        socket: Path | None = None,
        address: tuple[str, int] | None = None,
        tls: Tls | None = None,
        pace: Pace | None = None,
    ) -> None:
        """Listen on Unix socket `socket`, TCP `address` (port 0: a free one), or both."""
        self._events = events
        self._socket = socket
        self._address = address
        self._tls = tls
        self._pace = pace or Pace()
        self._desired = Desired()
        self._connections: dict[str, _Connection] = {}  # by node
        self._memories: OrderedDict[str, tuple[str, Memory]] = OrderedDict()
        self._is_open = False
        self._server: Any = None
        self.port: int | None = None
        """The TCP port, once listening."""

    async def __aenter__(self) -> Self:
        """Listen. Raises OSError when an address is taken or the socket cannot be made."""
        server = grpc.aio.server(options=_OPTIONS)
        behaviour = grpc.stream_stream_rpc_method_handler(self._serve)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(SERVICE, {METHOD: behaviour}),)
        )
        if self._socket is not None:
            self._bind(server, f"unix:{self._socket}")
        if self._address is not None:
            host, port = self._address
            self.port = self._bind(server, f"{host}:{port}", self._tls)
        await server.start()
        if self._socket is not None:
            self._socket.chmod(0o600)
        self._server = server
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all streams; routers keep what they have and reconnect by themselves."""
        for connection in self._connections.values():
            connection.close()
        await self._server.stop(grace=1.0)
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)

    @staticmethod
    def _bind(server: Any, where: str, tls: Tls | None = None) -> int:
        try:
            if tls is None:
                return int(server.add_insecure_port(where))
            return int(server.add_secure_port(where, tls.credentials()))
        except RuntimeError as error:
            raise OSError(f"the configuration service cannot listen on {where}") from error

    # What the gateway is to be

    def publish(self, upserts: Iterable[Resource], removals: Iterable[Key] = ()) -> None:
        """The new desired state, as a difference; pushed to all routers. Costs what changed."""
        now_s = asyncio.get_running_loop().time()
        publication = self._desired.publish(upserts, removals, now_s)
        for type_url in {key[0] for key in (*publication.upserts, *publication.removals)}:
            count = len(self._desired.of(type_url))
            metrics.resources.labels(metrics.label(type_url)).set(count)
        self._hand_out(publication)

    def _hand_out(self, publication: Publication) -> None:
        if publication.upserts or publication.removals:
            for connection in self._connections.values():
                connection.stream.publish(publication)
                self._push(connection)

    def open(self) -> None:
        """Start to answer. Until then nothing is: half a gateway is worse than an old one."""
        self._is_open = True
        for connection in self._connections.values():
            self._push(connection)

    @property
    def nodes(self) -> Mapping[str, Mapping[Key, str]]:
        """The connected routers and the versions that each has acknowledged. O(everything)."""
        return {
            node: {
                (type_url, name): version
                for type_url, subscription in connection.stream.subscriptions.items()
                for name, version in subscription.in_force.items()
            }
            for node, connection in self._connections.items()
        }

    # Streams

    async def _serve(self, _: object, context: Any) -> None:
        """One stream of one router."""
        metrics.streams.inc()
        first = await context.read()
        if first is grpc.aio.EOF:
            return
        connection = await self._connect(first, context)
        try:
            async with asyncio.TaskGroup() as group:
                reader = group.create_task(self._read(connection, context), name="ads: read")
                while (body := await connection.outgoing.get()) is not None:
                    await context.write(body)
                reader.cancel()
        finally:
            self._disconnect(connection)

    async def _connect(self, first: bytes, context: Any) -> _Connection:
        try:
            request, router = decode(first)
        except NotARequest as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise
        if router is None or not router.node:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, "the first request has no node id"
            )
            raise NotARequest("no node id")
        connection = _Connection(
            Stream(
                self._desired,
                self._memory(router),
                self._pace,
                nonce_prefix=f"{token_hex(4)}-",
            ),
            router,
        )
        older = self._connections.pop(router.node, None)
        if older is not None:
            log.warning("router connected again, older stream ended", node=router.node)
            older.replaced = True
            older.close()
        self._connections[router.node] = connection
        metrics.clients_connected.set(len(self._connections))
        self._events.connected(router.node, router.version)
        self._take(connection, request)
        return connection

    def _memory(self, router: Router) -> Memory:
        """What is remembered of a router; another version of Envoy is given another chance."""
        version, memory = self._memories.pop(router.node, (router.version, Memory()))
        if version != router.version:
            memory = Memory()
        self._memories[router.node] = (router.version, memory)
        while len(self._memories) > _REMEMBERED_ROUTERS:
            self._memories.popitem(last=False)
        return memory

    def _disconnect(self, connection: _Connection) -> None:
        connection.close()
        if not connection.replaced:
            self._connections.pop(connection.router.node, None)
            metrics.clients_connected.set(len(self._connections))
            self._events.disconnected(connection.router.node)

    async def _read(self, connection: _Connection, context: Any) -> None:
        try:
            while (body := await context.read()) is not grpc.aio.EOF:
                self._take(connection, decode(body)[0])
        except NotARequest:
            log.exception("router sent no request", node=connection.router.node)
        connection.close()

    def _take(self, connection: _Connection, request: Request) -> None:
        metrics.requests.labels(metrics.label(request.type_url)).inc()
        self._report(connection.router.node, connection.stream.request(request))
        self._push(connection)

    def _report(self, node: str, outcome: Outcome) -> None:
        now_s = asyncio.get_running_loop().time()
        for response, error in outcome.answered:
            kind = metrics.label(response.type_url)
            if error is None:
                metrics.acks.labels(kind).inc()
                if response.change.at_s:
                    metrics.push_seconds.labels(kind).observe(now_s - response.change.at_s)
            else:
                metrics.nacks.labels(kind).inc()
                log.warning(
                    "router refused a response",
                    node=node,
                    type=kind,
                    resources=len(response.upserts),
                    reason=error,
                )
        for one in outcome.rejected:
            refused = one.resource
            metrics.quarantined.labels(metrics.label(refused.type_url)).inc()
            self._events.rejected(node, refused.type_url, refused.name, refused.version, one.reason)
        if outcome.applied:
            self._events.applied(node, outcome.applied)

    def _push(self, connection: _Connection) -> None:
        """Send what may be sent now, and come back when more may."""
        if not self._is_open or connection.replaced:
            return
        loop = asyncio.get_running_loop()
        for response in connection.stream.responses(loop.time()):
            connection.outgoing.put_nowait(encode(response, connection.router.ports))
        if connection.timer is not None:
            connection.timer.cancel()
        wake_s = connection.stream.wake_s
        connection.timer = (
            loop.call_at(wake_s, self._push, connection) if wake_s is not None else None
        )
