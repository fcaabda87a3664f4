"""Waiting for an effect, with a deadline."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx

T = TypeVar("T")


async def until(
    question: Callable[[], Awaitable[T]], wanted: Callable[[T], bool], *, seconds: float = 30
) -> T:
    """The first answer that is as wanted."""
    last: object = "nothing"
    try:
        async with asyncio.timeout(seconds):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    answer = await question()
                    if wanted(answer):
                        return answer
                    last = answer
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not as wanted in time; last: {last!r}") from None
