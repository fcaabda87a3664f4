"""How a gateway is: its processes on this machine, its routers, its APIs."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from ctl.client import Client
from ctl.context import Connection
from ctl.kinds import REST_API

Json = dict[str, Any]
_HEALTH_TIMEOUT_S = 5.0
PORTS = ("http", "https", "management", "admin", "metrics", "engine_admin", "envoy_admin", "nats")
"""The ports that people use, by setting `<name>_port`."""


@dataclass(frozen=True, slots=True)
class Local:
    """What the data folder says of the gateway that runs from it."""

    pid: int | None  # of the supervisor; None when it does not run
    phase: str
    tier: str
    ports: dict[str, int]
    processes: list[Json]  # name, pid, state, restarts, last_exit
    limits: Json  # state, reason and since of the rate limiter; empty where none runs

    def as_document(self) -> Json:
        """For programs."""
        return {
            "pid": self.pid,
            "phase": self.phase,
            "tier": self.tier,
            "ports": self.ports,
            "processes": self.processes,
            "limits": self.limits,
        }


@dataclass(frozen=True, slots=True)
class Served:
    """What the management API says."""

    routers: list[Json]  # node, version, connected, revisions
    apis: list[Json]  # resources with their status

    @property
    def refused(self) -> list[Json]:
        """The APIs whose last revision is refused."""
        return [api for api in self.apis if api["status"].get("reason")]

    @property
    def at_fault(self) -> list[Json]:
        """The APIs whose policies come from files that are broken or gone."""
        return [api for api in self.apis if api["status"].get("fault")]

    @property
    def pending(self) -> list[Json]:
        """The APIs whose last revision is neither live everywhere nor refused."""
        return [
            api
            for api in self.apis
            if api not in self.refused
            and api["status"]["routers"]["live"] < max(1, len(self.routers))
        ]

    def current_on(self, router: Json) -> int:
        """How many APIs this router has in their last revision."""
        return sum(
            router["revisions"].get(api["metadata"]["name"], 0) >= api["status"]["revision"]
            for api in self.apis
        )

    @property
    def well(self) -> bool:
        """Whether there is a router and everything is live."""
        return bool(self.routers) and not (self.refused or self.pending or self.at_fault)

    def as_document(self) -> Json:
        """For programs."""
        states = [api["status"]["state"] for api in self.apis]
        return {
            "routers": [
                {
                    "node": router["node"],
                    "version": router["version"],
                    "connected": router["connected"],
                    "apis": self.current_on(router),
                }
                for router in self.routers
            ],
            "apis": {
                "total": len(self.apis),
                "deployed": states.count("deployed"),
                "undeployed": states.count("undeployed"),
                "live": len(self.apis) - len(self.refused) - len(self.pending),
                "pending": [api["metadata"]["name"] for api in self.pending],
                "refused": [
                    {
                        "name": api["metadata"]["name"],
                        "revision": api["status"]["revision"],
                        "reason": api["status"]["reason"],
                    }
                    for api in self.refused
                ],
                "faults": [
                    {"name": api["metadata"]["name"], "fault": api["status"]["fault"]}
                    for api in self.at_fault
                ],
            },
        }


def local(connection: Connection) -> Local | None:
    """What runs on this machine; None when the data folder is of another gateway, or of none."""
    if connection.url != str(connection.known.get("url") or "").rstrip("/"):
        return None
    from compose.data_folder import DataFolder  # noqa: PLC0415 - its settings take a while
    from compose.settings import Settings, sections  # noqa: PLC0415

    folder = DataFolder(connection.data.absolute())
    try:
        settings = Settings.restore(json.loads(folder.settings_file.read_text("utf-8")))
        state = json.loads(folder.state_file.read_text("utf-8"))
    except (OSError, ValueError):
        return None
    components = [getattr(settings, table) for table in sections()]
    ports = {
        name: int(getattr(one, f"{name}_port"))
        for name in PORTS
        for one in components
        if f"{name}_port" in type(one).model_fields
    }
    pid = folder.holder()
    return Local(
        pid=pid,
        phase=str(state.get("phase", "unknown")) if pid else "down",
        tier=settings.gateway.tier,
        ports=ports,
        processes=state.get("children", []) if pid else [],
        limits=_limits(folder.ratelimiter_file) if pid else {},
    )


def _limits(file: Path) -> Json:
    """What the rate limiter last said of its store; empty when none runs."""
    try:
        said = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    since_s = float(said["since"])
    since = datetime.fromtimestamp(since_s, UTC).isoformat(timespec="seconds") if since_s else ""
    return {"state": said["state"], "reason": said["reason"], "since": since}


async def health(connection: Connection, port: int | None) -> str:
    """What the admin API on this port of the gateway's host says: `healthy`, or why not."""
    if not port:
        return "unknown"
    host = httpx.URL(connection.url).host
    address = f"[{host}]" if ":" in host else host
    try:
        async with httpx.AsyncClient(verify=False, trust_env=False) as http:  # noqa: S501 - plain
            answer = await http.get(
                f"http://{address}:{port}/api/admin/v1/health", timeout=_HEALTH_TIMEOUT_S
            )
            said = answer.json()
            return " ".join(str(said[key]) for key in ("status", "reason") if key in said)
    except (httpx.HTTPError, ValueError) as error:
        return f"unknown: the admin API on port {port} does not answer ({error})"


async def served(client: Client) -> Served:
    """What the management API says. Raises NotReachable, NotAllowed."""
    routers = (await client.request("GET", "/routers"))["routers"]
    return Served(routers, await client.listed(REST_API.collection, REST_API.list_key))
