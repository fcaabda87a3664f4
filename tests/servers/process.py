"""The process of a server: started until it answers, killed, started again."""

import asyncio
import contextlib
import subprocess
from collections.abc import Sequence
from pathlib import Path

READY_S = 30.0
POLL_S = 0.01
_STOP_S = 10.0
_TAIL = 3000  # characters of its log


class ServerProcess:
    """A server with a log, alive or not."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str | Path]:
        """What starts it."""
        raise NotImplementedError

    async def answers(self) -> bool:
        """Whether it is ready."""
        raise NotImplementedError

    @property
    def pid(self) -> int:
        """The process; 0 when there is none."""
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Start, and wait until it answers. Raises RuntimeError with the end of its log."""
        command = self.command()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                while self._process.poll() is None:
                    if await self.answers():
                        return
                    await asyncio.sleep(POLL_S)
        await self.kill()
        name = Path(command[0]).name
        raise RuntimeError(f"{name} did not start:\n{self.log.read_text()[-_TAIL:]}")

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is not None:
            self._process.kill()
            await self._gone(self._process)

    async def stop(self) -> None:
        """SIGTERM: it ends as it likes, and is gone."""
        if self._process is not None:
            self._process.terminate()
            await self._gone(self._process)

    async def restart(self) -> None:
        """Kill it if it lives, and start it again on the same port with the same folder."""
        await self.kill()
        await self.start()

    async def _gone(self, process: "subprocess.Popen[bytes]") -> None:
        await asyncio.to_thread(process.wait, _STOP_S)
        self._process = None
