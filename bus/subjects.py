"""Subjects: `sbx.<org>.<gateway>.<family>.<...>`, and the streams that store them, as data.

Organizations and gateway groups are tokens, so that a shared gateway, a gateway per organization
and a group per environment differ only in the filter that a component subscribes with.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

ROOT = "sbx"
_PLAIN = re.compile(r"[A-Za-z0-9_-]+").fullmatch


class Family(StrEnum):
    """The third kind of token: what a subject's events are about, and which stream keeps them."""

    STATE = "state"
    USAGE = "usage"
    AUDIT = "audit"
    COMMAND = "command"
    ROUTER = "router"
    DEAD_LETTER = "dead-letter"


def token(text: str) -> str:
    """`text` as one subject token: all but letters, digits, `-` and `_` becomes `=XX` (UTF-8)."""
    if _PLAIN(text):
        return text
    return "".join(chr(byte) if _PLAIN(chr(byte)) else f"={byte:02X}" for byte in text.encode())


def untoken(text: str) -> str:
    """The text that `token` made `text` of; what `token` cannot have made is left as it is."""
    raw = re.sub(rb"=([0-9A-F]{2})", lambda code: bytes.fromhex(code[1].decode()), text.encode())
    return raw.decode(errors="replace")


def subject(org: str, gateway: str, family: Family, *rest: str) -> str:
    """The subject of one event; every part is made a token."""
    return ".".join((ROOT, token(org), token(gateway), family, *(token(part) for part in rest)))


def pattern(family: Family, *rest: str, org: str = "*", gateway: str = "*") -> str:
    """A subscription: `rest` holds plain tokens, `*` or a final `>`; none means all below."""
    tail = rest or (">",)
    head = (ROOT, org if org == "*" else token(org), gateway if gateway == "*" else token(gateway))
    return ".".join(
        (*head, family, *(part if part in ("*", ">") else token(part) for part in tail))
    )


def matches(wanted: str, actual: str) -> bool:
    """Whether `actual` falls under the subscription `wanted` (NATS rules for `*` and `>`)."""
    left, right = wanted.split("."), actual.split(".")
    for index, part in enumerate(left):
        if part == ">":
            return len(right) > index
        if index >= len(right) or part not in ("*", right[index]):
            return False
    return len(left) == len(right)


@dataclass(frozen=True, slots=True)
class Stream:
    """What JetStream keeps of one family of subjects."""

    family: Family
    max_age_s: float = 0  # 0: for ever
    max_bytes: int = -1  # -1: no bound but the disk's
    duplicate_window_s: float = 120  # repeats of an event id within this time are stored once

    @property
    def name(self) -> str:
        """The stream's name at the broker."""
        return f"{ROOT}-{self.family}"

    @property
    def subjects(self) -> tuple[str, ...]:
        """What the stream captures."""
        return (pattern(self.family),)


_DAY_S = 86_400.0
STREAMS: tuple[Stream, ...] = (
    Stream(Family.STATE),
    Stream(Family.USAGE, max_age_s=7 * _DAY_S, max_bytes=1 << 30),
    Stream(Family.AUDIT),
    Stream(Family.COMMAND, max_age_s=_DAY_S, max_bytes=64 << 20),
    Stream(Family.ROUTER, max_age_s=_DAY_S, max_bytes=64 << 20),
    Stream(Family.DEAD_LETTER, max_age_s=30 * _DAY_S, max_bytes=256 << 20),
)
