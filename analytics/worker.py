"""Usage events into totals: gathered, counted in one transaction, and only then acknowledged.

An event that comes again (this process died between the commit and the acknowledgement) is known
by its id, so each is counted once.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from time import time
from typing import NamedTuple

import structlog

from analytics import metrics
from analytics.errors import TotalsRefused, TotalsUnavailable
from analytics.metrics import RequestMetrics
from analytics.ports import MINUTES_PER_HOUR, TotalsStore
from analytics.settings import AnalyticsSettings
from analytics.totals import Batch, fold, gap_of, summed
from bus.errors import BusUnavailable
from bus.events import Event
from bus.ports import Delivery, WorkSharer
from bus.subjects import Family, pattern
from bus.usage import AccessLogGap, RequestsServed

log = structlog.get_logger()

CONSUMER = "usage-totals"
_RETRY_S = 0.2
_RETRY_MAX_S = 10.0
_CHORES_EVERY_S = 600.0
_MINUTES_PER_DAY = 24 * MINUTES_PER_HOUR


class Work(NamedTuple):
    """A delivery and what it says."""

    delivery: Delivery
    batch: Batch
    newest_ms: int  # start of its last request, Unix time; 0 when it tells of none


async def count_usage(bus: WorkSharer, store: TotalsStore, settings: AnalyticsSettings) -> None:
    """Count usage events for ever."""
    request_metrics = RequestMetrics(settings.usage_metrics_apis)
    async with bus.share(CONSUMER, pattern(Family.USAGE)) as feed, asyncio.TaskGroup() as group:
        queue: asyncio.Queue[Work] = asyncio.Queue(maxsize=settings.usage_flush_batches)
        group.create_task(_fold_all(feed, queue), name="usage-fold")
        while True:
            gathered = await _gather(
                queue, settings.usage_flush_interval_s, settings.usage_flush_batches
            )
            await _count(store, gathered, request_metrics)


async def keep_house(store: TotalsStore, settings: AnalyticsSettings) -> None:
    """Add old minutes up to hours and forget what is too old, for ever."""
    while True:
        now_minute = int(time() // 60)
        minutes_kept = settings.usage_minutes_retention_hours * MINUTES_PER_HOUR
        try:
            rolled_up = await store.roll_up(now_minute - minutes_kept)
            forgotten = await store.forget(
                now_minute - settings.usage_retention_days * _MINUTES_PER_DAY
            )
        except (TotalsUnavailable, TotalsRefused) as error:
            log.warning("usage totals not tidied", reason=error.reason)
        else:
            if rolled_up or forgotten:
                log.info("usage totals tidied", rolled_up=rolled_up, forgotten=forgotten)
        await asyncio.sleep(_CHORES_EVERY_S)


async def _fold_all(feed: AsyncIterator[Delivery], queue: asyncio.Queue[Work]) -> None:
    async for delivery in feed:
        await queue.put(_work(delivery))


def _work(delivery: Delivery) -> Work:
    """What the delivery adds; nothing, for usage events of other kinds."""
    event: Event = delivery.event
    match event:
        case RequestsServed():
            newest_ms = event.since_ms + max(event.after_ms, default=0)
            return Work(delivery, Batch(delivery.event_id, fold(event)), newest_ms)
        case AccessLogGap():
            return Work(delivery, Batch(delivery.event_id, gap=gap_of(event)), 0)
        case _:
            return Work(delivery, Batch(delivery.event_id), 0)


async def _gather(queue: asyncio.Queue[Work], within_s: float, most: int) -> list[Work]:
    """At least one; after the first, what comes within `within_s` seconds, at most `most`."""
    gathered = [await queue.get()]
    try:
        async with asyncio.timeout(within_s):
            while len(gathered) < most:
                gathered.append(await queue.get())
    except TimeoutError:
        pass
    return gathered


async def _count(
    store: TotalsStore, works: Sequence[Work], request_metrics: RequestMetrics
) -> None:
    """Count and acknowledge; waits for as long as the store is away."""
    batches = [work.batch for work in works]
    delay_s = 0.0
    while True:
        try:
            counted = await store.count(batches)
        except TotalsUnavailable as error:
            if not delay_s:
                log.warning("usage totals wait for the store", reason=error.reason)
            delay_s = min(max(2 * delay_s, _RETRY_S), _RETRY_MAX_S)
            await asyncio.sleep(delay_s)
        except TotalsRefused as error:
            await _put_aside_refused(store, works, request_metrics, error.reason)
            return
        else:
            break
    fresh = {batch.event_id: batch for batch in batches if batch.event_id in counted}
    request_metrics.add(summed(batch.totals for batch in fresh.values()))
    metrics.REPEATED.inc(len(batches) - len(fresh))
    newest_ms = max(work.newest_ms for work in works)
    if newest_ms:
        metrics.LAG.set(max(time() - newest_ms / 1000, 0))
    for work in works:
        await _acknowledge(work.delivery)


async def _put_aside_refused(
    store: TotalsStore, works: Sequence[Work], request_metrics: RequestMetrics, reason: str
) -> None:
    """One of them is broken: count each by itself, put the broken one on the dead letter."""
    if len(works) > 1:
        for work in works:
            await _count(store, [work], request_metrics)
        return
    (broken,) = works
    log.error("usage event refused by the store", event_id=broken.batch.event_id, reason=reason)
    metrics.REFUSED.inc()
    try:
        await broken.delivery.dead_letter(reason)
    except BusUnavailable as error:
        log.warning("refused usage event not put aside, it comes again", reason=error.reason)


async def _acknowledge(delivery: Delivery) -> None:
    try:
        await delivery.ack()
    except BusUnavailable as error:
        # it comes again, and is known by its id
        log.debug("usage event not acknowledged", reason=error.reason)
