"""One limit for one key, and what each router has of it.

Limits for up to ten seconds are given out as rates. Longer ones are given out in portions of what
the window has left, so that a burst finds all of its portion and the limit is never exceeded.
"""

import math
import time
from collections import deque
from dataclasses import dataclass, field

from policy_engine.rate_limits.balanced_limits import BURST, capacity, fill, is_leased, rate_per_s
from policy_engine.rate_limits.limits import Algorithm
from ratelimiter.counters import Take
from ratelimiter.quotas.assignment import Assignment, Entries, Router
from ratelimiter.quotas.pulse import Pulse
from ratelimiter.quotas.shares import shares
from ratelimiter.reading import Question, Row

REPORT_S = 5.0
DEMAND_S = 10.0
"""How long what routers were asked for counts when rate limiters compare."""

_CHANGED = 0.01  # smaller changes of a rate are not worth a message
_PORTION_S = 2 * REPORT_S  # a portion lasts so long, if there is enough
_ENOUGH = 0.6  # of a portion is left: it stays
_IDLE_REPORTS = 2
_SHARES_OFTEN = 0.5  # of the limit is asked for: then shares matter
_NEVER_S = 10**8  # a portion gets no more


@dataclass(slots=True, eq=False)
class Share:
    """What one router has of a limit, and what it was asked for."""

    pulse: Pulse | None = None
    probe: Entries = ()  # the bucket that the pulse is felt by
    demand_per_s: float | None = None  # None: not known yet
    expected_per_s: float | None = None
    """What a pulse is held against: the demand when it was last reported, or found to be another;
    what has been learned of it since may come from its moving once more."""
    reported_s: float = 0.0
    moved_s: float = 0.0  # when the demand was last seen to be another, between reports
    idle_reports: int = 0
    given: Assignment | None = None
    given_s: float = 0.0
    portion: float = 0.0  # of the portion given, what is not reported as used
    wants_portion: bool = True


