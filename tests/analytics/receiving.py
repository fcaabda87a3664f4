"""A bus that remembers what it took, and access logs on their way to it."""

import asyncio
from contextlib import asynccontextmanager

from analytics.access_log import receive_access_logs
from analytics.outbox import Outbox
from analytics.settings import AnalyticsSettings
from bus.usage import RequestsServed

DEADLINE_S = 20.0


class Bus:
    """A publisher that fails as told, and remembers what it took, by id."""

    def __init__(self):
        self.fails_with = None
        self.attempts = []
        self.taken = {}

    async def publish(self, event, *, event_id=None):
        self.attempts.append(event_id)
        await asyncio.sleep(0)
        if self.fails_with is not None and isinstance(event, RequestsServed):
            raise self.fails_with
        self.taken[event_id] = event

    def events(self, kind):
        return [event for event in self.taken.values() if isinstance(event, kind)]


async def until(condition):
    async with asyncio.timeout(DEADLINE_S):
        while not condition():
            await asyncio.sleep(0.01)


@asynccontextmanager
async def receiving(**settings):
    bus = Bus()
    outbox = Outbox(bus, 1 << 20)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(outbox.run())
        async with receive_access_logs(AnalyticsSettings(**settings), outbox) as listening:
            yield bus, listening
        await outbox.drained(DEADLINE_S)
        task.cancel()
