"""A rate limiter in a process of its own, as it runs where it is deployed alone.

`python -m tests.bench.limiter SETTINGS`, the settings as JSON.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop

from ratelimiter.service import serving, store_of
from ratelimiter.settings import RatelimiterSettings


async def serve(settings: RatelimiterSettings) -> None:
    """The process that is measured."""
    async with serving(settings, None, store_of(settings)):
        await asyncio.Event().wait()


@asynccontextmanager
async def limiter_process(socket: Path, **settings: object) -> AsyncIterator[int]:
    """Its process id, once `socket`, which `settings` name, is there."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.bench.limiter", json.dumps(settings, default=str)),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(30):
            while not socket.is_socket():
                await asyncio.sleep(0.01)
        yield process.pid
    finally:
        process.kill()
        await process.wait()


if __name__ == "__main__":
    uvloop.run(serve(RatelimiterSettings.model_validate(json.loads(sys.argv[1]))))
