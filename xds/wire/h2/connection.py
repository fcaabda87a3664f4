"""One connection from Envoy: its life, from the greeting to GOAWAY.

Source: https://www.rfc-editor.org/rfc/rfc9113.html
"""

import asyncio
from collections.abc import Callable
from typing import cast

import structlog

from xds.wire.h2 import frames
from xds.wire.h2.errors import ConnectionFailed
from xds.wire.h2.frames import ErrorCode, Setting
from xds.wire.h2.inbound import DRAIN_PING, Inbound
from xds.wire.h2.limits import Counters, Limits
from xds.wire.h2.outbound import Outbound
from xds.wire.h2.stream import Stream, StreamHandler

log = structlog.get_logger()


class Connection(Inbound, asyncio.Protocol):
    """One connection. `gone` is called once, when it is over."""

    _transport: asyncio.Transport

    def __init__(
        self,
        factory: Callable[[Stream], StreamHandler],
        limits: Limits,
        counters: Counters,
        gone: "Callable[[Connection], None]",
        field: str | None = None,
    ) -> None:
        super().__init__(factory, limits, counters, field)
        self._gone = gone
        self._partial = bytearray()  # a frame that has not arrived whole

    # -- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet: SETTINGS, and the connection's window."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass of it
        self.counters.connections += 1
        self.counters.connections_open += 1
        limits = self.limits
        loop = asyncio.get_running_loop()
        self.outbound = Outbound(self, self._transport, loop, limits, self.counters)
        greeting = {
            Setting.MAX_CONCURRENT_STREAMS: limits.streams_max,
            Setting.INITIAL_WINDOW_SIZE: limits.stream_window_bytes,
            Setting.MAX_FRAME_SIZE: limits.frame_max_bytes,
            Setting.MAX_HEADER_LIST_SIZE: limits.header_block_max_bytes,
        }
        if self._field is not None:
            greeting[Setting.HEADER_TABLE_SIZE] = 0  # so that a block is known by its bytes
        self.outbound.put(frames.settings(greeting))
        more = limits.connection_window_bytes - frames.DEFAULT_WINDOW_BYTES
        if more:
            self.outbound.put(frames.window_update(0, more))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's name
        """Every call is lost."""
        self._over = True
        self.counters.connections_open -= 1
        self._lose_streams()
        self._gone(self)

    def pause_writing(self) -> None:
        """Replies wait on their streams from now on."""
        self.outbound.paused = True

    def resume_writing(self) -> None:
        """What waits may go on."""
        self.outbound.paused = False
        self.outbound.pump()

    def data_received(self, data: bytes) -> None:
        """Frames, cut anywhere. Never raises: the peer's errors end the stream or connection."""
        if self._over:
            return
        self.counters.bytes_received += len(data)
        if self._partial:
            self._partial += data
            if len(self._partial) < self._wanted_bytes and self._greeted:
                return
            data = bytes(self._partial)
            self._partial.clear()
        outbound = self.outbound
        outbound.scheduled = True  # everything answered meanwhile is one write
        try:
            at = self._frames(data)
        except ConnectionFailed as error:
            self._fail(error)
        else:
            if at < len(data) and not self._over:
                self._partial += data[at:]
        outbound.flush()
        if self._over:
            self._transport.close()

    # -- for the outbound half and the server -------------------------------------------------

    def overflowed(self) -> None:
        """The peer does not read: nothing can be said to it any more."""
        log.warning("rpc peer does not read", unsent_max_bytes=self.limits.unsent_max_bytes)
        self.counters.connection_errors += 1
        self.abort()

    def drain(self) -> None:
        """Finish what is in flight, take nothing new, then close.

        GOAWAY with the highest possible stream first, and with the real one when the peer has
        shown by a PING that it knows: streams it sent in between are served.
        https://www.rfc-editor.org/rfc/rfc9113.html#section-6.8-14
        """
        if self._draining or self._over:
            return
        self._draining = True
        self.outbound.put(
            frames.goaway(frames.STREAM_ID_MAX, ErrorCode.NO_ERROR),
            frames.frame(frames.PING, 0, 0, DRAIN_PING),
        )

    def abort(self) -> None:
        """Cut the connection."""
        self._over = True
        self._transport.abort()

    # -- ends ---------------------------------------------------------------------------------

    def _fail(self, error: ConnectionFailed) -> None:
        """Source: https://www.rfc-editor.org/rfc/rfc9113.html#section-5.4.1."""
        log.warning("rpc connection failed", code=error.code.name, reason=error.reason)
        self.counters.connection_errors += 1
        self.outbound.put(frames.goaway(self._last_id, error.code, error.reason))
        self._over = True
        self._lose_streams()

    def _refuse_new_streams(self) -> None:
        if self._refusing:
            return
        self._draining = self._refusing = True
        self.outbound.put(frames.goaway(self._last_id, ErrorCode.NO_ERROR))
        if not self._streams:
            self._close()

    def _close(self) -> None:
        if not self._over:
            self._over = True
            self.outbound.flush()
            self._transport.close()

    def _idle(self) -> None:
        if self._refusing:
            self._close()
