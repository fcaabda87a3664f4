"""`signalbox up`: check everything first, write a plan, then become the supervisor.

The process that starts the gateway becomes the small one that watches over it, so nothing of the
start stays in memory.
"""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from pydantic import SecretStr

from compose import tracing
from compose.data_folder import Credentials, DataFolder, credentials, write_private
from compose.errors import BadSettings, NotReady
from compose.ports import settled
from compose.running import read_state
from compose.servers import (
    ENVOY,
    NATS,
    VALKEY,
    binary,
    envoy_command,
    nats_command,
    servers,
    starts_valkey,
    valkey_command,
    version,
)
from compose.settings import Settings
from compose.supervisor.plan import LISTEN, Child, Drain, Plan, Probe
from xds.errors import BadCertificate, InsecureAddress
from xds.settings import XdsSettings

# -I -S: no site-packages; nothing but the standard library and compose.supervisor is imported
_SUPERVISOR = (
    "import sys; sys.path.insert(0, sys.argv[1]);"
    "from compose.supervisor.loop import supervise;"
    "sys.exit(supervise(sys.argv[2], int(sys.argv[3])))"
)
_POLL_S = 0.02
_TAIL_LINES = 12
_NATS_USER = "signalbox"


@dataclass(frozen=True, slots=True)
class Launch:
    """A gateway that is about to be started; its data folder is locked."""

    settings: Settings
    folder: DataFolder
    lock: int  # descriptor
    banner: tuple[str, ...]  # what the user needs to know once it is ready

    def command(self) -> list[str]:
        """The supervisor's."""
        place = str(Path(__file__).parents[1])
        plan = str(self.folder.plan_file)
        return [sys.executable, "-I", "-S", "-c", _SUPERVISOR, place, plan, str(self.lock)]


def become_supervisor(launch: Launch) -> NoReturn:
    """Replace this process by the supervisor; it prints how far it is, and stops on Ctrl-C."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.set_inheritable(launch.lock, True)
    command = launch.command()
    os.execv(command[0], command)  # noqa: S606 - ourselves


def start_detached(launch: Launch) -> float:
    """Start the supervisor in the background, wait until all is ready; seconds that it took.

    Raises NotReady.
    """
    launch.folder.state_file.unlink(missing_ok=True)
    supervisor = subprocess.Popen(  # noqa: S603 - ourselves
        launch.command(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=(launch.lock,),
    )
    while supervisor.poll() is None:
        state = read_state(launch.folder)
        if state.get("phase") == "ready":
            return float(state["ready_s"])
        time.sleep(_POLL_S)
    log = launch.folder.logs / "supervisor.log"
    tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
    raise NotReady("\n".join(["the gateway could not start:", *(f"  {line}" for line in tail)]))


@contextmanager
def prepared(
    settings: Settings, *, began: float, free_ports: bool = False, detach: bool = False
) -> Iterator[Launch]:
    """Check, write the plan, hold the lock. `began`: when the user asked, seconds since 1970.

    Raises DataFolderUnusable, AlreadyRunning, WrongVersion, PortTaken, BadSettings,
    TracingNotInstalled.
    """
    folder = DataFolder(settings.gateway.data.expanduser().absolute())
    folder.create()
    lock = folder.lock()
    try:
        with ThreadPoolExecutor(thread_name_prefix="version") as threads:
            binaries = {server: binary(server, settings) for server in servers(settings)}
            versions = [threads.submit(version, *one) for one in binaries.items()]
            tracing.check(settings.gateway)
            _check_certificate(settings.xds)
            settings = settled(settings, free_ports=free_ports)
            for one in versions:
                one.result()
        kept = credentials(folder)
        generated = settings.controller.admin_password is None
        broker = "nats_url" not in settings.bus.model_fields_set  # else the operator has one
        settings = _composed(settings, folder, kept, broker=broker)
        banner = tuple(_banner(settings, folder, show_password=generated and kept.new))
        plan = Plan(
            run_folder=str(folder.run),
            log_folder=str(folder.logs),
            children=tuple(
                _children(settings, folder, {s.name: p for s, p in binaries.items()}, broker=broker)
            ),
            started_at=began,
            banner=() if detach else banner,
            start_timeout_s=settings.gateway.start_timeout_s,
            restart_pause_s=settings.gateway.restart_pause_s,
            restart_pause_max_s=settings.gateway.restart_pause_max_s,
            stop_timeout_s=settings.gateway.stop_timeout_s,
            log_max_bytes=settings.gateway.log_max_bytes,
        )
        write_private(folder.settings_file, json.dumps(settings.dump(), indent=1))
        write_private(folder.client_file, json.dumps(_client(settings), indent=1))
        write_private(folder.plan_file, plan.to_json())
        yield Launch(settings, folder, lock, banner)
    finally:
        os.close(lock)


def _check_certificate(settings: XdsSettings) -> None:
    """Whether the user's certificates can be used, before anything is started with them."""
    if settings.xds_port:
        from xds.certificates import check_service  # noqa: PLC0415 - as below

        try:
            check_service(settings)
        except (BadCertificate, InsecureAddress) as error:
            raise BadSettings([str(error)]) from error
    files = settings.tls_certificate_file, settings.tls_key_file
    if not settings.https_port or files == (None, None):
        return
    from xds.certificates import load  # noqa: PLC0415 - slow, and seldom needed here

    if files[0] is None or files[1] is None:
        raise BadSettings(["tls_certificate_file and tls_key_file must be given together"])
    try:
        load(files[0], files[1])
    except BadCertificate as error:
        raise BadSettings([str(error)]) from error


