"""Connections to Redis or Valkey, however it is run: one server, Sentinel or Cluster.

Docs: https://redis.readthedocs.io/en/stable/ and the specifications of Sentinel and Cluster at
https://valkey.io/topics/
"""

import asyncio
from collections.abc import Hashable
from typing import Any, Protocol

from redis.asyncio import BlockingConnectionPool, Connection, Redis, RedisCluster, SSLConnection
from redis.asyncio import UnixDomainSocketConnection as UnixConnection
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.crc import key_slot

from ratelimiter.counters import TAGS
from ratelimiter.errors import BadStoreSettings
from ratelimiter.settings import RatelimiterSettings

_NO_PLACE = "unknown"
_NEVER = Retry(NoBackoff(), 0)  # who asks decides what a failure means


class Topology(Protocol):
    """Finds the connection for a hash tag."""

    splits: bool  # whether tags may be at different places

    def place(self, tag: int) -> Hashable:
        """Where the tag's keys are, as far as is known."""
        ...

    async def acquire(self, place: Hashable) -> AbstractConnection:
        """A connection to `place`. Raises redis.RedisError, OSError."""
        ...

    async def release(self, place: Hashable, connection: AbstractConnection) -> None:
        """Give it back, connected or not."""
        ...

    async def refresh(self) -> None:
        """Look where everything is now. Raises redis.RedisError, OSError."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class OneServer:
    """A pool of connections to one server, or to the primary that Sentinels name."""

    splits = False

    def __init__(self, client: "Redis") -> None:
        self._client = client
        self._pool = client.connection_pool

    def place(self, tag: int) -> Hashable:  # noqa: ARG002
        """The server."""
        return "primary"

    async def acquire(self, place: Hashable) -> AbstractConnection:  # noqa: ARG002
        """A free connection, or a new one."""
        return await self._pool.get_connection()  # type: ignore[no-untyped-call,no-any-return]

    async def release(self, place: Hashable, connection: AbstractConnection) -> None:  # noqa: ARG002
        """Back to the pool."""
        await self._pool.release(connection)

    async def refresh(self) -> None:
        """A new connection asks the Sentinels by itself."""
        await self._pool.disconnect(inuse_connections=False)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()
        await self._pool.disconnect()


class Cluster:
    """The nodes of a cluster; a place is the name of a node."""

    splits = True

    def __init__(self, client: RedisCluster) -> None:
        self._client = client
        self._slots = tuple(key_slot(b"{%02x}" % tag) for tag in range(TAGS))
        self._refreshing = asyncio.Lock()
        self._known = False

    def place(self, tag: int) -> Hashable:
        """The node that has the tag's slot."""
        nodes = self._client.nodes_manager.slots_cache.get(self._slots[tag])
        return nodes[0].name if nodes else _NO_PLACE

    async def acquire(self, place: Hashable) -> AbstractConnection:
        """A connection to that node."""
        if place == _NO_PLACE or not self._known:
            await self.refresh()
        node = self._node(place)
        connection = node.acquire_connection()
        try:
            await node.disconnect_if_needed(connection)
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            node.release(connection)
            raise
        return connection

    async def release(self, place: Hashable, connection: AbstractConnection) -> None:
        """Back to its node, or closed when the node has gone."""
        node = self._client.nodes_manager.nodes_cache.get(str(place))
        if node is None:
            await connection.disconnect()
        else:
            node.release(connection)  # type: ignore[arg-type]

    async def refresh(self) -> None:
        """Ask the nodes who has which slots."""
        async with self._refreshing:
            if self._known:
                await self._client.nodes_manager.initialize()
            else:
                await self._client.initialize()
                self._known = True

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def _node(self, place: Hashable) -> ClusterNode:
        node = self._client.nodes_manager.nodes_cache.get(str(place))
        if node is None:
            raise ConnectionError(f"no node {place} in the cluster")
        return node


