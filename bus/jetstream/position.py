"""Where a delivered message stands: the facts in its reply subject."""

from typing import NamedTuple

_TOKENS = 9
_TOKENS_WITH_DOMAIN = 12  # $JS.ACK.<domain>.<account>.… and a random last token


class Position(NamedTuple):
    """`$JS.ACK.<stream>.<consumer>.<attempt>.<stream seq>.<consumer seq>.<time>.<pending>`.

    Source: https://github.com/nats-io/nats-architecture-and-design/blob/main/adr/ADR-15.md
    """

    stream: str
    attempt: int  # 1 for the first delivery
    stream_seq: int
    consumer_seq: int
    pending: int  # how many messages the consumer still had to deliver

    @property
    def place(self) -> str:
        """The message's name among all that this broker has stored."""
        return f"{self.stream}.{self.stream_seq}"


def position(reply: str) -> Position | None:
    """The position in `reply`; None when it is not an acknowledgement subject."""
    parts = reply.split(".")
    if len(parts) >= _TOKENS_WITH_DOMAIN:
        parts = parts[:2] + parts[4:]
    if len(parts) < _TOKENS or parts[:2] != ["$JS", "ACK"]:
        return None
    return Position(parts[2], int(parts[4]), int(parts[5]), int(parts[6]), int(parts[8]))
