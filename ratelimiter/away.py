"""Limits while the store is away: this limiter's share of each, and what to tell the store then.

A share begins with what the store was last seen to have left, so that nobody gets a limit twice.
What is let through is kept per counter and merged when the store is back.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from policy_engine.rate_limits.limits import Hits, WhenAway
from ratelimiter.counters import REFUND, SLICES, Counted, Group, Rule, Standing, Take
from ratelimiter.counting import Bucket, Counter, Sliding, Window, counter, decide, share_of
from ratelimiter.ports import Due

_NOTHING = Counted(0, 0.0)
_CLOSED_RETRY_US = 1_000_000


class Seen:
    """How counters stood in the store when they were last asked for; the oldest go first."""

    def __init__(self, entries_max: int) -> None:
        self._entries_max = entries_max
        self._standings: dict[bytes, tuple[int, Standing]] = {}

    def note(self, key: bytes, now_us: int, standing: Standing) -> None:
        """The counter stood so at `now_us`."""
        standings = self._standings
        if key not in standings and len(standings) >= self._entries_max:
            del standings[next(iter(standings))]
        standings[key] = (now_us, standing)

    def standing(self, key: bytes, now_us: int) -> Standing | None:
        """How the counter stood, with its times as of `now_us`."""
        found = self._standings.get(key)
        if found is None:
            return None
        then_us, standing = found
        return Standing(standing.remaining, max(0, standing.reset_us - (now_us - then_us)), 0)

    def counted(self, take: Take) -> Counted:
        """What the store had counted, and when (or: in which window)."""
        found = self._standings.get(take.key)
        if found is None:
            return _NOTHING
        now_us, standing = found
        used = take.rule.hits - standing.remaining
        at_us = now_us + standing.reset_us if take.rule.code == "f" else now_us
        return Counted(at_us, float(used)) if used > 0 else _NOTHING


class _Local:
    """One counter while the store is away."""

    __slots__ = ("bucket", "floor", "own", "rule", "state")

    def __init__(self, rule: Rule, floor: Counted) -> None:
        self.rule = rule
        self.state = counter(rule)
        self.floor = floor
        self.own: dict[int, float] = {}  # when (or in which window) -> hits let through
        self.bucket = Bucket() if rule.code == "g" else None  # the same for GCRA: it flows out


class LocalShares:
    """At most `entries_max` counters; the one that was not used for longest goes first."""

    def __init__(self, entries_max: int, seen: Seen, live: Callable[[], int]) -> None:
        self._entries_max = entries_max
        self._seen = seen
        self._live = live
        self._locals: OrderedDict[bytes, _Local] = OrderedDict()

    def __len__(self) -> int:
        return len(self._locals)

    def decide(self, group: Group, now_us: int) -> tuple[Standing, ...]:
        """As the store would, on this limiter's share; as each quota says for `when_away`."""
        share = max(1, self._live())
        counted = [take for take in group if take.when_away is WhenAway.LOCAL]
        closed = any(_is_closed(take) for take in group)
        if closed:  # refused anyway: nothing is taken
            counted = [take._replace(mode=Hits.CHECK) for take in counted]
        states = [(take, self._of(take, now_us, share)) for take in counted]
        standings = iter(decide([(take, one.state) for take, one in states], now_us, share))
        found = tuple(
            next(standings) if take.when_away is WhenAway.LOCAL else _declared(take)
            for take in group
        )
        if closed or any(standing.refused for standing in found):
            states = [(take, one) for take, one in states if take.mode == Hits.CHARGE]
        for take, one in states:
            _record(take, one, now_us, share)
        return found

    def undo(self, take: Take) -> None:
        """The store has counted these hits after all, late."""
        one = self._locals.get(take.key)
        if one is None:
            return
        hits = float(take.hits)
        if one.bucket is not None:
            one.bucket.give_back(hits)
        for at_us in sorted(one.own, reverse=True):
            less = min(hits, one.own[at_us])
            one.own[at_us] -= less
            hits -= less

    def dues(self, wanted: Callable[[int], bool], now_us: int, share: int) -> list[Due]:
        """What is to be merged of the tags that are `wanted`; from now on it counts as told."""
        found = []
        for key, one in self._locals.items():
            if one.bucket is not None:
                one.bucket.refresh(one.rule, now_us, share)
                own = [Counted(now_us, one.bucket.used)]
            else:
                own = [Counted(at_us, hits) for at_us, hits in one.own.items()]
            counted = tuple(some for some in own if some.hits > 0)
            due = Due(key, one.rule, one.floor, counted)
            if counted and wanted(due.tag):
                found.append(due)
                one.own = {}
                if one.bucket is not None:
                    one.bucket = Bucket()
        return found

    def untold(self, dues: Sequence[Due]) -> None:
        """They could not be merged: keep them for the next time."""
        for due in dues:
            one = self._locals.get(due.key)
            if one is None:
                one = self._locals[due.key] = _Local(due.rule, due.floor)
            for counted in due.counted:
                if one.bucket is not None:
                    one.bucket.used += counted.hits
                    one.bucket.at_us = max(one.bucket.at_us, counted.at_us)
                else:
                    one.own[counted.at_us] = one.own.get(counted.at_us, 0.0) + counted.hits

    def forget(self, wanted: Callable[[int], bool]) -> None:
        """The store knows all about these tags again."""
        for due in [Due(key, one.rule, _NOTHING, ()) for key, one in self._locals.items()]:
            if wanted(due.tag):
                del self._locals[due.key]

    def _of(self, take: Take, now_us: int, share: int) -> _Local:
        found = self._locals.get(take.key)
        if found is not None:
            self._locals.move_to_end(take.key)
            return found
        one = self._locals[take.key] = _Local(take.rule, self._seen.counted(take))
        if one.floor.hits:
            _begin(one, now_us, share)
        if len(self._locals) > self._entries_max:
            self._locals.popitem(last=False)
        return one


def _begin(one: _Local, now_us: int, share: int) -> None:
    """A share of what the store had left, not of the whole limit."""
    state, rule = one.state, one.rule
    state.refresh(rule, now_us, share)
    worth = state.worth(rule, one.floor, now_us)
    left = max(0.0, rule.hits - worth) // share
    used = max(0.0, share_of(rule, share) - left) if worth > 0 else 0.0
    match state:
        case Sliding():
            if used:
                state.merge(rule, Counted(one.floor.at_us, used), now_us)
        case Window() | Bucket():
            state.used = used


def _record(take: Take, one: _Local, now_us: int, share: int) -> None:
    if take.mode == Hits.CHECK or not take.hits:
        return
    hits = -float(take.hits) if take.mode == REFUND else float(take.hits)
    if one.bucket is not None:
        one.bucket.refresh(one.rule, now_us, share)
        one.bucket.used = max(0.0, one.bucket.used + hits)
        return
    at_us = _moment(one.state, one.rule, now_us)
    one.own[at_us] = max(0.0, one.own.get(at_us, 0.0) + hits)


def _moment(state: Counter, rule: Rule, now_us: int) -> int:
    """How the store is told when hits were counted; few different ones per counter."""
    if isinstance(state, Window):
        return state.end_us
    width = rule.period_us // SLICES
    return now_us - now_us % width


def _is_closed(take: Take) -> bool:
    return take.when_away is WhenAway.CLOSED and take.mode in (Hits.CONSUME, Hits.CHECK)


def _declared(take: Take) -> Standing:
    if _is_closed(take):
        return Standing(0, _CLOSED_RETRY_US, _CLOSED_RETRY_US)
    return Standing(take.rule.hits, 0, 0)