def _composed(
    settings: Settings, folder: DataFolder, kept: Credentials, *, broker: bool
) -> Settings:
    """`settings` with what follows from all processes being on one machine."""
    changed: dict[str, object] = {"data": folder.root}
    if settings.controller.admin_password is None:
        changed["admin_password"] = SecretStr(kept.admin_password)
    changed |= in_folder(settings, folder)
    if broker:
        changed |= {
            "nats_url": f"nats://127.0.0.1:{settings.gateway.nats_port}",
            "nats_user": _NATS_USER,
            "nats_password": SecretStr(kept.nats_password),
            "nats_storage": "memory" if settings.gateway.tier == "basic" else "file",
        }
    return settings.with_values(**changed)


def in_folder(settings: Settings, folder: DataFolder) -> dict[str, object]:
    """The data folder's sockets where none are named, and what a rate limiter there entails."""
    changed: dict[str, object] = {}
    if settings.xds.xds_socket is None:
        changed["xds_socket"] = folder.xds_socket
    if settings.analytics.access_log_socket is None:
        changed["access_log_socket"] = folder.access_log_socket
    if settings.policy_engine.engine_feed_socket is None:
        changed["engine_feed_socket"] = folder.engine_socket
    if settings.gateway.tier == "standard":
        changed |= _limits_shared(settings, folder)
    return changed


def _limits_shared(settings: Settings, folder: DataFolder) -> dict[str, object]:
    """What follows for settings from a rate limiter that runs in the data folder."""
    changed: dict[str, object] = {}
    if "rate_limiter" not in settings.policies.model_fields_set:
        changed["rate_limiter"] = True
    if settings.ratelimiter.ratelimiter_socket is None:
        changed["ratelimiter_socket"] = folder.ratelimiter_socket
    if settings.ratelimiter.ratelimiter_quota_socket is None:
        changed["ratelimiter_quota_socket"] = folder.quota_socket
    if starts_valkey(settings):
        changed["redis_addresses"] = (f"unix:{folder.valkey_socket}",)
    return changed


