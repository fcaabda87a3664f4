"""One application on one port; signals are for the owner of the loop."""

import asyncio
import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

_BACKLOG = 1024


def bound(address: str, port: int) -> socket.socket:
    """A socket for `Server.run_until_cancelled`; 0 is any port. Raises OSError."""
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
    except OSError:
        listener.close()
        raise
    return listener


class Server(uvicorn.Server):
    """Serves until it is cancelled; `grace_s` is how long requests in flight may take then."""

    def __init__(self, app: ASGIApp, grace_s: float) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http="httptools",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # who calls is the connection's address
                backlog=_BACKLOG,
                timeout_graceful_shutdown=math.ceil(grace_s),
            )
        )
        self.answers = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The owner of the loop decides when to end."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self.answers.set()

    async def run_until_cancelled(self, listener: socket.socket) -> None:
        """Serve; when cancelled, finish what is in flight, then end."""
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(self.serve(sockets=[listener]))
            try:
                await asyncio.shield(serving)
            except asyncio.CancelledError:
                self.should_exit = True
                await serving
                raise