@dataclass(slots=True, eq=False)
class Bucket:
    """A limit for one key. Times are of one monotonic clock, seconds."""

    entries: Entries
    row: Row
    take: Take  # of its counter in the store, without hits
    shares: dict[Router, Share] = field(default_factory=dict)  # by router
    fraction: float = 1.0
    """How much of the limit is this rate limiter's to give."""
    left: float = 0.0
    """What the store said is left of the window."""
    ends_s: float = math.inf
    """When the window is over and all is left again; a limit without windows has no such moment."""
    owed: int = 0
    """Hits that the store does not know yet."""
    asked: deque[tuple[float, int]] = field(default_factory=deque)
    is_asked: bool = False  # the store has answered, or is away
    unsaid: int = 0  # demand that other rate limiters do not know yet

    @property
    def leased(self) -> bool:
        """Whether it is given out in portions."""
        return is_leased(self.take.rule.limit)

    @property
    def is_contested(self) -> bool:
        """Whether it matters soon when demand moves between routers."""
        if len(self.shares) < 2 or self.leased:
            return False
        asked = sum(one.demand_per_s or 0.0 for one in self.shares.values())
        unsure = any(
            one.demand_per_s is None or one.moved_s >= one.reported_s
            for one in self.shares.values()
        )
        return unsure or asked >= _SHARES_OFTEN * rate_per_s(self.take.rule.limit)

    def question(self) -> Question:
        """For those who watch limits."""
        return Question((self.row,), (self.take,), 1, (), ((0,),))

    # -- what is heard -----------------------------------------------------------------------

    def report(self, router: Router, allowed: int, refused: int, now_s: float) -> Share:
        """A router tells what it let pass and what not, since it last did."""
        share = self.shares[router]
        hits = allowed + refused
        elapsed_s = now_s - share.reported_s
        if share.reported_s and elapsed_s > REPORT_S / 2 and share.moved_s < share.reported_s:
            share.demand_per_s = share.expected_per_s = hits / elapsed_s
        share.reported_s = now_s
        share.idle_reports = 0 if hits else share.idle_reports + 1
        share.portion = max(0.0, share.portion - allowed)
        share.wants_portion |= hits > 0
        if self.leased:
            self.owed += allowed
        if hits:
            self.asked.append((now_s, hits))
            self.unsaid += hits
        return share

    def own_demand(self, now_s: float) -> int:
        """What this rate limiter's routers were asked for lately."""
        while self.asked and self.asked[0][0] < now_s - DEMAND_S:
            self.asked.popleft()
        return sum(hits for _, hits in self.asked)

    def told(self, left: float, ends_s: float, now_s: float) -> bool:
        """The store says what is left; whether a new window has begun since the last time."""
        first = not self.is_asked
        anew = first or now_s >= self.ends_s
        self.left, self.ends_s, self.is_asked = left, ends_s, True
        if anew and not first:
            self._begin()
        return anew

    def alone(self, live: int, now_s: float) -> None:
        """The store is away: what is left is counted here, and a limiter gets an equal part."""
        self.fraction = 1 / max(1, live)
        if not self.is_asked or now_s >= self.ends_s:
            rule = self.take.rule
            begun = self.is_asked
            self.left, self.owed, self.is_asked = float(rule.hits), 0, True
            now_us = time.time_ns() // 1_000
            if rule.algorithm is Algorithm.FIXED_WINDOW:
                self.ends_s = now_s + (rule.limit.window_end_us(now_us) - now_us) / 1e6
            else:
                self.ends_s = now_s + rule.limit.window_s  # nobody says what comes back when
            if begun:
                self._begin()

    def _begin(self) -> None:
        for share in self.shares.values():
            share.portion, share.wants_portion = 0.0, True

    def is_idle(self, share: Share) -> bool:
        """Whether its router can forget the bucket; it tells when it needs it again."""
        return share.idle_reports >= _IDLE_REPORTS

    # -- what is said ------------------------------------------------------------------------

    def assignments(self) -> dict[Router, Assignment]:
        """What each router is to have now; those whose share may stay are left out."""
        return self._portions() if self.leased else self._rates()

    def given(self, router: Router, made: Assignment, now_s: float) -> None:
        """The router has been told."""
        share = self.shares[router]
        share.given, share.given_s = made, now_s

    def _demands(self, unknown: float) -> list[float]:
        known = [one.demand_per_s for one in self.shares.values()]
        return [unknown if demand is None else demand for demand in known]

    def _rates(self) -> dict[Router, Assignment]:
        limit = self.take.rule.limit
        mine = rate_per_s(limit) * self.fraction
        equal = mine / max(1, len(self.shares))
        made: dict[Router, Assignment] = {}
        gcra = self.take.rule.algorithm is Algorithm.GCRA
        burst_s = limit.capacity / rate_per_s(limit) if gcra else limit.window_s * BURST
        for (router, share), rate in zip(
            self.shares.items(), shares(mine, self._demands(equal)), strict=True
        ):
            tokens, interval_s = fill(rate)
            # what passes before the first assignment arrives takes part of the first burst; the
            # bucket after it is as full, in part, as the one before
            first = share.given is None and not gcra
            one = Assignment(capacity(rate * burst_s / (2 if first else 1)), tokens, interval_s)
            if share.given is None or _differs(share.given, one):
                made[router] = one
        return made

    def _portions(self) -> dict[Router, Assignment]:
        if not self.is_asked:
            return {}
        limit = self.take.rule.limit
        demands = self._demands(rate_per_s(limit))
        mine = max(0.0, self.left - self.owed) * self.fraction
        wanted = shares(mine, [demand * _PORTION_S for demand in demands])
        out = sum(one.portion for one in self.shares.values())
        made: dict[Router, Assignment] = {}
        for (router, share), want in zip(self.shares.items(), wanted, strict=True):
            if not share.wants_portion:
                continue
            free = max(0.0, mine - (out - share.portion))
            # a router that comes later finds something, too
            least = free / 2 if share.demand_per_s is None else share.demand_per_s * _PORTION_S
            portion = int(min(want, free, max(least, free / 2)))
            share.wants_portion = False
            if share.given is not None:
                if portion == share.given.size == 0:
                    continue
                # what is used between a report and the answer to it would be given twice
                if portion * _ENOUGH <= share.portion <= portion / _ENOUGH and share.portion >= 1:
                    continue
            out += portion - share.portion
            share.portion = float(portion)
            made[router] = Assignment(portion, 1, _NEVER_S, anew=True)
        return made


def _differs(old: Assignment, new: Assignment) -> bool:
    if old.interval_s != new.interval_s or abs(old.size - new.size) > old.size // 4:
        return True
    return abs(old.tokens - new.tokens) > _CHANGED * old.tokens
