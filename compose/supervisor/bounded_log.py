"""A log file that cannot fill the disk: at a given size it is put aside, and one is kept."""

import os
from collections import deque

_TAIL_LINES = 12


class BoundedLog:
    """Appends to `path`; when that reaches `max_bytes` it becomes `path.1`, replacing the last."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self.path = path
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)  # the latest lines, for messages
        self._max_bytes = max_bytes
        self._open()

    def write(self, data: bytes) -> None:
        """Append `data`. A full disk loses the lines, not the gateway."""
        self.tail.extend(line for line in data.decode("utf-8", "replace").splitlines() if line)
        if self._size and self._size + len(data) > self._max_bytes:
            os.close(self._file)
            os.replace(self.path, self.path + ".1")  # noqa: PTH105 - no pathlib in this process
            self._open()
        try:
            self._size += os.write(self._file, data)
        except OSError:
            self.tail.append("(this line could not be written to the log file)")

    def close(self) -> None:
        """Nothing more to write."""
        os.close(self._file)

    def _open(self) -> None:
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._size = os.fstat(self._file).st_size
