"""How much a peer may ask for, and the counters of what it did ask for."""

from dataclasses import dataclass

from xds.wire.h2.frames import (
    FRAME_SIZE_MAX_BYTES,
    FRAME_SIZE_MIN_BYTES,
    WINDOW_MAX_BYTES,
)

_KIB = 1024
_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Every length has one. Raises ValueError when a value cannot be announced to a peer."""

    streams_max: int = 16_384
    """Open streams of one connection; further ones are refused and safe to send again."""

    message_max_bytes: int = 4 * _MIB
    """One request message; a longer one ends its call with status 8."""

    held_max_bytes: int = 64 * _MIB
    """Request bytes of one connection that wait, for the rest of a message or for a handler.

    Calls that would need more end with status 8.
    """

    unsent_stream_max_bytes: int = 16 * _MIB
    """Reply bytes of one stream that wait for the peer; a stream that would need more is reset."""

    unsent_max_bytes: int = 64 * _MIB
    """The same for all streams of a connection, and for what its transport holds."""

    header_block_max_bytes: int = 64 * _KIB
    """One block of request headers, frame headers of its continuations included."""

    frame_max_bytes: int = FRAME_SIZE_MIN_BYTES
    """Payload of one frame from the peer, 16,384 to 16,777,215."""

    stream_window_bytes: int = 1 * _MIB
    """Flow-control window of a stream towards us. Larger saves WINDOW_UPDATEs of long bodies."""

    connection_window_bytes: int = 16 * _MIB
    """Flow-control window of a connection towards us, at least 65,535."""

    handler_timeout_s: float = 5.0
    """Time for a unary handler that answers later; then status 4."""

    drain_timeout_s: float = 5.0
    """Time for streams in flight when the server ends; then connections are cut."""

    def __post_init__(self) -> None:
        if not FRAME_SIZE_MIN_BYTES <= self.frame_max_bytes <= FRAME_SIZE_MAX_BYTES:
            raise ValueError(f"frame_max_bytes is {self.frame_max_bytes}, not 16384 to 16777215")
        if not 1 <= self.stream_window_bytes <= WINDOW_MAX_BYTES:
            raise ValueError(f"stream_window_bytes is {self.stream_window_bytes}, not 1 to 2^31-1")
        if not 65_535 <= self.connection_window_bytes <= WINDOW_MAX_BYTES:
            raise ValueError(
                f"connection_window_bytes is {self.connection_window_bytes}, not 65535 to 2^31-1"
            )


@dataclass(slots=True)
class Counters:
    """What happened on a server since it started; `*_open` go up and down."""

    connections: int = 0
    connections_open: int = 0
    connection_errors: int = 0  # ended by us with GOAWAY and a code other than 0
    streams: int = 0
    streams_open: int = 0
    streams_refused: int = 0  # above streams_max
    stream_errors: int = 0  # reset by us because the peer broke a rule or a limit
    resets_received: int = 0
    messages_received: int = 0
    messages_sent: int = 0
    replies_dropped: int = 0  # the stream was over when the handler answered
    handler_errors: int = 0  # exceptions: status 13
    handler_timeouts: int = 0  # status 4
    bytes_received: int = 0
    bytes_sent: int = 0
