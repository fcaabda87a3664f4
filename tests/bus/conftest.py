"""Every contract test runs on both adapters."""

from collections.abc import AsyncIterator

import pytest

from bus.ports import Bus
from tests.bus.adapters import InMemory, OnJetStream
from tests.servers.nats import nats_server


@pytest.fixture(params=["memory", "jetstream"])
async def adapter(request: pytest.FixtureRequest):
    """Opens an adapter with the settings that a test wants."""
    if request.param == "memory":
        yield InMemory
    else:
        async with nats_server() as server:
            yield lambda **settings: OnJetStream(server, **settings)


@pytest.fixture
async def opened(adapter):
    """An adapter with default settings."""
    return adapter()


@pytest.fixture
async def bus(opened) -> AsyncIterator[Bus]:
    """A bus with default settings, connected."""
    async with opened.connect() as bus:
        yield bus
