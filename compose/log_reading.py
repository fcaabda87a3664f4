"""Reading the log files of a gateway's processes, also while they are being put aside."""

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TextIO

_POLL_S = 0.2


def log_files(folder: Path) -> dict[str, Path]:
    """Process -> its current log."""
    return {path.stem: path for path in sorted(folder.glob("*.log"))}


def last_lines(files: Mapping[str, Path], count: int) -> Iterator[tuple[str, str]]:
    """The last `count` lines of each, with the process's name."""
    for name, path in files.items():
        tail: deque[str] = deque(maxlen=count)
        for part in (path.with_name(path.name + ".1"), path):
            if part.exists() and count:
                with part.open(encoding="utf-8", errors="replace") as file:
                    tail.extend(file)
        for line in tail:
            yield name, line.rstrip("\n")


def follow_lines(files: Mapping[str, Path]) -> Iterator[tuple[str, str]]:
    """Lines written from now on, as they come; never ends by itself."""
    opened = {name: _at_end(path) for name, path in files.items()}
    try:
        while True:
            quiet = True
            for name, path in files.items():
                for line in _whole_lines(opened[name]):
                    quiet = False
                    yield name, line
                if _replaced(opened[name], path):
                    opened[name].close()
                    opened[name] = path.open(encoding="utf-8", errors="replace")
                    quiet = False
            if quiet:
                time.sleep(_POLL_S)
    finally:
        for file in opened.values():
            file.close()


def _at_end(path: Path) -> TextIO:
    file = path.open(encoding="utf-8", errors="replace")
    file.seek(0, os.SEEK_END)
    return file


def _whole_lines(file: TextIO) -> Iterator[str]:
    while True:
        begin = file.tell()
        line = file.readline()
        if not line.endswith("\n"):
            file.seek(begin)
            return
        yield line.rstrip("\n")


def _replaced(file: TextIO, path: Path) -> bool:
    try:
        return path.stat().st_ino != os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False
