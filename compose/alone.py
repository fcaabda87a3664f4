"""`signalbox run COMPONENT`: one component of a gateway that is spread over machines."""

import os
from hashlib import sha256
from typing import NoReturn

from compose import components
from compose.data_folder import DataFolder
from compose.errors import BadSettings
from compose.launch import in_folder, router_name
from compose.servers import ENVOY, binary, envoy_command, version
from compose.settings import Settings, variable

ROUTER, WORKER, ALL = "router", "engine-worker", "all"
COMPONENTS = (*components.COMPONENTS, WORKER, ROUTER, ALL)


def run_components(settings: Settings, component: str) -> int:
    """Run it until it is told to stop; the exit status."""
    if component == WORKER:
        return _run_worker(_in_folder(settings))
    names = components.all_of(settings) if component == ALL else (component,)
    return components.run(_in_folder(settings), names)


def _run_worker(settings: Settings) -> int:
    """One worker, awake at once; the engine is found by its socket in the data folder."""
    from compose.engine_process import run_worker  # noqa: PLC0415 - with all policies

    folder = DataFolder(settings.gateway.data.expanduser().absolute())
    folder.create()
    engine = settings.policy_engine
    if engine.engine_worker_port:
        address = engine.engine_worker_address, engine.engine_worker_port
        return run_worker(settings, 0, address=address)
    return run_worker(settings, 0, path=folder.worker_socket(0))


def become_router(settings: Settings) -> NoReturn:
    """Replace this process by Envoy. Raises WrongVersion, DataFolderUnusable, BadSettings."""
    folder = DataFolder(settings.gateway.data.expanduser().absolute())
    folder.create()
    path = binary(ENVOY, settings)
    version(ENVOY, path)
    node = router_name(settings)
    command = envoy_command(
        _in_folder(settings),
        folder,
        path,
        node=node,
        ports=_own_ports(settings),
        file=f"router-{sha256(node.encode()).hexdigest()[:16]}.json",
        xds_address=_target(settings.gateway.xds_target, "xds_target"),
        access_log_address=_target(settings.gateway.access_log_target, "access_log_target"),
        ratelimiter_address=_target(settings.gateway.ratelimiter_target, "ratelimiter_target"),
        quota_address=_target(settings.gateway.quota_target, "quota_target"),
        engine_addresses=[
            address
            for text in settings.gateway.engine_targets
            if (address := _target(text, "engine_targets")) is not None
        ],
    )
    os.execv(command[0], command)  # noqa: S606 - the operator's own Envoy


def _own_ports(settings: Settings) -> dict[str, int]:
    """Where this router listens because somebody said so, by the name of the listener."""
    said = settings.xds.model_fields_set
    ports = {"http": settings.xds.http_port, "https": settings.xds.https_port}
    return {name: port for name, port in ports.items() if port and f"{name}_port" in said}


def _in_folder(settings: Settings) -> Settings:
    """`settings` with the data folder's sockets where none are named."""
    folder = DataFolder(settings.gateway.data.expanduser().absolute())
    return settings.with_values(data=folder.root, **in_folder(settings, folder))


def _target(text: str, name: str) -> tuple[str, int] | None:
    """`HOST:PORT`; None when it is empty. Raises BadSettings."""
    if not text:
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise BadSettings([f"{variable(name)}: must be HOST:PORT, not {text!r}"])
    return host.strip("[]"), int(port)
