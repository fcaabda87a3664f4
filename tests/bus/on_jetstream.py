"""A bus on a real broker, and the broker seen from outside."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
from nats.js import JetStreamContext

from bus.jetstream import JetStreamBus
from bus.settings import BusSettings
from bus.subjects import STREAMS
from tests.bus.adapters import PATIENCE_S
from tests.servers.nats import NatsServer


def connect(server: NatsServer, name: str = "test", **settings: object):
    wanted = {"nats_url": server.url, "publish_timeout_s": PATIENCE_S, **settings}
    return JetStreamBus.connect(BusSettings.model_validate(wanted), name=name)


@asynccontextmanager
async def jetstream(server: NatsServer) -> AsyncIterator[JetStreamContext]:
    """A plain client, to look at the broker from outside."""
    client = await nats.connect(server.url)
    try:
        yield client.jetstream()
    finally:
        await client.close()


async def consumers(server: NatsServer) -> int:
    async with jetstream(server) as js:
        return sum([len(await js._jsm.consumers_info(stream.name)) for stream in STREAMS])
