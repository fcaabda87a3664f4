"""A rate limit call as a question to the store: which counters, how many hits.

https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/ratelimit/v3/rls.proto
"""
# ruff: noqa: ANN401 - upb messages have no static type

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from policy_engine.errors import MalformedQuota
from policy_engine.rate_limits.limits import LIMIT_ENTRY, LIMIT_MAX, Hits, Quota, decode
from ratelimiter.counters import REFUND, Group, Part, Rule, Take, key_of, rules
from ratelimiter.headers import names, policies
from xds.wire.messages import message_class

_REMEMBERED = 8_192  # calls; Envoy sends the same bytes for the same client and route
_HITS_MAX = LIMIT_MAX

RateLimitRequest = message_class("envoy.service.ratelimit.v3.RateLimitRequest")


class Row(NamedTuple):
    """One descriptor: its quota, and which of the question's takes are its limits."""

    quota: Quota
    start: int
    stop: int
    parts: tuple[tuple[str, str], ...]  # key and value of the further entries
    names: tuple[str, ...]  # of each limit, as headers have them
    policies: str  # for the header `RateLimit-Policy`


class Known(NamedTuple):
    """A quota with what follows from it."""

    quota: Quota
    rules: tuple[Rule, ...]
    names: tuple[str, ...]
    policies: str


@lru_cache(maxsize=4_096)
def known(text: str) -> Known:
    """The quota in the text of an entry. Raises MalformedQuota."""
    quota = decode(text)
    found = rules(quota)
    return Known(quota, found, names(quota, found), policies(quota, found))


@dataclass(frozen=True, slots=True)
class Question:
    """One call. Takes that must all pass come first, then those of each shadow quota."""

    rows: tuple[Row, ...]  # in the order of the descriptors
    takes: tuple[Take, ...]
    enforced: int  # so many of `takes` can refuse the call
    parts: tuple[Part, ...]  # one, unless the store splits
    positions: tuple[tuple[int, ...], ...]  # of each part's takes among `takes`


class Reader:
    """Reads calls; the last few thousand are remembered."""

    def __init__(self, prefix: str, *, splits: bool) -> None:
        self._prefix = prefix
        self._splits = splits
        self.read = lru_cache(maxsize=_REMEMBERED)(self._read)
        """The question of a serialized call. Raises MalformedQuota."""

    def _read(self, data: bytes) -> Question:
        try:
            call = RateLimitRequest.FromString(data)
        except DecodeError as error:
            raise MalformedQuota(f"the call is no RateLimitRequest: {error}") from error
        asked = [self._descriptor(call, one) for one in call.descriptors]
        takes: list[Take] = []
        groups: list[Group] = []
        rows: list[Row | None] = [None] * len(asked)
        enforced: list[Take] = []
        for index, (of, parts, wanted) in enumerate(asked):
            if not of.quota.shadow:
                rows[index] = _row(of, len(enforced), parts)
                enforced += wanted
        takes += enforced
        if enforced:
            groups.append(tuple(enforced))
        for index, (of, parts, wanted) in enumerate(asked):
            if of.quota.shadow:
                rows[index] = _row(of, len(takes), parts)
                takes += wanted
                groups.append(wanted)
        split, positions = self._split(groups)
        return Question(
            tuple(row for row in rows if row is not None),
            tuple(takes),
            len(enforced),
            split,
            positions,
        )

    def _descriptor(
        self, call: Any, descriptor: Any
    ) -> tuple[Known, tuple[tuple[str, str], ...], Group]:
        entries = [(entry.key, entry.value) for entry in descriptor.entries]
        if not entries or entries[0][0] != LIMIT_ENTRY:
            raise MalformedQuota(f"the descriptor's first entry is not {LIMIT_ENTRY!r}")
        found = known(entries[0][1])
        quota = found.quota
        parts = tuple(entries[1:])
        hits = descriptor.hits_addend.value if descriptor.HasField("hits_addend") else None
        if hits is None:
            hits = call.hits_addend or 1
        mode = REFUND if descriptor.is_negative_hits else quota.hits
        name = self._prefix + key_of(call.domain, quota.bucket, parts)
        return (
            found,
            parts,
            tuple(
                Take(
                    f"{name}:{rule.name}".encode(),
                    rule,
                    mode,
                    min(hits, _HITS_MAX),
                    quota.when_away,
                )
                for rule in found.rules
            ),
        )

    def _split(self, groups: list[Group]) -> tuple[tuple[Part, ...], tuple[tuple[int, ...], ...]]:
        """One part, or one per tag, with the positions of its takes."""
        if not groups:
            return (), ()
        tags = {take.tag for group in groups for take in group}
        if not self._splits or len(tags) == 1:
            part = Part(next(iter(tags)), tuple(groups))
            return (part,), (tuple(range(len(part.keys))),)
        parts, positions = [], []
        for tag in sorted(tags):
            mine: list[Group] = []
            where: list[int] = []
            position = 0
            for group in groups:
                own = tuple(take for take in group if take.tag == tag)
                where += [position + i for i, take in enumerate(group) if take.tag == tag]
                position += len(group)
                if own:
                    mine.append(own)
            parts.append(Part(tag, tuple(mine)))
            positions.append(tuple(where))
        return tuple(parts), tuple(positions)


def _row(of: Known, start: int, parts: tuple[tuple[str, str], ...]) -> Row:
    return Row(of.quota, start, start + len(of.rules), parts, of.names, of.policies)


def refunds(question: Question, standings: tuple[Any, ...]) -> tuple[Part, ...]:
    """What has to be given back of a call that one place refused and others had let pass."""
    if len(question.parts) < 2:
        return ()
    enforced = range(question.enforced)
    if not any(standings[position].refused for position in enforced):
        return ()
    back = []
    for part, positions in zip(question.parts, question.positions, strict=True):
        mine = [position for position in positions if position < question.enforced]
        if any(standings[position].refused for position in mine):
            continue  # all or nothing: this part has taken nothing
        takes = tuple(
            question.takes[position]._replace(mode=REFUND)
            for position in mine
            if question.takes[position].mode == Hits.CONSUME and question.takes[position].hits
        )
        if takes:
            back.append(Part(part.tag, (takes,)))
    return tuple(back)
