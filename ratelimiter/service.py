"""The rate limiter: Envoy's calls in, decisions out, until it is cancelled.

RLS v3 on the small HTTP/2 server: one method, so each call that arrives is ShouldRateLimit. The
quota service, whose messages are few, is on grpcio.
"""

import asyncio
import ipaddress
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import structlog

from bus.ports import Bus
from policy_engine.errors import MalformedQuota
from ratelimiter import metrics
from ratelimiter.deciding import Decider
from ratelimiter.errors import BadStoreSettings, CannotListen, InsecureAddress
from ratelimiter.lanes import Health
from ratelimiter.notices import Notices
from ratelimiter.peers import BusPeers, FixedPeers
from ratelimiter.ports import CounterStore
from ratelimiter.quotas.accounts import Accounts
from ratelimiter.quotas.balancer import Balancer
from ratelimiter.reading import Reader
from ratelimiter.settings import RatelimiterSettings
from ratelimiter.stores.memory import MemoryStore
from xds.wire.h2 import RpcRefused, Status, serve_unary

log = structlog.get_logger()

_TIDY_EVERY_S = 60.0
_ACCOUNTS_TIMEOUT_S = 0.5  # no request waits for it


class RateLimitService:
    """ShouldRateLimit."""

    def __init__(self, reader: Reader, decider: Decider) -> None:
        self._reader = reader
        self._decider = decider
        self._complained: set[str] = set()

    @property
    def health(self) -> Health:
        """Whether limits are shared, and if not, why."""
        return self._decider.health

    def __call__(self, data: bytes) -> "bytes | asyncio.Future[bytes]":
        """The answer to one serialized call. Raises RpcRefused: the filter's failure mode holds."""
        try:
            question = self._reader.read(data)
        except MalformedQuota as error:
            metrics.MALFORMED.inc()
            if error.reason not in self._complained and len(self._complained) < 100:
                self._complained.add(error.reason)
                log.warning("a call cannot be read", reason=error.reason)
            raise RpcRefused(Status.INVALID_ARGUMENT, error.reason) from error
        return self._decider.ask(question)


@dataclass(frozen=True, slots=True)
class Running:
    """A service that answers."""

    service: RateLimitService
    addresses: tuple[str, ...]  # as gRPC names them: `unix:/run/rl.sock`, `127.0.0.1:4001`
    quota_addresses: tuple[str, ...] = ()  # of the quota service


def node_name() -> str:
    """What this process is called among rate limiters."""
    return f"{socket.gethostname()}-{os.getpid()}"


def store_of(settings: RatelimiterSettings) -> CounterStore:
    """The store that `settings` describe. Raises BadStoreSettings."""
    if settings.ratelimiter_store == "memory":
        return MemoryStore(settings.ratelimiter_memory_entries)
    from ratelimiter.stores.redis import RedisStore  # noqa: PLC0415 - slow, where it is not needed
    from ratelimiter.stores.topology import connect  # noqa: PLC0415

    return RedisStore(connect(settings), settings.redis_key_prefix)


def check(settings: RatelimiterSettings) -> None:
    """Whether the service may listen as configured. Raises InsecureAddress, BadStoreSettings."""
    if settings.ratelimiter_socket is None and settings.ratelimiter_port is None:
        raise BadStoreSettings(
            "ratelimiter_socket", "neither a Unix socket nor a port (ratelimiter_port) is given"
        )
    ports = (settings.ratelimiter_port, settings.ratelimiter_quota_port)
    if (
        any(port is not None for port in ports)
        and not settings.ratelimiter_trusted_network
        and not _is_loopback(settings.ratelimiter_address)
    ):
        raise InsecureAddress(
            "ratelimiter_address",
            settings.ratelimiter_address,
            "set ratelimiter_trusted_network if only routers reach it, or use a loopback address",
        )


@asynccontextmanager
async def serving(
    settings: RatelimiterSettings,
    bus: Bus | None,
    store: CounterStore,
    health: Callable[[Health], None] = lambda _: None,
) -> AsyncIterator[Running]:
    """The service on its addresses; without a bus nobody hears of it.

    Raises CannotListen, InsecureAddress, BadStoreSettings.
    """
    check(settings)
    try:
        async with _serving(settings, bus, store, health) as running:
            yield running
    except BaseExceptionGroup as group:
        raise _alone(group) from None


