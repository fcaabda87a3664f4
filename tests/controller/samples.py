"""APIs and keys as tests need them, and waiting for an effect."""

import asyncio
import copy
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from bus.events import ApiKeyIssued, ApiKeyRevoked, ApiPublished, ApiRetired, Event
from bus.memory import MemoryBus
from bus.resources.api_key import ApiKey
from bus.resources.application import Application
from bus.resources.faults import parse
from bus.resources.rest_api import RestApi
from bus.resources.subscription import Subscription
from bus.resources.subscription_plan import SubscriptionPlan
from bus.subjects import Family, pattern
from controller.model import StoredApi, StoredKey
from controller.ports import Record, UnitOfWork
from controller.resources import AnyResource, ResourceEvent, StoredResource

Document = dict[str, Any]

NOW = datetime(2026, 1, 31, 12, 30, 15, 123456, tzinfo=UTC)
PATIENCE_S = 30.0


def document(name: str = "weather", **spec: Any) -> Document:
    """A valid RestApi; `spec` replaces fields, None leaves them out."""
    found: Document = {
        "apiVersion": "gateway.api-platform.wso2.com/v1",
        "kind": "RestApi",
        "metadata": {"name": name},
        "spec": {
            "displayName": f"{name} API",
            "version": "v1.0",
            "context": f"/{name}/$version",
            "upstream": {"main": {"url": "http://backend.example.com:8080/base"}},
            "operations": [{"method": "GET", "path": "/today"}],
            **spec,
        },
    }
    found["spec"] = {key: value for key, value in found["spec"].items() if value is not None}
    return copy.deepcopy(found)


def api(name: str = "weather", before: StoredApi | None = None, **spec: Any) -> StoredApi:
    """A row."""
    found = document(name, **spec)
    return StoredApi.written(found, parse(RestApi, found), NOW, before)


def plan(name: str = "Gold", revision: int = 1, **fields: Any) -> StoredResource[SubscriptionPlan]:
    """A row; its id is its name in lower case."""
    one = SubscriptionPlan(**{"id": name.lower(), "plan_name": name, **fields})
    return StoredResource(revision, one, NOW, NOW)


def subscription(
    name: str = "s-1", revision: int = 1, **fields: Any
) -> StoredResource[Subscription]:
    """A row."""
    one = Subscription(**{"id": name, "api_id": "weather", "digest": f"digest of {name}", **fields})
    return StoredResource(revision, one, NOW, NOW)


def application(
    name: str = "Shop", revision: int = 1, **fields: Any
) -> StoredResource[Application]:
    """A row; its id is its name in lower case."""
    return StoredResource(revision, Application(id=name.lower(), name=name, **fields), NOW, NOW)


def key(api_id: str = "weather", name: str = "mine", **fields: Any) -> StoredKey:
    """A row."""
    facts = {"digest": "0" * 64, "application": name, "created_at": NOW, "created_by": "admin"}
    return StoredKey(1, ApiKey(api_id=api_id, name=name, **{**facts, **fields}), NOW)


async def put(record: Record, *rows: StoredApi | StoredKey | AnyResource) -> None:
    """Commit `rows` with their events in one unit."""

    def work(unit: UnitOfWork) -> None:
        for row in rows:
            if isinstance(row, StoredApi):
                unit.put_api(row)
            elif isinstance(row, StoredKey):
                unit.put_key(row)
            else:
                unit.put_resource(row)
            unit.tell(row.event())

    await record.change(work)


async def state_on(bus: MemoryBus) -> list[Event]:
    """What a follower that starts now is told first."""
    async with bus.follow(pattern(Family.STATE)) as feed:
        events = aiter(feed)
        return [await anext(events) for _ in range(feed.backlog)]


def revisions(events: list[Event]) -> dict[str, int]:
    """Revisions by what they are of; what is gone is negative."""
    found: dict[str, int] = {}
    for event in events:
        match event:
            case ApiPublished(revision=revision, api=one):
                found[one.id] = revision
            case ApiRetired(revision=revision, api_id=handle):
                found[handle] = -revision
            case ApiKeyIssued(revision=revision, api_key=one_key):
                found[f"{one_key.api_id}/{one_key.name}"] = revision
            case ApiKeyRevoked(revision=revision, api_id=handle, name=name):
                found[f"{handle}/{name}"] = -revision
            case _ if isinstance(event, ResourceEvent):
                gone = event.kind.endswith(".retired")
                found["/".join(event.key)] = -event.revision if gone else event.revision
            case _:
                pass
    return found


async def eventually(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Wait until `holds`, for as long as a busy machine may need."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await holds():
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"never: {what}") from None
