"""gRPC servers for Envoy's per-request calls: one method, one address, one event loop.

For trusted peers only: Unix sockets, or TCP where nobody else can connect. A health check must use
another address, because every call here reaches the one handler, whatever its path says.
"""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from xds.wire.h2.connection import Connection
from xds.wire.h2.limits import Counters, Limits
from xds.wire.h2.stream import Stream, StreamHandler
from xds.wire.h2.unary import UnaryHandler, UnaryService

_SOCKET_MODE = 0o600
_BACKLOG = 1_024


class H2Server:
    """A running server. `counters` is read by whoever exports metrics."""

    def __init__(
        self,
        factory: Callable[[Stream], StreamHandler],
        limits: Limits,
        counters: Counters,
        field: str | None = None,
    ) -> None:
        self.counters = counters
        self.address = ""  # as gRPC names it: "unix:/run/engine.sock", "127.0.0.1:4001"
        self._factory = factory
        self._limits = limits
        self._field = field
        self._connections: set[Connection] = set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._listener: asyncio.Server | None = None
        self._path: Path | None = None
        self._inode = 0

    async def listen(
        self, path: Path | None, host: str, port: int, mode: int, held: socket.socket | None = None
    ) -> None:
        """Accept connections. Raises OSError."""
        loop = asyncio.get_running_loop()
        if held is not None:
            self._listener = await loop.create_unix_server(
                self._connection, sock=held, backlog=_BACKLOG
            )
            self.address = f"unix:{held.getsockname()}"
            return
        if path is None:
            self._listener = await loop.create_server(
                self._connection, host, port, backlog=_BACKLOG
            )
            bound_host, bound_port = self._listener.sockets[0].getsockname()[:2]
            self.address = f"{bound_host}:{bound_port}"
            return
        self._listener = await loop.create_unix_server(
            self._connection, sock=self._bound(path, mode), backlog=_BACKLOG
        )
        self.address = f"unix:{path}"

    async def drain(self, timeout_s: float | None = None) -> None:
        """Take nothing new, let the streams in flight finish, cut what is left after `timeout_s`.

        The default is the limit `drain_timeout_s`.
        """
        if self._listener is not None:
            self._give_up_path()
            self._listener.close()
            self._listener = None
        for connection in tuple(self._connections):
            connection.drain()
        patience_s = self._limits.drain_timeout_s if timeout_s is None else timeout_s
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                await self._empty.wait()
        for connection in tuple(self._connections):
            connection.abort()
        await self._empty.wait()

    def _bound(self, path: Path, mode: int) -> socket.socket:
        """A Unix socket at `path`, which nobody can connect to before its mode is set."""
        if path.is_socket():  # left by a process that was killed, or a predecessor's that drains
            path.unlink()
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            bound.bind(str(path))
            path.chmod(mode)
            self._path, self._inode = path, path.stat().st_ino
        except OSError:
            bound.close()
            raise
        return bound

    def _give_up_path(self) -> None:
        """Before the listener closes: as long as it is open its inode is nobody else's."""
        path = self._path
        if path is not None and path.is_socket() and path.stat().st_ino == self._inode:
            path.unlink()  # unless a successor has taken the place

    def _connection(self) -> Connection:
        connection = Connection(self._factory, self._limits, self.counters, self._gone, self._field)
        self._connections.add(connection)
        self._empty.clear()
        return connection

    def _gone(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()


@asynccontextmanager
async def serve_stream(
    factory: Callable[[Stream], StreamHandler],
    *,
    path: Path | str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    mode: int = _SOCKET_MODE,
    held: socket.socket | None = None,
    limits: Limits | None = None,
    counters: Counters | None = None,
    field: str | None = None,
) -> AsyncIterator[H2Server]:
    """Serve a bidirectional streaming method; `factory` makes the handler of each call.

    `field`: name of a request header, in lower case, whose value handlers find on their stream.

    Listens on the Unix socket `path`, with permissions `mode`, or else on `host` and `port` (0: a
    free one); or on `held`, a bound Unix socket that somebody else keeps over our restarts. When
    the context ends, the server drains. Raises OSError.
    """
    server = H2Server(factory, limits or Limits(), counters or Counters(), field)
    await server.listen(None if path is None else Path(path), host, port, mode, held)
    try:
        yield server
    finally:
        await server.drain()


@asynccontextmanager
async def serve_unary(
    handler: UnaryHandler,
    *,
    path: Path | str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    mode: int = _SOCKET_MODE,
    limits: Limits | None = None,
) -> AsyncIterator[H2Server]:
    """Serve a unary method. Addresses and end are those of `serve_stream`. Raises OSError."""
    agreed = limits or Limits()
    counters = Counters()
    async with (
        UnaryService(handler, agreed.handler_timeout_s, counters) as service,
        serve_stream(
            service.open,
            path=path,
            host=host,
            port=port,
            mode=mode,
            limits=agreed,
            counters=counters,
        ) as server,
    ):
        yield server
