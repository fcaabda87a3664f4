"""Who decides a call: the over-limit cache, the store, or while that is away, the local share.

Calls of one turn of the event loop go to the store as one batch. A call that would wait longer
than its time is decided locally; the store's late answer then only tells what it has counted.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

import structlog

from ratelimiter import metrics
from ratelimiter.answering import answer, is_refused
from ratelimiter.away import LocalShares, Seen
from ratelimiter.clock import Clock
from ratelimiter.counters import Part, Standing
from ratelimiter.errors import StoreAway
from ratelimiter.lanes import Away, Entry, Health, Lane, Lanes, Ticket
from ratelimiter.over_limit import OverLimit
from ratelimiter.ports import CounterStore, Decided, Peers, Watcher
from ratelimiter.reading import Question, refunds
from ratelimiter.recovery import Recovery
from ratelimiter.settings import RatelimiterSettings

log = structlog.get_logger()

_NEAR = 5  # a fifth of the limit is left: 80 % are used


class Decider:
    """Decides calls for as long as its context lasts."""

    def __init__(
        self,
        store: CounterStore,
        settings: RatelimiterSettings,
        peers: Peers,
        watcher: Watcher,
        told: Callable[[Health], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._settings = settings
        self._watcher = watcher
        self._clock = Clock()
        self._seen = Seen(settings.ratelimiter_memory_entries)
        self._shares = LocalShares(
            settings.ratelimiter_memory_entries, self._seen, lambda: peers.live
        )
        self._over = OverLimit(
            settings.ratelimiter_over_limit_entries,
            round(settings.ratelimiter_over_limit_cache_s * 1e6),
        )
        self._lanes = Lanes(store)
        self._recovery = Recovery(
            store,
            settings,
            self._lanes,
            self._clock,
            self._shares,
            self._over,
            peers,
            watcher,
            told,
            self._lost,
        )
        self._scheduled = False
        self._group = asyncio.TaskGroup()
        self._tasks: set[asyncio.Task[None]] = set()
        self._decided = {
            (refused, by): metrics.DECISIONS.labels("refused" if refused else "allowed", by)
            for refused in (False, True)
            for by in ("store", "over-limit", "local")
        }

    async def __aenter__(self) -> Self:
        """Find the store, if it is there; without it, counting begins locally."""
        await self._group.__aenter__()
        lane = self._lanes.of(0)
        try:
            async with asyncio.timeout(self._settings.redis_connect_timeout_s):
                self._clock.set(await self._store.probe(lane.name))
        except StoreAway as error:
            if self._lanes.of(0) is lane:
                self._lost(lane, error)
        except TimeoutError:
            self._lost(lane, StoreAway("it does not answer", "slow"))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Calls that wait are over; what the store was not told yet is told if it is there."""
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(kind, error, traceback)

    @property
    def health(self) -> Health:
        """Whether limits are shared, and if not, why."""
        return self._lanes.health

    def ask(self, question: Question) -> "bytes | asyncio.Future[bytes]":
        """The serialized answer to a call, at once or when the store has decided."""
        if not question.parts:
            return answer(question, ())
        known = self._certain(question)
        if known is not None:
            self._decided[True, "over-limit"].inc()
            return answer(question, known)
        ticket = Ticket(question, None)
        waits = False
        for index, part in enumerate(question.parts):
            lane = self._lanes.of(part.tag)
            if lane.away is not None:
                self._locally(ticket, index)
            else:
                lane.pending.append((ticket, index))
                waits = True
        if not waits:
            return self._answered(ticket, "local")
        ticket.promise = asyncio.get_running_loop().create_future()
        self._schedule()
        return ticket.promise

    # -- with the store ------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Send what is pending, as far as enough of it has come back."""
        self._scheduled = False
        size, at_once = self._settings.ratelimiter_batch, self._settings.ratelimiter_in_flight
        for lane in self._lanes:
            while lane.pending and lane.in_flight < at_once:
                batch, lane.pending = lane.pending[:size], lane.pending[size:]
                lane.in_flight += 1
                self._spawn(self._decide(lane, batch), "decide")

    async def _decide(self, lane: Lane, batch: list[Entry]) -> None:
        parts = [ticket.question.parts[index] for ticket, index in batch]
        late = False

        def too_late() -> None:
            nonlocal late
            late = True
            lane.in_flight -= 1
            timeout_ms = self._settings.ratelimiter_decision_timeout_s * 1_000
            self._lost(lane, StoreAway(f"no answer within {timeout_ms:g} ms", "slow"))
            self._all_locally(batch)

        loop = asyncio.get_running_loop()
        started_s = loop.time()
        timer = loop.call_later(self._settings.ratelimiter_decision_timeout_s, too_late)
        try:
            decided = await self._store.decide(lane.name, parts)
        except StoreAway as error:
            if not late:
                self._lost(lane, error)
                self._all_locally(batch)
        else:
            metrics.STORE_SECONDS.observe(loop.time() - started_s)
            metrics.BATCH.observe(len(batch))
            if late:
                self._reconcile(batch, decided.standings)
            else:
                self._clock.set(decided.now_us)
                self._settle(batch, decided)
        finally:
            timer.cancel()
            if not late:
                lane.in_flight -= 1
            if lane.pending:
                self._schedule()

    def _settle(self, batch: list[Entry], decided: Decided) -> None:
        for (ticket, index), found in zip(batch, decided.standings, strict=True):
            if found is None:  # on its way to another node
                self._locally(ticket, index)
            else:
                self._fill(ticket, index, found)
                part = ticket.question.parts[index]
                self._note(part, found, decided.now_us)
            self._deliver(ticket, "store")

    def _note(self, part: Part, standings: tuple[Standing, ...], now_us: int) -> None:
        """Remember how counters stand, for when the store is away or need not be asked."""
        position = 0
        for group in part.groups:
            for take in group:
                standing = standings[position]
                position += 1
                self._seen.note(take.key, now_us, standing)
                if standing.retry_us:
                    hits = 1 if take.mode == "check" else take.hits
                    self._over.note(take.key, hits, now_us, standing)

    def _reconcile(
        self, batch: list[Entry], standings: tuple[tuple[Standing, ...] | None, ...]
    ) -> None:
        """The store has counted what was meanwhile decided locally: it must not be told again."""
        for (ticket, index), found in zip(batch, standings, strict=True):
            position = 0
            for group in ticket.question.parts[index].groups if found else ():
                mine = found[position : position + len(group)] if found else ()
                position += len(group)
                if any(standing.refused for standing in mine):
                    continue
                for take in group:
                    if take.mode != "check":
                        self._shares.undo(take)

    # -- without it ----------------------------------------------------------------------------

    def _locally(self, ticket: Ticket, index: int) -> None:
        now_us = self._clock.now_us()
        self._fill(
            ticket,
            index,
            tuple(
                standing
                for group in ticket.question.parts[index].groups
                for standing in self._shares.decide(group, now_us)
            ),
        )

    def _all_locally(self, batch: list[Entry]) -> None:
        for ticket, index in batch:
            self._locally(ticket, index)
            self._deliver(ticket, "local")

    def _lost(self, lane: Lane, error: StoreAway) -> None:
        """Count locally from now on, and try to get the place back."""
        metrics.STORE_FAILURES.labels(error.cause).inc()
        if lane.away is None:
            lane.away = Away(error.reason, error.cause, time.time(), time.monotonic())
            metrics.DEGRADED.inc()
            log.info("counters are away", place=str(lane.name), reason=error.reason)
            self._spawn(self._recovery.run(lane, lane.away), "recover")
            waiting, lane.pending = lane.pending, []
            self._all_locally(waiting)

    # -- the answer ----------------------------------------------------------------------------

    def _certain(self, question: Question) -> tuple[Standing, ...] | None:
        """The answer, if the call is refused by what is known of one of its limits."""
        if not self._over or len(question.takes) != question.enforced:
            return None
        now_us = self._clock.now_us()
        found: list[Standing | None] = []
        refused = False
        for take in question.takes:
            hits = 1 if take.mode == "check" else take.hits
            standing = None
            if hits and take.mode in ("consume", "check"):
                standing = self._over.standing(take.key, hits, now_us)
            refused = refused or standing is not None
            found.append(standing)
        if not refused or any(take.mode not in ("consume", "check") for take in question.takes):
            return None
        return tuple(
            standing
            if standing is not None
            else self._seen.standing(take.key, now_us) or Standing(take.rule.hits, 0, 0)
            for take, standing in zip(question.takes, found, strict=True)
        )

    def _fill(self, ticket: Ticket, index: int, found: tuple[Standing, ...]) -> None:
        for position, standing in zip(ticket.question.positions[index], found, strict=True):
            ticket.standings[position] = standing
        ticket.missing -= 1

    def _deliver(self, ticket: Ticket, by: str) -> None:
        """Answer the call if all of it is decided."""
        if ticket.missing == 0:
            reply = self._answered(ticket, by)
            if ticket.promise is not None and not ticket.promise.done():
                ticket.promise.set_result(reply)

    def _answered(self, ticket: Ticket, by: str) -> bytes:
        question = ticket.question
        standings: tuple[Standing, ...] = tuple(ticket.standings)  # type: ignore[arg-type]
        if len(question.parts) > 1:
            for part in refunds(question, standings):
                self._give_back(part)
        for take, standing in zip(question.takes, standings, strict=True):
            if standing.remaining * _NEAR <= take.rule.hits:
                self._watcher.near(question, standings, self._clock.now_us())
                break
        self._decided[is_refused(question, standings), by].inc()
        return answer(question, standings)

    def _give_back(self, part: Part) -> None:
        question = Question((), part.groups[0], 0, (part,), (tuple(range(len(part.keys))),))
        ticket = Ticket(question, None)
        lane = self._lanes.of(part.tag)
        if lane.away is not None:
            self._locally(ticket, 0)
        else:
            lane.pending.append((ticket, 0))
            self._schedule()

    # -- tasks ---------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = self._group.create_task(work, name=f"ratelimiter: {name}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
