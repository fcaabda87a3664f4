"""The broker as it stands: connected again whenever it is lost, its streams put in place.

A broker that keeps its streams in memory comes back empty. Every stream has the time of its
creation; when that is another one than before, or the stream ends before something it had
acknowledged, what was stored is gone: a new epoch begins, and the owner of the record is told.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import nats.js.errors
import structlog

from bus import metrics
from bus.errors import BusError, BusUnavailable
from bus.jetstream.link import Link
from bus.settings import BusSettings
from bus.subjects import STREAMS, Family, Stream

log = structlog.get_logger()

_NANOSECONDS = 1_000_000_000
_DIFFERS = 10058  # JetStream's error code: stream name already in use, configured differently
_PAUSE_GROWTH = 40  # the pause between two attempts to connect grows up to this many times


def stream_config(stream: Stream, settings: BusSettings) -> dict[str, Any]:
    """What JetStream is asked to keep of `stream`.

    Shape: https://docs.nats.io/reference/reference-protocols/nats_api_reference (STREAM.CREATE)
    """
    in_memory = settings.nats_storage == "memory"
    is_state = stream.family is Family.STATE
    bound = stream.max_bytes
    if in_memory and not is_state:
        cap = settings.nats_memory_stream_max_bytes
        bound = cap if bound < 0 else min(bound, cap)
    return {
        "name": stream.name,
        "subjects": list(stream.subjects),
        "storage": settings.nats_storage,
        "retention": "limits",
        "discard": "old",
        "max_age": int(stream.max_age_s * _NANOSECONDS),
        "max_bytes": bound,
        "max_msgs": -1,
        "max_msgs_per_subject": (
            settings.nats_memory_state_history if in_memory and is_state else -1
        ),
        "max_consumers": -1,
        "num_replicas": 1,
        "duplicate_window": int(stream.duplicate_window_s * _NANOSECONDS),
        "allow_direct": True,
    }


class Broker:
    """One process's view of the broker; `connected` and `epoch` are what the bus reports."""

    def __init__(self, settings: BusSettings, name: str) -> None:
        self.settings = settings
        self.name = name
        self.connected = False
        self.epoch = 0
        self.watchers: set[Callable[[], None]] = set()  # called when a link is lost
        self._link: Link | None = None
        self._changed = asyncio.Condition()
        self._closed_because = ""
        self._failures: dict[str, None] = {}  # why the first connection is not made, in order
        self._created: dict[str, str] = {}  # stream -> when the broker created it
        self._last_stored: dict[str, int] = {}  # stream -> highest sequence acknowledged to us
        self._lives: dict[str, int] = {}  # stream -> how often it was found to have lost data
        self._unsettled: list[tuple[str, bytes, str, int]] = []
        self._ensuring = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Connect and stay connected for as long as the context lasts. Raises BusUnavailable."""
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        keeper = asyncio.create_task(self._keep(first), name=f"bus connection of {self.name}")
        try:
            await self._first_connection(first, keeper)
            yield
        finally:
            keeper.cancel()
            await asyncio.wait({keeper})
            if not keeper.cancelled() and (error := keeper.exception()) is not None:
                log.error("bus connection failed", component=self.name, exc_info=error)

    async def link(self) -> Link:
        """The live link, waited for without a deadline. Raises BusUnavailable once closed."""
        while True:
            if self._closed_because:
                raise BusUnavailable(self._closed_because)
            if self.connected and self._link is not None:
                return self._link
            async with self._changed:
                await self._changed.wait_for(lambda: self.connected or self._closed_because)

    async def next_epoch(self, seen: int) -> int:
        """Wait until `epoch` is above `seen`; return it. Raises BusUnavailable once closed."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.epoch > seen or self._closed_because)
        if self.epoch <= seen:
            raise BusUnavailable(self._closed_because)
        return self.epoch

    def stored(self, stream: str, sequence: int) -> None:
        """The broker acknowledged `sequence` of `stream` to us."""
        if sequence > self._last_stored.get(stream, 0):
            self._last_stored[stream] = sequence

    def life(self, stream: str) -> int:
        """Which life of `stream` this is; what was delivered in an earlier one is gone."""
        return self._lives.get(stream, 0)

    async def settle(self, reply: str, answer: bytes, stream: str, life: int) -> None:
        """Answer a delivery of `stream` made in `life`: now, or when the broker is back.

        In a later life the delivery no longer exists, and its number may be another message's.
        """
        if life != self.life(stream):
            return
        if self.connected and self._link is not None:
            with contextlib.suppress(BusUnavailable):  # lost just now: it will be delivered again
                await self._link.send(reply, answer)
        elif len(self._unsettled) < self.settings.share_unacked_max:
            self._unsettled.append((reply, answer, stream, life))

    async def ensure_streams(self, link: Link) -> None:
        """Create or update every stream; begin a new epoch when data is gone. Raises BusError."""
        async with self._ensuring:
            lost = [stream.name for stream in STREAMS if await self._ensure(link, stream)]
            if lost:
                async with self._changed:
                    self.epoch += 1
                    self._changed.notify_all()
                metrics.LOST_STATE.labels(self.name).inc()
                log.warning("broker lost what it had stored", streams=lost, epoch=self.epoch)

    async def repair(self, link: Link) -> None:
        """The same, for who looks again anyway: what is in the way is logged."""
        try:
            await self.ensure_streams(link)
        except BusError as error:
            log.info("streams not in place yet", reason=str(error))

    async def _ensure(self, link: Link, stream: Stream) -> bool:
        """Put one stream in place. Returns whether it lost what it had."""
        config = stream_config(stream, self.settings)
        try:
            info = await link.api(f"STREAM.CREATE.{stream.name}", **config)
        except BusUnavailable as error:
            cause = error.__cause__
            if not isinstance(cause, nats.js.errors.APIError) or cause.err_code != _DIFFERS:
                raise
            info = await link.api(f"STREAM.UPDATE.{stream.name}", **config)
        before = self._created.get(stream.name)
        self._created[stream.name] = info["created"]
        known = self._last_stored.get(stream.name, 0)
        if before is None:
            return False
        if before != info["created"] or info["state"]["last_seq"] < known:
            self._last_stored[stream.name] = info["state"]["last_seq"]
            self._lives[stream.name] = self.life(stream.name) + 1
            return True
        return False

    async def _first_connection(
        self, first: asyncio.Future[None], keeper: asyncio.Task[None]
    ) -> None:
        timeout_s = self.settings.nats_connect_timeout_s
        await asyncio.wait({first, keeper}, timeout=timeout_s, return_when="FIRST_COMPLETED")
        if not first.done():
            reason = "; ".join(self._failures) or self._closed_because or "no answer"
            raise BusUnavailable(
                f"no broker at {self.settings.nats_url} within {timeout_s:g} s: {reason}"
            )

    async def _keep(self, first: asyncio.Future[None]) -> None:
        """Stay connected until cancelled; then whoever waits for the broker is told."""
        try:
            await self._reconnect(first)
        finally:
            self._closed_because = "the bus was closed"
            async with self._changed:
                self._changed.notify_all()

    async def _reconnect(self, first: asyncio.Future[None]) -> None:
        """Connect, put the streams in place, wait for the loss, begin again."""
        pause_s = self.settings.nats_reconnect_pause_s
        while True:
            try:
                link = await Link.open(self.settings, self.name)
                try:
                    await self.ensure_streams(link)
                    pause_s = self.settings.nats_reconnect_pause_s
                    await self._online(link, again=first.done())
                    if not first.done():
                        first.set_result(None)
                    reason = await link.lost
                    log.warning("broker lost", reason=reason, component=self.name)
                finally:
                    await self._offline()
                    await link.close()
            except BusError as error:
                reason = getattr(error, "reason", str(error))
                log.info("broker not reached yet", reason=reason, component=self.name)
                if not first.done():
                    self._failures[reason] = None
                await asyncio.sleep(pause_s)
                pause_s = min(pause_s * 2, _PAUSE_GROWTH * self.settings.nats_reconnect_pause_s)

    async def _online(self, link: Link, *, again: bool) -> None:
        late, self._unsettled = self._unsettled, []
        for reply, answer, stream, life in late:
            if life == self.life(stream):
                await link.send(reply, answer)
        async with self._changed:
            self._link, self.connected = link, True
            self._changed.notify_all()
        metrics.CONNECTED.labels(self.name).set(1)
        if again:
            metrics.RECONNECTS.labels(self.name).inc()
        log.info("broker connected", component=self.name, again=again, epoch=self.epoch)

    async def _offline(self) -> None:
        self._link, self.connected = None, False
        metrics.CONNECTED.labels(self.name).set(0)
        for lost in tuple(self.watchers):
            lost()
