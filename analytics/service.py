"""The analytics component: access log in, usage events out and in again, totals kept."""

import asyncio
from collections.abc import Callable

import structlog

from analytics.access_log import receive_access_logs
from analytics.outbox import Outbox
from analytics.ports import TotalsStore
from analytics.settings import AnalyticsSettings
from analytics.worker import count_usage, keep_house
from bus.ports import Bus

log = structlog.get_logger()

_DRAIN_S = 3.0  # for the bus to take what was received before the end


async def run(
    settings: AnalyticsSettings, bus: Bus, store: TotalsStore, *, ready: Callable[[], None]
) -> None:
    """Run until cancelled; `ready` is called once routers can connect. Raises CannotListen.

    At the end, what was received is published. What a kill loses is what routers had sent and the
    bus had not stored: some milliseconds of traffic.
    """
    outbox = Outbox(bus, settings.usage_buffer_bytes)
    async with asyncio.TaskGroup() as group:
        group.create_task(outbox.run(), name="usage-outbox")
        group.create_task(count_usage(bus, store, settings), name="usage-totals")
        group.create_task(keep_house(store, settings), name="usage-chores")
        try:
            async with receive_access_logs(settings, outbox) as listening:
                log.info(
                    "receiving access logs",
                    socket=str(settings.access_log_socket or ""),
                    port=listening.port,
                )
                ready()
                await asyncio.Event().wait()
        finally:
            await outbox.drained(_DRAIN_S)
