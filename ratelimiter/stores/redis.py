"""Counters in Redis or Valkey: each batch is one step of a server-side script.

The script (`counters.lua`) is called by its digest; a server that has lost it, by a restart or a
failover, is told it again.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Hashable, Iterator, Sequence
from importlib.resources import files
from typing import Any, TypeVar

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import TimeoutError as RedisTimeout

from ratelimiter.counters import TAGS, Part, Rule, Standing
from ratelimiter.errors import StoreAway
from ratelimiter.ports import Decided, Due
from ratelimiter.stores.topology import Topology

SCRIPT = files("ratelimiter.stores").joinpath("counters.lua").read_bytes()
_PROBE_KEY_MS = b"1000"
_MERGE_BATCH = 100

_REDIRECTED = (MovedError, AskError, TryAgainError, ClusterDownError, MasterDownError)
_Command = tuple[bytes, ...]
_Reply = Any
_T = TypeVar("_T")


class RedisStore:
    """Counters on the servers of `topology`."""

    def __init__(self, topology: Topology, prefix: str) -> None:
        self.splits = topology.splits
        self.script = SCRIPT
        self._topology = topology
        self._prefix = prefix
        self._clock_us = 0  # the latest that any server has said

    def place(self, tag: int) -> Hashable:
        """The server that has the keys of `tag`."""
        return self._topology.place(tag)

    async def decide(self, place: Hashable, parts: Sequence[Part]) -> Decided:
        """One script call for all parts, or in a cluster one for each tag, in one round trip."""
        batches = list(self._batches(parts))
        commands = [self._call(self._words(batch), _keys(batch)) for _, batch in batches]
        replies = await self._exchange(place, commands)
        standings: list[tuple[Standing, ...] | None] = [None] * len(parts)
        failed: Exception | None = None
        moved = False
        for (indexes, batch), reply in zip(batches, replies, strict=True):
            if isinstance(reply, Exception):
                failed = failed or reply
                moved = moved or isinstance(reply, _REDIRECTED)
                continue
            self._clock_us = reply[0]
            position = 1
            for index, part in zip(indexes, batch, strict=True):
                count = len(part.keys)
                standings[index] = tuple(
                    Standing(*reply[start : start + 3])
                    for start in range(position, position + 3 * count, 3)
                )
                position += 3 * count
        if failed is not None and all(one is None for one in standings):
            raise away(failed) from failed
        if moved:
            await self._guarded(self._topology.refresh)
        return Decided(self._clock_us, tuple(standings))

    async def merge(self, place: Hashable, dues: Sequence[Due]) -> None:
        """In batches, so that none blocks the server for long."""
        for tag_dues in self._dues_batches(dues):
            words, keys = [], []
            for due in tag_dues:
                keys.append(due.key)
                words += [b"1", b"m", b"0", *self._arguments(due.rule)]
                words += [_number(due.floor.hits), b"%d" % due.floor.at_us]
                words.append(b"%d" % len(due.counted))
                for counted in due.counted:
                    words += [b"%d" % counted.at_us, _number(counted.hits)]
            (reply,) = await self._exchange(place, [self._call(words, keys)])
            if isinstance(reply, Exception):
                raise away(reply) from reply

    async def probe(self, place: Hashable) -> int:
        """Write something, and read the clock."""
        if self.splits:
            await self._guarded(self._topology.refresh)
        tag = next((tag for tag in range(TAGS) if self.place(tag) == place), None)
        if tag is None:
            raise StoreAway(f"{place} holds no counters", "unreachable")
        key = f"{self._prefix}{{{tag:02x}}}probe".encode()
        commands: list[_Command] = [(b"TIME",), (b"SET", key, b"1", b"PX", _PROBE_KEY_MS)]
        time, written = await self._exchange(place, commands)
        for reply in (time, written):
            if isinstance(reply, Exception):
                raise away(reply) from reply
        self._clock_us = int(time[0]) * 1_000_000 + int(time[1])
        return self._clock_us

    async def aclose(self) -> None:
        """Close all connections."""
        await self._topology.aclose()

    @property
    def script(self) -> bytes:
        """What decides, in Lua."""
        return self._script

    @script.setter
    def script(self, text: bytes) -> None:
        self._script = text
        self._digest = hashlib.sha1(text).hexdigest().encode()  # noqa: S324 - Redis names it so

    # -- how it is said ------------------------------------------------------------------------

    def _batches(self, parts: Sequence[Part]) -> Iterator[tuple[list[int], list[Part]]]:
        """Parts that can be decided by one call, with their places among `parts`."""
        if not self.splits:
            yield list(range(len(parts))), list(parts)
            return
        by_tag: dict[int, tuple[list[int], list[Part]]] = {}
        for index, part in enumerate(parts):
            indexes, mine = by_tag.setdefault(part.tag, ([], []))
            indexes.append(index)
            mine.append(part)
        yield from by_tag.values()

    def _dues_batches(self, dues: Sequence[Due]) -> Iterator[list[Due]]:
        by_tag: dict[int, list[Due]] = {}
        for due in dues:
            by_tag.setdefault(due.tag if self.splits else 0, []).append(due)
        for mine in by_tag.values():
            for start in range(0, len(mine), _MERGE_BATCH):
                yield mine[start : start + _MERGE_BATCH]

    def _words(self, batch: Sequence[Part]) -> list[bytes]:
        words: list[bytes] = []
        for part in batch:
            words += part.fixed if part.fixed is not None else part.arguments(self._clock_us)
        return words

    def _call(self, words: Sequence[bytes], keys: Sequence[bytes]) -> _Command:
        return (b"EVALSHA", self._digest, b"%d" % len(keys), *keys, *words)

    def _arguments(self, rule: Rule) -> tuple[bytes, ...]:
        return rule.arguments(self._clock_us)

    # -- how it is sent ------------------------------------------------------------------------

    async def _exchange(self, place: Hashable, commands: Sequence[_Command]) -> list[_Reply]:
        """A reply or a ResponseError for each command, in one round trip. Raises StoreAway."""

        async def sent() -> list[_Reply]:
            connection = await self._topology.acquire(place)
            try:
                if not self._clock_us:
                    await self._read_clock(connection)
                replies = await _round_trip(connection, commands)
                lost = [
                    index for index, one in enumerate(replies) if isinstance(one, NoScriptError)
                ]
                if lost:
                    again = [
                        (b"SCRIPT", b"LOAD", self._script),
                        *(commands[index] for index in lost),
                    ]
                    for index, reply in zip(
                        lost, (await _round_trip(connection, again))[1:], strict=True
                    ):
                        replies[index] = reply
                if any(isinstance(one, ReadOnlyError) for one in replies):
                    await connection.disconnect()  # a primary that is one no longer
            except BaseException:
                await connection.disconnect(nowait=True)  # it may be in the middle of a reply
                raise
            finally:
                await self._topology.release(place, connection)
            return replies

        return await self._guarded(sent)

    async def _read_clock(self, connection: AbstractConnection) -> None:
        """Before the first decision: what the calendar says depends on it."""
        (time,) = await _round_trip(connection, [(b"TIME",)])
        if isinstance(time, Exception):
            raise time
        self._clock_us = int(time[0]) * 1_000_000 + int(time[1])

    async def _guarded(self, work: Callable[[], Awaitable[_T]]) -> _T:
        """`work`, with what the library raises turned into StoreAway."""
        try:
            return await work()
        except (RedisError, OSError, asyncio.IncompleteReadError, EOFError) as error:
            raise away(error) from error


async def _round_trip(connection: AbstractConnection, commands: Sequence[_Command]) -> list[_Reply]:
    """Send all, then read a reply or a ResponseError for each."""
    await connection.send_packed_command(b"".join(map(_packed, commands)))
    replies: list[_Reply] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response(disable_decoding=True))
        except ResponseError as error:
            replies.append(error)
    return replies


def away(error: Exception) -> StoreAway:
    """Why the store did not do it, in a word and a sentence."""
    said = str(error) or type(error).__name__
    match error:
        case OutOfMemoryError():
            cause = "full"
        case RedisTimeout() | TimeoutError():
            cause = "slow"
        case ReadOnlyError() | BusyLoadingError():
            cause = "unreachable"
        case AuthenticationError() | AuthorizationError():
            cause = "refused"
        case ResponseError():
            cause = "full" if "OOM command not allowed" in said else "refused"
        case _:
            cause = "unreachable"
    if cause == "full":
        said = "it is full (maxmemory is reached)"
    return StoreAway(said, cause)


def _packed(command: _Command) -> bytes:
    packed: bytes = pack_command(command)  # type: ignore[arg-type]
    return packed


def _keys(batch: Sequence[Part]) -> list[bytes]:
    return [key for part in batch for key in part.keys]


def _number(hits: float) -> bytes:
    return b"%.17g" % hits
