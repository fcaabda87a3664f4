"""`python -m tests.analytics.component NATS_URL DATABASE_URL FD_OR_PORT`: analytics as a process.

Prints "ready" when routers can connect; SIGTERM ends it in good order.
"""

import asyncio
import signal
import sys

import uvloop

from analytics.service import run
from analytics.settings import AnalyticsSettings
from analytics.sql import open_totals
from bus.jetstream import JetStreamBus
from bus.settings import BusSettings


async def main(nats_url: str, database_url: str, descriptor: int) -> None:
    settings = AnalyticsSettings(access_log_fd=descriptor, usage_flush_interval_s=0.1)
    broker = BusSettings(nats_url=nats_url, nats_storage="file", share_ack_wait_s=2)
    async with (
        JetStreamBus.connect(broker, name="analytics") as bus,
        open_totals(database_url) as store,
    ):
        service = asyncio.ensure_future(
            run(settings, bus, store, ready=lambda: print("ready", flush=True))
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, service.cancel)
        await asyncio.wait([service])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
