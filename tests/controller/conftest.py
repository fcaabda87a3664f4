"""Both records, the bus in memory, and the management API over them."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from bus.memory import MemoryBus
from controller.apis import Apis
from controller.auth import Users
from controller.keys import Keys
from controller.measured import MeasuredRecord
from controller.memory import MemoryRecord
from controller.metrics import ControllerMetrics
from controller.ports import Record
from controller.rest.app import BASE, create_app
from controller.settings import ControllerSettings
from controller.sql import SqlRecord
from controller.status import Deployments
from policy_engine import catalogue
from tests.controller.samples import document


@pytest.fixture(params=["memory", "sqlite"])
async def record(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Record]:
    """An empty record."""
    if request.param == "memory":
        yield MemoryRecord()
        return
    opened = await SqlRecord.open(f"sqlite:///{tmp_path}/record.db")
    try:
        yield opened
    finally:
        await opened.close()


@pytest.fixture
def bus() -> MemoryBus:
    """An empty bus."""
    return MemoryBus()


@pytest.fixture
def settings() -> ControllerSettings:
    """An admin, a developer and two consumers, who all have their name as password."""
    users = [
        {"name": "dev", "password": "dev", "roles": ["developer"]},
        {"name": "carla", "password": "carla", "roles": ["consumer"]},
        {"name": "carlo", "password": "carlo", "roles": ["consumer"]},
    ]
    return ControllerSettings.model_validate(
        {
            "admin_password": "admin",
            "users": users,
            "management_port": 0,
            "admin_port": 0,
            "metrics_port": 0,
            "max_body_bytes": 8192,
            "api_keys_per_user_per_api": 3,
        }
    )


@pytest.fixture
def metrics() -> ControllerMetrics:
    """Metrics of this test only."""
    return ControllerMetrics()


@pytest.fixture
def deployments() -> Deployments:
    """No router yet."""
    return Deployments()


@pytest.fixture
def app(record: Record, settings, metrics, deployments):
    """The management API."""
    measured = MeasuredRecord(record, metrics)
    return create_app(
        settings=settings,
        apis=Apis(measured, catalogue.load(), deployments),
        keys=Keys(measured, settings.api_keys_per_user_per_api, None),
        users=Users.configured(settings),
        metrics=metrics,
    )


def client_as(app, user: str) -> httpx.AsyncClient:
    """A client of `app`; user and password are the same."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app),
        base_url=f"http://gateway.test{BASE}",
        auth=(user, user),
    )


@pytest.fixture
async def client(app) -> AsyncIterator[httpx.AsyncClient]:
    """The admin."""
    async with client_as(app, "admin") as opened:
        yield opened


@pytest.fixture
async def as_user(app):
    """Clients of other users."""
    opened: list[httpx.AsyncClient] = []

    def make(user: str) -> httpx.AsyncClient:
        opened.append(client_as(app, user))
        return opened[-1]

    yield make
    await asyncio.gather(*(one.aclose() for one in opened))


@pytest.fixture
async def weather(client) -> None:
    """An API."""
    await client.post("/rest-apis", json=document())
