"""A whole gateway, started as a user starts it: `signalbox up` on free ports."""

import asyncio
import contextlib
import itertools
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

SIGNALBOX = Path(sys.executable).with_name("signalbox")
PASSWORD = "correct horse"
_READY_S = 60.0
_PORTS = (
    "HTTP_PORT",
    "HTTPS_PORT",
    "MANAGEMENT_PORT",
    "ADMIN_PORT",
    "METRICS_PORT",
    "ENGINE_ADMIN_PORT",
    "ENGINE_METRICS_PORT",
    "ENVOY_ADMIN_PORT",
)


class GatewayFailed(Exception):
    """The gateway did not become ready; the message ends with what it printed."""


_BELOW_EPHEMERAL = range(12_000, 32_000)  # the system gives none of these away by itself
_WORKERS_MAX = 8
_given: Iterator[int] | None = None


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on, and no other test is given."""
    global _given  # noqa: PLW0603 - one for the process
    if _given is None:
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        mine = list(_BELOW_EPHEMERAL[worker % _WORKERS_MAX :: _WORKERS_MAX])
        random.shuffle(mine)
        _given = itertools.cycle(mine)
    ports: list[int] = []
    while len(ports) < count:
        port = next(_given)
        with socket.socket() as trial:
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
        ports.append(port)
    return ports


@dataclass(slots=True)
class Gateway:
    """A running gateway."""

    folder: Path
    environment: dict[str, str]
    process: asyncio.subprocess.Process
    output: Path
    ready_s: float  # from the command to ready

    def port(self, name: str) -> int:
        """The port of setting `<name>_port`, such as `http` or `management`."""
        return int(self.environment[f"SIGNALBOX_{name.upper()}_PORT"])

    @property
    def url(self) -> str:
        """Where the router listens."""
        return f"http://127.0.0.1:{self.port('http')}"

    @property
    def management(self) -> str:
        """Base of the management API."""
        return f"http://127.0.0.1:{self.port('management')}/api/management/v1"

    def api(self) -> httpx.AsyncClient:
        """A client of the management API."""
        return httpx.AsyncClient(base_url=self.management, auth=("admin", PASSWORD), timeout=30)

    async def cli(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """Exit code, output and errors of `signalbox ARGUMENTS`."""
        process = await asyncio.create_subprocess_exec(
            str(SIGNALBOX),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=self.environment,
        )
        out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    def children(self) -> dict[str, int]:
        """Name -> process id of what the gateway consists of, from its own state file."""
        state = json.loads((self.folder / "run" / "state.json").read_text())
        return {one["name"]: int(one["pid"]) for one in state["children"] if one["pid"]}

    async def kill(self, name: str) -> int:
        """SIGKILL a child and wait until another process has taken its place; its id."""
        old = self.children()[name]
        os.kill(old, signal.SIGKILL)
        async with asyncio.timeout(30):
            while (new := self.children().get(name, old)) == old:
                await asyncio.sleep(0.02)
        return new


@asynccontextmanager
async def gateway(
    *,
    tier: str = "standard",
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = (),
) -> AsyncIterator[Gateway]:
    """`signalbox up --tier TIER`, ready, and stopped afterwards."""
    with contextlib.ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sbx-")))
        ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("SIGNALBOX_")}
        env = {
            **inherited,
            "SIGNALBOX_DATA": str(place),
            "SIGNALBOX_ADMIN_PASSWORD": PASSWORD,
            "SIGNALBOX_HTTP_ADDRESS": "127.0.0.1",
            "SIGNALBOX_XDS_PORT": "0",
            "SIGNALBOX_ENGINE_STUCK_S": "20",  # a machine may stand still longer than a hook may
            **{f"SIGNALBOX_{name}": str(port) for name, port in ports.items()},
            **(environment or {}),
        }
        place.mkdir(parents=True, exist_ok=True)
        output = place / "up.txt"
        began = time.monotonic()
        with output.open("wb") as stream:
            process = await asyncio.create_subprocess_exec(
                str(SIGNALBOX),
                *("up", "--tier", tier, *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=env,
            )
        made = Gateway(place, env, process, output, 0.0)
        try:
            await _until_ready(made)
            made.ready_s = time.monotonic() - began
            yield made
        finally:
            if process.returncode is None:
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), 30)
                except TimeoutError:
                    process.kill()
                    await process.wait()


async def _until_ready(made: Gateway) -> None:
    """Until the router answers on its health path and the management API is up."""
    questions = (
        f"{made.url}/_gateway-health/ready",
        f"http://127.0.0.1:{made.port('admin')}/api/admin/v1/health",
    )
    try:
        async with asyncio.timeout(_READY_S), httpx.AsyncClient() as client:
            for question in questions:
                while True:
                    if made.process.returncode is not None:
                        raise GatewayFailed(
                            f"`signalbox up` ended with {made.process.returncode}\n"
                            + made.output.read_text()
                        )
                    with contextlib.suppress(httpx.TransportError):
                        if (await client.get(question)).status_code == httpx.codes.OK:
                            break
                    await asyncio.sleep(0.01)
    except TimeoutError:
        raise GatewayFailed(f"not ready in {_READY_S} s\n{made.output.read_text()}") from None


def rest_api(name: str, upstream: str, **spec: Any) -> dict[str, Any]:
    """A RestApi document; `spec` replaces parts of a small default."""
    return {
        "apiVersion": "gateway.api-platform.wso2.com/v1",
        "kind": "RestApi",
        "metadata": {"name": name},
        "spec": {
            "displayName": name,
            "version": "v1",
            "context": f"/{name}",
            "upstream": {"main": {"url": upstream}},
            "operations": [{"method": "GET", "path": "/*"}],
            **spec,
        },
    }