@asynccontextmanager
async def _serving(
    settings: RatelimiterSettings,
    bus: Bus | None,
    store: CounterStore,
    health: Callable[[Health], None],
) -> AsyncIterator[Running]:
    node = node_name()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(store.aclose)
        group = await stack.enter_async_context(asyncio.TaskGroup())

        def lasting(work: Coroutine[Any, Any, None], name: str) -> None:
            stack.callback(group.create_task(work, name=f"ratelimiter: {name}").cancel)

        notices = Notices(
            _Nowhere() if bus is None else bus, node, settings.ratelimiter_events_per_s
        )
        peers: FixedPeers | BusPeers = FixedPeers(max(1, settings.ratelimiter_limiters))
        if bus is not None:
            lasting(notices.run(), "events")
            if not settings.ratelimiter_limiters:
                peers = BusPeers(bus, node, settings.ratelimiter_heartbeat_s)
                lasting(peers.run(), "peers")
        if isinstance(store, MemoryStore):
            lasting(_tidy(store), "tidy")
        decider = await stack.enter_async_context(Decider(store, settings, peers, notices, health))
        service = RateLimitService(Reader(settings.redis_key_prefix, splits=store.splits), decider)
        addresses = []
        if settings.ratelimiter_socket is not None:
            path = settings.ratelimiter_socket
            try:
                server = await stack.enter_async_context(serve_unary(service, path=path))
            except OSError as error:
                raise CannotListen(f"unix:{path}", error.strerror or str(error)) from error
            addresses.append(server.address)
        if settings.ratelimiter_port is not None:
            host, port = settings.ratelimiter_address, settings.ratelimiter_port
            try:
                server = await stack.enter_async_context(serve_unary(service, host=host, port=port))
            except OSError as error:
                raise CannotListen(f"{host}:{port}", error.strerror or str(error)) from error
            addresses.append(server.address)
        shares: tuple[str, ...] = ()
        quota_socket, quota_port = (
            settings.ratelimiter_quota_socket,
            settings.ratelimiter_quota_port,
        )
        if quota_socket is not None or quota_port is not None:
            from ratelimiter.quotas.server import quota_server  # noqa: PLC0415 - grpcio is large

            balancer = Balancer(
                settings.redis_key_prefix,
                Accounts(store, _ACCOUNTS_TIMEOUT_S),
                peers,
                notices,
                settings.ratelimiter_quota_buckets,
            )
            lasting(balancer.run(), "quotas")
            where = None if quota_port is None else (settings.ratelimiter_address, quota_port)
            shares = await stack.enter_async_context(
                quota_server(balancer, socket=quota_socket, address=where)
            )
        log.info(
            "serving rate limits",
            addresses=addresses,
            quota_addresses=shares,
            store=settings.ratelimiter_store,
        )
        yield Running(service, tuple(addresses), shares)


async def run(
    settings: RatelimiterSettings,
    bus: Bus,
    *,
    ready: Callable[[], None] = lambda: None,
    health: Callable[[Health], None] = lambda _: None,
) -> None:
    """Serve until cancelled. Raises CannotListen, InsecureAddress, BadStoreSettings.

    `ready` is called once routers can ask, whether or not the store is there: without it, limits
    are counted locally. `health` is told the state, now and whenever it changes.
    """
    async with serving(settings, bus, store_of(settings), health) as running:
        health(running.service.health)
        ready()
        await asyncio.Event().wait()


def _alone(error: BaseException) -> BaseException:
    """What is in groups of one, or the group that has more."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


async def _tidy(store: MemoryStore) -> None:
    while True:
        await asyncio.sleep(_TIDY_EVERY_S)
        store.tidy()


class _Nowhere:
    """No bus: nobody to tell."""

    async def publish(self, event: object, *, event_id: str | None = None) -> None:
        """Nothing."""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