def connect(settings: RatelimiterSettings) -> Topology:
    """Connections as `settings` describe them; nothing is opened yet. Raises BadStoreSettings."""
    if not settings.redis_addresses:
        raise BadStoreSettings("redis_addresses", "there is no address")
    options: dict[str, Any] = {
        "username": settings.redis_username or None,
        "password": settings.redis_password.get_secret_value() or None,
        "socket_timeout": settings.redis_read_timeout_s,
        "socket_connect_timeout": settings.redis_connect_timeout_s,
        "client_name": "signalbox-ratelimiter",
        "protocol": 2,
    }
    first = settings.redis_addresses[0]
    if first.startswith("unix:"):
        if settings.redis_mode != "single" or len(settings.redis_addresses) > 1:
            raise BadStoreSettings("redis_addresses", "a Unix socket leads to a single server")
        return OneServer(
            Redis(
                connection_pool=_pool(
                    settings,
                    UnixConnection,
                    {**options, "path": first.removeprefix("unix:"), "db": settings.redis_db},
                )
            )
        )
    addresses = [_address(text) for text in settings.redis_addresses]
    tls = _tls(settings)
    match settings.redis_mode:
        case "single":
            if len(addresses) > 1:
                raise BadStoreSettings(
                    "redis_addresses", "a single server has one address; set redis_mode for more"
                )
            host, port = addresses[0]
            where = {**options, **tls, "host": host, "port": port, "db": settings.redis_db}
            kind = SSLConnection if tls else Connection
            return OneServer(Redis(connection_pool=_pool(settings, kind, where)))
        case "sentinel":
            return OneServer(_by_sentinel(settings, addresses, options, tls))
        case "cluster":
            return Cluster(
                RedisCluster(
                    startup_nodes=[ClusterNode(host, port) for host, port in addresses],
                    max_connections=settings.redis_pool_size,
                    require_full_coverage=False,
                    retry=_NEVER,
                    ssl=bool(tls),
                    **options,
                    **tls,
                )
            )


def _pool(
    settings: RatelimiterSettings, kind: type[AbstractConnection], options: dict[str, Any]
) -> "BlockingConnectionPool":
    return BlockingConnectionPool(
        connection_class=kind,
        max_connections=settings.redis_pool_size,
        timeout=settings.redis_read_timeout_s,
        retry=_NEVER,
        **options,
    )


def _by_sentinel(
    settings: RatelimiterSettings,
    addresses: list[tuple[str, int]],
    options: dict[str, Any],
    tls: dict[str, Any],
) -> "Redis":
    encrypted = {"ssl": True, **tls} if tls else {}
    sentinel = Sentinel(  # type: ignore[no-untyped-call]
        addresses,
        sentinel_kwargs={
            "username": settings.redis_sentinel_username or None,
            "password": settings.redis_sentinel_password.get_secret_value() or None,
            "socket_timeout": settings.redis_read_timeout_s,
            "socket_connect_timeout": settings.redis_connect_timeout_s,
            "retry": _NEVER,
            **encrypted,
        },
        **options,
        **encrypted,
    )
    primary: Redis = sentinel.master_for(
        settings.redis_sentinel_service,
        db=settings.redis_db,
        retry=_NEVER,
        max_connections=settings.redis_pool_size,
    )
    return primary


def _tls(settings: RatelimiterSettings) -> dict[str, Any]:
    if not settings.redis_tls:
        return {}
    options: dict[str, Any] = {
        "ssl_cert_reqs": "required",
        "ssl_check_hostname": settings.redis_tls_verify_host,
    }
    for setting, name in (
        ("redis_tls_ca_file", "ssl_ca_certs"),
        ("redis_tls_certificate_file", "ssl_certfile"),
        ("redis_tls_key_file", "ssl_keyfile"),
    ):
        path = getattr(settings, setting)
        if path is not None:
            if not path.is_file():
                raise BadStoreSettings(setting, f"{path} is not a file")
            options[name] = str(path)
    return options


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) <= 65535:
        raise BadStoreSettings("redis_addresses", f"{text!r} is not host:port or unix:/path")
    return host.strip("[]"), int(port)