def _children(
    settings: Settings, folder: DataFolder, binaries: dict[str, Path], *, broker: bool
) -> Iterator[Child]:
    """In the order of their start, as far as one waits for another; they stop the other way."""
    gateway = settings.gateway
    if broker:
        yield Child(
            name="nats-server",
            argv=nats_command(settings, folder, binaries[NATS.name]),
            ready=Probe("tcp", f"127.0.0.1:{gateway.nats_port}"),
            env={},
            orphan_signal="SIGTERM",  # it puts its files in order
        )
    if VALKEY.name in binaries:
        yield Child(
            name="valkey",
            argv=valkey_command(settings, folder, binaries[VALKEY.name]),
            ready=Probe("unix", str(folder.valkey_socket)),
            env={},
        )
    yield Child(
        name="components",
        argv=(sys.executable, "-P", "-m", "compose.components", str(folder.settings_file), LISTEN),
        ready=Probe("file", str(folder.ready_file)),
        listen=str(settings.analytics.access_log_socket),  # routers stay connected over a restart
        env={
            "MALLOC_ARENA_MAX": str(gateway.malloc_arenas),
            "PYTHONUNBUFFERED": "1",
        },
    )
    for number in range(settings.policy_engine.engine_workers):
        yield Child(
            name=f"engine-{number}",
            argv=(
                *(sys.executable, "-P", "-m", "compose.engine_worker"),
                *(str(folder.settings_file), str(number), LISTEN),
            ),
            ready=Probe("file", str(folder.run / f"engine-{number}.ready")),
            listen=str(folder.worker_socket(number)),  # calls wait while it starts again
            env={
                "MALLOC_ARENA_MAX": str(gateway.malloc_arenas),
                "PYTHONUNBUFFERED": "1",
            },
        )
    if gateway.demo:
        yield Child(
            name="demo-backend",
            argv=(sys.executable, "-P", "-m", "compose.demo_backend", str(gateway.demo_port)),
            ready=Probe("tcp", f"127.0.0.1:{gateway.demo_port}"),
            env={},
        )
    yield Child(
        name="envoy",
        argv=envoy_command(settings, folder, binaries[ENVOY.name], node=router_name(settings)),
        ready=Probe("http", f"127.0.0.1:{settings.xds.envoy_admin_port}/ready"),
        env={},
        after=Probe("unix", str(settings.xds.xds_socket)),
        drain=Drain(settings.xds.envoy_admin_port, gateway.drain_timeout_s),
    )


def router_name(settings: Settings) -> str:
    """The node id that the router reports as."""
    return settings.gateway.router_name or f"{socket.gethostname()}-{settings.gateway.gateway}"


def _client(settings: Settings) -> dict[str, str]:
    password = settings.controller.admin_password
    return {
        "url": _url(settings.controller.management_address, settings.controller.management_port),
        "user": settings.controller.admin_user,
        "password": password.get_secret_value() if password else "",
        "nats_url": settings.bus.nats_url,
        "nats_user": settings.bus.nats_user,
        "nats_password": settings.bus.nats_password.get_secret_value(),
    }


def _url(address: str, port: int, scheme: str = "http") -> str:
    """How somebody on this machine reaches what listens there."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(address, address)  # noqa: S104
    return f"{scheme}://{host}:{port}"


def _banner(settings: Settings, folder: DataFolder, *, show_password: bool) -> Iterator[str]:
    xds, controller = settings.xds, settings.controller
    management = _url(controller.management_address, controller.management_port)
    yield ""
    yield f"Signalbox is ready: tier {settings.gateway.tier}, data in {folder.root}"
    yield ""
    if xds.http_port:
        yield f"  gateway     {_url(xds.http_address, xds.http_port)}"
    if xds.https_port:
        yield f"              {_url(xds.http_address, xds.https_port, 'https')}"
    yield f"  management  {management}/api/management/v1"
    yield f"  user        {controller.admin_user}"
    if show_password and controller.admin_password is not None:
        yield f"  password    {controller.admin_password.get_secret_value()}"
        yield f"              shown this once; kept in {folder.client_file}"
    else:
        yield f"  password    in {folder.client_file}"
    if settings.gateway.demo and xds.http_port:
        yield f"  try         curl {_url(xds.http_address, xds.http_port)}/hello/v1/greetings/you"
    yield ""
