"""Work that waits now and then, driven by a task."""

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any

from policy_engine.engine.errors import TooSlow

Work = Generator[tuple[Awaitable[Any], float], Any, None]
"""Yields what has to be waited for, and for how long at most, seconds."""


async def driven(work: Work, awaited: tuple[Awaitable[Any], float]) -> None:
    """Wait for what `work` yields until it is done."""
    while True:
        awaitable, timeout_s = awaited
        try:
            try:
                async with asyncio.timeout(timeout_s) as limit:
                    value = await awaitable
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                awaited = work.throw(error)  # the policy itself has cancelled what it waits for
            except TimeoutError as error:
                awaited = work.throw(TooSlow(timeout_s) if limit.expired() else error)
            except Exception as error:  # noqa: BLE001 - of a policy; `work` deals with it
                awaited = work.throw(error)
            else:
                awaited = work.send(value)
        except StopIteration:
            return
