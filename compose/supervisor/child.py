"""One child process: how it is started, watched and told to stop."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Literal

from compose.supervisor.bounded_log import BoundedLog
from compose.supervisor.plan import LISTEN, Child

State = Literal["waiting", "starting", "ready", "pausing", "stopped"]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_BACKLOG = 1024  # connections that wait while the child is away
_STEADY_S = 30.0  # alive for so long: earlier deaths no longer count
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Watched:
    """A child and what became of it."""

    def __init__(self, child: Child, log: BoundedLog) -> None:
        self.child = child
        self.log = log
        self.state: State = "waiting"
        self.pid = 0
        self.restarts = 0
        self.last_exit = ""
        self.was_ready = False
        self.deaths = 0  # in a row; decides how long to pause
        self.due = 0.0  # monotonic: when it may start
        self.started = 0.0  # monotonic
        self.output = -1  # our end of the pipe that carries its stdout and stderr
        self._process: subprocess.Popen[bytes] | None = None
        self._socket = _listening(child.listen) if child.listen else None

    def start(self) -> None:
        """Run it. Raises OSError when the binary cannot be executed."""
        if self.child.ready.kind == "file" and os.path.exists(self.child.ready.target):  # noqa: PTH110
            os.unlink(self.child.ready.target)  # noqa: PTH108 - the mark of its predecessor
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("SIGNALBOX_")}
        held = () if self._socket is None else (self._socket.fileno(),)
        argv = [str(*held) if one == LISTEN else one for one in self.child.argv]
        reader, writer = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the launcher's own plan
                argv,
                env=inherited | self.child.env,
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                pass_fds=held,
                process_group=0,  # Ctrl-C is for the supervisor alone
                preexec_fn=self._tie_to_supervisor(),  # noqa: PLW1509 - there is one thread
            )
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        os.set_blocking(reader, False)
        self.output = reader
        self.pid = self._process.pid
        self.started = time.monotonic()
        self.state = "starting"

    def _tie_to_supervisor(self) -> Callable[[], None]:
        parent, number = os.getpid(), signal.Signals[self.child.orphan_signal].value

        def tie() -> None:
            if _LIBC is not None:
                _LIBC.prctl(_PR_SET_PDEATHSIG, number)
                if os.getppid() != parent:  # it died before we were tied
                    os._exit(1)

        return tie

    def pump(self) -> bool:
        """Carry what it wrote to its log; whether the pipe is still open."""
        try:
            data = os.read(self.output, 65536)
        except BlockingIOError:
            return True
        if data:
            self.log.write(data)
        return bool(data)

    def ended(self) -> bool:
        """Whether it has ended; `last_exit` then says how."""
        if self._process is None or self._process.poll() is None:
            return False
        code = self._process.returncode
        self.last_exit = (
            f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"
        )
        return True

    def bury(self, pause_s: float, pause_max_s: float) -> float:
        """Note its death; the pause before it may start again, seconds."""
        now = time.monotonic()
        self.deaths = 1 if self.was_ready and now - self.started > _STEADY_S else self.deaths + 1
        pause = min(pause_max_s, pause_s * 2.0 ** min(self.deaths - 1, 16))
        self.due = now + pause
        self.state, self.pid, self._process = "pausing", 0, None
        return pause

    def close(self) -> None:
        """It will not be started again."""
        if self._socket is not None and self.child.listen is not None:
            self._socket.close()
            os.unlink(self.child.listen)  # noqa: PTH108 - no pathlib in this process

    def send(self, number: int) -> None:
        """Signal it, if it is there."""
        if self._process is not None:
            self._process.send_signal(number)


def _listening(path: str) -> socket.socket:
    """A Unix socket for this user only; connections wait in it until somebody accepts them."""
    if os.path.exists(path):  # noqa: PTH110 - no pathlib in this process
        os.unlink(path)  # noqa: PTH108 - left behind: the data folder's lock is ours
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(path)
    os.chmod(path, 0o600)  # noqa: PTH101 - no pathlib in this process
    listening.listen(_BACKLOG)
    return listening
