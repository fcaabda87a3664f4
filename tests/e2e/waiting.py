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


async def create(api: httpx.AsyncClient, document: object, *, seconds: float = 60) -> None:
    """Create the API by `POST /rest-apis`, as soon as it is taken.

    An answer may be lost (a component is starting or was killed, a slow machine): a conflict tells
    that the API of an earlier attempt is there.
    """
    await until(
        lambda: api.post("/rest-apis", json=document, timeout=30),
        lambda answer: answer.status_code in (201, 409),
        seconds=seconds,
    )
