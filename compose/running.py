"""A gateway that runs on this machine: its processes, and how it is stopped."""

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compose.data_folder import DataFolder
from compose.errors import NotReady, NotRunning

_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Process:
    """One process of a gateway."""

    name: str
    pid: int  # 0: not running just now
    state: str  # waiting | starting | ready | pausing | stopped
    restarts: int
    resident_bytes: int  # 0: not running, or not on Linux
    last_exit: str  # how it ended the last time; empty: never


def read_state(folder: DataFolder) -> dict[str, Any]:
    """What the supervisor last wrote; empty when it has not written anything."""
    try:
        state = json.loads(folder.state_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def processes(folder: DataFolder) -> tuple[Process, ...]:
    """All processes of the gateway on `folder`, the supervisor first. Raises NotRunning."""
    pid = folder.holder()
    if pid is None:
        raise NotRunning(folder.root)
    state = read_state(folder)
    phase = str(state.get("phase", "starting"))
    return (
        Process("supervisor", pid, phase, 0, resident_bytes(pid), ""),
        *(
            Process(
                name=child["name"],
                pid=child["pid"],
                state=child["state"],
                restarts=child["restarts"],
                resident_bytes=resident_bytes(child["pid"]) if child["pid"] else 0,
                last_exit=child["last_exit"],
            )
            for child in state.get("children", ())
        ),
    )


def own_start() -> float:
    """When this process began, seconds since 1970; now, where the system does not tell."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        up_s = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError):
        return time.time()
    return time.time() - up_s + int(fields[19]) / os.sysconf("SC_CLK_TCK")


def resident_bytes(pid: int) -> int:
    """Resident set size, bytes; 0 when it cannot be known."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def stop(folder: DataFolder, timeout_s: float) -> int:
    """Ask the gateway to stop and wait until it is gone; its pid. Raises NotRunning, NotReady."""
    pid = folder.holder()
    if pid is None:
        raise NotRunning(folder.root)
    try:
        os.kill(pid, signal.SIGTERM)
    except ProcessLookupError:
        return pid
    deadline = time.monotonic() + timeout_s
    while folder.holder() == pid:
        if time.monotonic() >= deadline:
            raise NotReady(
                f"the gateway (pid {pid}) has not stopped after {timeout_s:g} s;"
                f" its log {folder.logs / 'supervisor.log'} says why"
            )
        time.sleep(_POLL_S)
    return pid
