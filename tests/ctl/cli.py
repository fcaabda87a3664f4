"""Running the command as a shell does."""

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SIGNALBOX = Path(sys.executable).with_name("signalbox")
DEADLINE_S = 60.0


@dataclass(frozen=True, slots=True)
class Result:
    """What a command answered."""

    code: int
    out: str
    err: str


def environment(data: Path, **more: str) -> dict[str, str]:
    """The environment of a command that knows no gateway but those of `data` and `more`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SIGNALBOX_")}
    return {**kept, "SIGNALBOX_DATA": str(data), "COLUMNS": "100", **more}


async def start(
    *arguments: str, env: Mapping[str, str], stdin: int = asyncio.subprocess.DEVNULL
) -> asyncio.subprocess.Process:
    """`signalbox ARGUMENTS`, running; its output is to be read by the caller."""
    return await asyncio.create_subprocess_exec(
        SIGNALBOX,
        *arguments,
        stdin=stdin,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=env,
    )


async def run(*arguments: str, env: Mapping[str, str], stdin: str | None = None) -> Result:
    """What `signalbox ARGUMENTS` answers."""
    process = await start(
        *arguments,
        env=env,
        stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(DEADLINE_S):
            out, err = await process.communicate(None if stdin is None else stdin.encode())
    except TimeoutError:
        process.kill()
        await process.wait()
        raise
    assert process.returncode is not None
    return Result(process.returncode, out.decode(), err.decode())
