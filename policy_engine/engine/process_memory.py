"""How much memory this process has, as Linux counts it."""

import resource
from pathlib import Path


def data_bytes() -> int:
    """What counts against `RLIMIT_DATA`: data of this process, used or not."""
    return _pages(5)


def resident_bytes() -> int:
    """What of this process is in memory."""
    return _pages(1)


def _pages(column: int) -> int:
    """One figure of proc_pid_statm(5), in bytes."""
    words = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(words[column]) * resource.getpagesize()
