"""Work on many things, a few at a time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

CONCURRENCY = 8
"""Requests under way at once: one gateway answers no faster to more."""

Thing = TypeVar("Thing")
Result = TypeVar("Result")


async def each(
    things: Iterable[Thing],
    work: Callable[[Thing], Awaitable[Result]],
    at_once: int = CONCURRENCY,
) -> list[Result]:
    """The results of `work` on each of `things`, in their order. Raises the first error."""
    turns = asyncio.Semaphore(at_once)

    async def one(thing: Thing) -> Result:
        async with turns:
            return await work(thing)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(thing)) for thing in things]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
