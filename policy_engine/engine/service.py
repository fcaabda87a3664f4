"""The engine's loop: fold the state, and answer on two ports."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

import structlog

from asgi.server import Server, bound
from bus.errors import BusError
from bus.events import ApiPublished, ApiRetired, Event, RecordPublished, RouterReportRequested
from bus.ports import Publisher, StateFollower
from bus.resources.rest_api import PolicyRef
from bus.subjects import Family, pattern
from policy_engine.catalogue import Catalogue
from policy_engine.engine.admin import create_admin_app, create_metrics_app
from policy_engine.engine.awake import Awake
from policy_engine.engine.dump import routes
from policy_engine.engine.errors import AddressUnusable
from policy_engine.engine.feed import listening as workers_at
from policy_engine.engine.hop_feed import Hops
from policy_engine.engine.metrics import EngineMetrics
from policy_engine.engine.model import Model
from policy_engine.engine.reports import FailureEvents
from policy_engine.engine.settings import EngineSettings
from policy_engine.errors import UnknownPolicy

log = structlog.get_logger()

_RETRY_S = 1.0


class EngineBus(StateFollower, Publisher, Protocol):
    """The part of the bus that the engine uses."""

    @property
    def connected(self) -> bool:
        """See `bus.ports.Bus`."""
        ...


async def run(
    settings: EngineSettings,
    bus: EngineBus,
    catalogue: Catalogue,
    ready: Callable[[], None] = lambda: None,
    *,
    listening: Callable[[int, int], None] = lambda _admin, _metrics: None,
    hops_file: Path | None = None,
    awake: Awake | None = None,
) -> None:
    """Serve until cancelled. Raises AddressUnusable.

    `ready` is called once the current state is known and both ports answer; `listening` before
    that, with the two port numbers. `hops_file` is kept for workers that start without the engine.
    `awake` is told of the workers.
    """
    model, metrics = Model(), EngineMetrics()
    events = FailureEvents(bus)
    lengths = metrics.policy_chain_length.observe
    hops = Hops(catalogue, events, metrics.registry, hops_file, lengths, awake)
    hops.recall()

    def connected() -> bool:
        return bus.connected

    applications = (
        create_admin_app(model, catalogue, settings.allowed_networks, connected, hops.feed),
        create_metrics_app(metrics, connected),
    )
    with _listening(settings) as listeners:
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            if settings.engine_feed_socket is not None:
                await stack.enter_async_context(workers_at(hops.feed, settings.engine_feed_socket))
            group.create_task(events.publish(), name="engine: failures")
            group.create_task(hops.keep_file(), name="engine: hops file")
            group.create_task(hops.follow_catalogue(model), name="engine: catalogue")
            group.create_task(_hear_routers(bus, hops), name="engine: hear routers")
            servers = [Server(app, settings.engine_shutdown_grace_s) for app in applications]
            for server, listener in zip(servers, listeners, strict=True):
                group.create_task(server.run_until_cancelled(listener), name="engine: serve")
            for server in servers:
                await server.answers.wait()
            admin_port, metrics_port = (one.getsockname()[1] for one in listeners)
            listening(admin_port, metrics_port)
            metrics.up.set(1)
            log.info("policy engine listens", admin=admin_port, metrics=metrics_port)
            await _follow(bus, catalogue, model, metrics, hops, ready)


async def _follow(
    bus: EngineBus,
    catalogue: Catalogue,
    model: Model,
    metrics: EngineMetrics,
    hops: Hops,
    ready: Callable[[], None],
) -> None:
    whole = False
    async with bus.follow(pattern(Family.STATE)) as feed:
        unseen = feed.backlog
        if not unseen:
            ready()
        async for event in feed:
            whole = whole or isinstance(event, RecordPublished)
            changed = model.apply(event)
            metrics.xds_updates.labels("changed" if changed else "unchanged").inc()
            if changed:
                metrics.config_reload_timestamp.set_to_current_time()
                _measure(event, catalogue, metrics)
                hops.take(event)
            unseen -= 1
            if unseen == 0:
                ready()
            if whole and unseen <= 0:
                whole = False  # until it is told again
                hops.keep_only(model.apis)


async def _hear_routers(bus: EngineBus, hops: Hops) -> None:
    """What they serve from now on, and at once what they serve now."""
    async with bus.follow(pattern(Family.ROUTER)) as feed, asyncio.TaskGroup() as group:
        group.create_task(_ask_for_reports(bus), name="engine: ask for reports")
        stale = feed.backlog
        async for event in feed:
            if stale > 0:
                stale -= 1
                continue
            hops.reported(event)


async def _ask_for_reports(bus: EngineBus) -> None:
    while True:
        try:
            await bus.publish(RouterReportRequested())
        except BusError as error:
            log.warning("routers cannot be asked for reports", reason=str(error))
            await asyncio.sleep(_RETRY_S)
            continue
        return


def _measure(event: Event, catalogue: Catalogue, metrics: EngineMetrics) -> None:
    match event:
        case ApiPublished(api=api) if api.spec.deployment_state == "deployed":
            lengths = [len(route.policies) for route in routes((api,))]
            metrics.api_loaded(api.id, lengths)
            for attached in (api.spec.policies, *(one.policies for one in api.spec.operations)):
                for ref in attached:
                    _resolve(api.id, ref, catalogue, metrics)
        case ApiPublished(api=api):
            metrics.api_unloaded(api.id)
        case ApiRetired(api_id=api_id):
            metrics.api_unloaded(api_id)


def _resolve(api_id: str, ref: PolicyRef, catalogue: Catalogue, metrics: EngineMetrics) -> None:
    try:
        catalogue.resolve(ref.name, ref.version)
    except UnknownPolicy as error:
        metrics.resolution_failures.inc()
        log.warning("policy not resolved", api=api_id, reason=str(error))


@contextmanager
def _listening(settings: EngineSettings) -> Iterator[tuple[socket.socket, ...]]:
    """Bound sockets of both ports. Raises AddressUnusable."""
    with ExitStack() as opened:
        yield tuple(
            opened.enter_context(_bound(settings.engine_admin_address, port, setting))
            for setting, port in (
                ("engine_admin_port", settings.engine_admin_port),
                ("engine_metrics_port", settings.engine_metrics_port),
            )
        )


def _bound(address: str, port: int, setting: str) -> socket.socket:
    try:
        return bound(address, port)
    except OSError as error:
        raise AddressUnusable(address, port, setting, error.strerror or str(error)) from error
