"""What time it is for counters."""

import time


class Clock:
    """The store's time, from this machine's monotonic clock: its wall clock may jump."""

    def __init__(self) -> None:
        self._offset_us = time.time_ns() // 1_000 - time.monotonic_ns() // 1_000

    def now_us(self) -> int:
        """Unix time."""
        return time.monotonic_ns() // 1_000 + self._offset_us

    def set(self, now_us: int) -> None:
        """The store says it is `now_us`."""
        self._offset_us = now_us - time.monotonic_ns() // 1_000
