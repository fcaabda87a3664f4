"""Which policy was running when a worker died: a word in a file that outlives the process.

Writing it is a copy of bytes in memory, cheap enough for every call of a plain hook.
"""

import mmap
from pathlib import Path
from typing import Final

from policy_engine.engine.program import MARK_BYTES

_NOBODY: Final = b"\0"


class Marks:
    """The word of one worker."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        path.touch(mode=0o600)
        with path.open("r+b") as file:
            file.truncate(MARK_BYTES)
            self._word = mmap.mmap(file.fileno(), MARK_BYTES)

    def left(self) -> tuple[str, str] | None:
        """The hop and the policy that the last process was at when it ended, once."""
        word = bytes(self._word)
        self.clear()
        if word[:1] == _NOBODY:
            return None
        hop, _, policy = word.rstrip(b"\n").decode("utf-8", "replace").partition(" ")
        return hop, policy

    def set(self, mark: bytes) -> None:
        """The hook of that policy runs now."""
        self._word[:] = mark

    def clear(self) -> None:
        """No hook runs."""
        self._word[0] = 0
