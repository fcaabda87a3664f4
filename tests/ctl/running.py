"""The real controller in this process, with a router that answers as it is told."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from fastapi import APIRouter

from bus.events import (
    ApiPublished,
    ApiRetired,
    ConfigurationApplied,
    ConfigurationRejected,
    RouterConnected,
    RouterReportRequested,
)
from bus.memory import MemoryBus
from bus.ports import Bus
from bus.subjects import Family, pattern
from controller import service
from controller.memory import MemoryRecord
from controller.quota import SubscriptionUsage
from controller.settings import ControllerSettings, User
from policy_engine.catalogue import load
from tests.ctl import cli

PASSWORD = "correct horse"
DEVELOPER = "dev"

Refuses = Callable[[ApiPublished], str | None]


@dataclass(slots=True)
class Router:
    """A router: it serves everything but what it `refuses`, or keeps silent."""

    node: str
    refuses: Refuses = lambda _: None
    silent: bool = False
    revisions: dict[str, int] = field(default_factory=dict)

    async def run(self, bus: Bus) -> None:
        wanted = (pattern(Family.STATE, "rest-api", ">"), pattern(Family.COMMAND))
        async with bus.follow(*wanted) as feed:
            async for event in feed:
                match event:
                    case RouterReportRequested():
                        await bus.publish(RouterConnected(node=self.node, version="1.40.0"))
                        await bus.publish(
                            ConfigurationApplied(
                                node=self.node, revisions=self.revisions, complete=True
                            )
                        )
                    case ApiPublished() | ApiRetired() if not self.silent:
                        await bus.publish(self.answer(event))

    def answer(
        self, event: ApiPublished | ApiRetired
    ) -> ConfigurationApplied | ConfigurationRejected:
        name = event.api.id if isinstance(event, ApiPublished) else event.api_id
        reason = self.refuses(event) if isinstance(event, ApiPublished) else None
        if reason is not None:
            return ConfigurationRejected(
                node=self.node, api_id=name, revision=event.revision, reason=reason
            )
        self.revisions[name] = event.revision
        return ConfigurationApplied(node=self.node, revisions={name: event.revision})


@dataclass(frozen=True, slots=True)
class Running:
    """A controller, and how to call it from a command line."""

    folder: Path
    ports: service.Ports
    router: Router

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports.management}"

    def http(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=f"{self.url}/api/management/v1", auth=("admin", PASSWORD), timeout=30
        )

    async def cli(self, *arguments: str, stdin: str | None = None, **env: str) -> cli.Result:
        return await cli.run(*arguments, env=cli.environment(self.folder, **env), stdin=stdin)

    def write(self, name: str, *documents: object) -> str:
        """A file of these documents in the folder; its path."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("---\n".join(json.dumps(document) + "\n" for document in documents))
        return str(file)


@asynccontextmanager
async def running(
    folder: Path,
    *,
    router: Router | None = None,
    connected: bool = True,
    extra_routers: Sequence[APIRouter] = (),
    usage: SubscriptionUsage | None = None,
) -> AsyncIterator[Running]:
    """A controller on free ports whose client.json is in `folder`."""
    settings = ControllerSettings.model_validate(
        {
            "management_port": 0,
            "admin_port": 0,
            "metrics_port": 0,
            "admin_password": PASSWORD,
            "users": (User(name=DEVELOPER, password=PASSWORD, roles=("developer",)),),  # type: ignore[arg-type]
        }
    )
    made = router or Router("router-1")
    bus = MemoryBus()
    ready: asyncio.Future[service.Ports] = asyncio.get_running_loop().create_future()
    serving = service.run(
        settings,
        bus,
        MemoryRecord(),
        load(),
        extra_routers=extra_routers,
        usage=usage,
        ready=ready.set_result,
    )
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(serving, name="controller")]
        if connected:
            tasks.append(group.create_task(made.run(bus), name="router"))
        try:
            async with asyncio.timeout(30):
                ports = await ready
            one = Running(folder, ports, made)
            known = {"url": one.url, "user": "admin", "password": PASSWORD}
            folder.mkdir(exist_ok=True)
            (folder / "client.json").write_text(json.dumps(known))
            if connected:
                await _until_routers(one)
            yield one
        finally:
            for task in tasks:
                task.cancel()


async def _until_routers(one: Running) -> None:
    async with asyncio.timeout(30), one.http() as http:
        while (await http.get("/routers")).json()["count"] == 0:
            await asyncio.sleep(0.01)
