"""The controller as a service: three ports, the relay, and what the routers tell."""

import asyncio
import errno
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import structlog
from fastapi import APIRouter
from starlette.types import ASGIApp

from asgi.server import Server, bound
from bus.errors import BusUnavailable
from bus.events import RouterReportRequested
from bus.subjects import Family, pattern
from controller.apis import Apis
from controller.auth import Users
from controller.errors import AddressUnusable, PortTaken
from controller.keys import Keys
from controller.measured import MeasuredRecord
from controller.metrics import ControllerMetrics
from controller.outbox import Relay
from controller.ports import ControllerBus, PolicyCatalogue, Record
from controller.quota import SubscriptionUsage
from controller.rest.admin import create_admin_app, create_metrics_app
from controller.rest.app import create_app
from controller.settings import ControllerSettings
from controller.status import Deployments

log = structlog.get_logger()

_RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the controller listens; real numbers also where 0 was asked for."""

    management: int
    admin: int
    metrics: int


async def run(
    settings: ControllerSettings,
    bus: ControllerBus,
    record: Record,
    catalogue: PolicyCatalogue,
    *,
    gateway_id: str = "default",
    time_zone: str = "UTC",
    usage: SubscriptionUsage | None = None,
    extra_routers: Sequence[APIRouter] = (),
    ready: Callable[[Ports], None] = lambda _: None,
) -> None:
    """Serve until cancelled; requests in flight are answered first.

    `ready` is called once all ports answer. A record that does not outlive the process is read
    back from the bus before that. Raises PortTaken, InvalidPasswordHash.
    """
    users = Users.configured(settings)
    if not users:
        log.warning("no user is configured: the management API refuses everybody")
    metrics = ControllerMetrics()
    deployments = Deployments(metrics.deployment_s.observe)
    metrics.follow(
        lambda: float(bus.connected),
        lambda: sum(one.connected for one in deployments.routers.values()),
    )
    measured = MeasuredRecord(record, metrics)
    apis = Apis(measured, catalogue, deployments)
    keys = Keys(measured, settings.api_keys_per_user_per_api, settings.api_key_issuer or None)
    relay = Relay(
        measured,
        bus,
        poll_s=settings.outbox_poll_s,
        batch=settings.outbox_batch,
        sent=metrics.event_sent,
    )
    applications: tuple[ASGIApp, ...] = (
        create_app(
            settings=settings,
            apis=apis,
            keys=keys,
            users=users,
            metrics=metrics,
            gateway_id=gateway_id,
            time_zone=time_zone,
            usage=usage,
            extra_routers=extra_routers,
        ),
        create_admin_app(settings=settings, apis=apis, users=users, bus=bus),
        create_metrics_app(metrics, apis),
    )
    with _listening(settings) as sockets:
        if not record.durable:
            await relay.start()
        async with asyncio.TaskGroup() as group:
            group.create_task(relay.run(), name="controller: outbox")
            group.create_task(follow_routers(bus, deployments), name="controller: routers")
            servers = [Server(app, settings.shutdown_grace_s) for app in applications]
            for server, listener in zip(servers, sockets, strict=True):
                group.create_task(server.run_until_cancelled(listener), name="controller: serve")
            for server in servers:
                await server.answers.wait()
            metrics.up.set(1)
            ports = Ports(*(listener.getsockname()[1] for listener in sockets))
            log.info("controller is ready", management=ports.management, admin=ports.admin)
            ready(ports)


async def follow_routers(bus: ControllerBus, deployments: Deployments) -> None:
    """Fold what routers tell into `deployments`.

    What they told before is not the whole truth (of each router only its last event is there),
    so it is skipped, and they are asked to tell everything again; also when the broker was lost.
    """
    async with bus.follow(pattern(Family.ROUTER)) as feed, asyncio.TaskGroup() as group:
        group.create_task(_ask_for_reports(bus), name="controller: ask for reports")
        stale = feed.backlog
        async for event in feed:
            if stale > 0:
                stale -= 1
                continue
            deployments.apply(event)


async def _ask_for_reports(bus: ControllerBus) -> None:
    epoch = bus.epoch
    while True:
        try:
            await bus.publish(RouterReportRequested())
        except BusUnavailable as error:
            log.warning("routers cannot be asked for reports", reason=error.reason)
            await asyncio.sleep(_RETRY_S)
            continue
        epoch = await bus.next_epoch(epoch)


@contextmanager
def _listening(settings: ControllerSettings) -> Iterator[tuple[socket.socket, ...]]:
    """Bound sockets of the three ports. Raises PortTaken."""
    with ExitStack() as opened:
        yield tuple(
            opened.enter_context(_bound(settings.management_address, port, name))
            for name, port in (
                ("management_port", settings.management_port),
                ("admin_port", settings.admin_port),
                ("metrics_port", settings.metrics_port),
            )
        )


def _bound(address: str, port: int, setting: str) -> socket.socket:
    try:
        return bound(address, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortTaken(address, port, setting) from error
        raise AddressUnusable(address, port, setting, error.strerror or str(error)) from error
