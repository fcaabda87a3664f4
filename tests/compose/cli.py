"""The `signalbox` command in a process of its own, on ports and in a folder of its own."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from compose.data_folder import DataFolder
from compose.running import Process, processes
from tests.servers.gateway import free_ports

SIGNALBOX = Path(sys.executable).with_name("signalbox")
DEADLINE_S = 60.0
_PORTS = (
    *("http", "https", "management", "admin", "metrics"),
    *("engine_admin", "engine_metrics", "envoy_admin"),
)


@dataclass
class Cli:
    """A data folder, and the command that works on it."""

    data: Path
    ports: dict[str, int] = field(
        default_factory=lambda: dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    )

    def environment(self, **more: str) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if key[:10] != "SIGNALBOX_"}
        ports = {f"SIGNALBOX_{key.upper()}_PORT": str(port) for key, port in self.ports.items()}
        return {
            **kept,
            **ports,
            "SIGNALBOX_DATA": str(self.data),
            "SIGNALBOX_HTTP_ADDRESS": "127.0.0.1",
            "SIGNALBOX_XDS_PORT": "0",
            **more,
        }

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SIGNALBOX, *arguments],
            env=self.environment(**more),
            capture_output=True,
            text=True,
            timeout=DEADLINE_S * 2,
            check=False,
        )

    def refused(self, *arguments: str, **more: str) -> str:
        """What it says when it refuses; never a traceback."""
        ran = self.run(*arguments, **more)
        assert ran.returncode not in (0, None), ran.stdout
        assert "Traceback" not in ran.stderr
        return ran.stderr

    def processes(self) -> dict[str, Process]:
        return {one.name: one for one in processes(DataFolder(self.data))}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['http']}"

    @property
    def apis(self) -> str:
        return f"http://127.0.0.1:{self.ports['management']}/api/management/v1/rest-apis"


def wait_for(what: Callable[[], Any], deadline_s: float = DEADLINE_S) -> Any:
    """What `what` answers, as soon as that is something."""
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.02)
    pytest.fail("it did not happen in time")


def alive(pid: int) -> bool:
    """Whether the process runs; one that is only waited for does not."""
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
