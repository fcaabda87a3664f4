"""Which TCP ports a gateway needs, whether they are free, and who has them."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from compose.errors import PortTaken
from compose.settings import Settings, tables, variable

_LISTENING = "0A"  # the state's code in /proc/net/tcp


@dataclass(frozen=True, slots=True)
class _Needed:
    """A port setting, and where it is bound."""

    name: str  # of the setting
    address: Callable[[Settings], str]
    zero_is_off: bool = False  # else 0 picks a free one


def _loopback(_: Settings) -> str:
    return "127.0.0.1"


_NEEDED = (
    _Needed("http_port", lambda s: s.xds.http_address, zero_is_off=True),
    _Needed("https_port", lambda s: s.xds.http_address, zero_is_off=True),
    _Needed("management_port", lambda s: s.controller.management_address),
    _Needed("admin_port", lambda s: s.controller.management_address),
    _Needed("metrics_port", lambda s: s.controller.management_address),
    _Needed("envoy_admin_port", _loopback),
    _Needed("engine_admin_port", lambda s: s.policy_engine.engine_admin_address),
    _Needed("engine_metrics_port", lambda s: s.policy_engine.engine_admin_address),
    _Needed("xds_port", lambda s: s.xds.xds_address, zero_is_off=True),
    _Needed("access_log_port", lambda s: s.analytics.access_log_host),
    _Needed("nats_port", _loopback),
    _Needed("demo_port", _loopback),
)


def settled(settings: Settings, *, free_ports: bool = False) -> Settings:
    """`settings` with a number for every port that is used. Raises PortTaken, naming who has it.

    A port of 0 becomes a free one. With `free_ports` so does one that is taken.
    """
    problems: list[str] = []
    chosen: dict[str, object] = {}
    with ExitStack() as held:  # hold each until all are found: no two may be the same
        for needed in _wanted(settings):
            port, address = _value(settings, needed.name), needed.address(settings)
            listener = _bound(address, port)
            if listener is None and free_ports:
                listener = _bound(address, 0)
            if listener is None:
                twin = next((name for name, taken in chosen.items() if taken == port), None)
                problems.append(_taken(needed.name, port, twin))
                continue
            held.enter_context(listener)
            chosen[needed.name] = listener.getsockname()[1]
    if problems:
        raise PortTaken(problems)
    changed = {name: port for name, port in chosen.items() if port != _value(settings, name)}
    return settings.with_values(**changed)


def _wanted(settings: Settings) -> Iterator[_Needed]:
    """Fixed numbers first, so that none of them is picked for a port of 0."""
    for fixed in (True, False):
        for needed in _NEEDED:
            port = _value(settings, needed.name)
            if port is None or (port == 0 and needed.zero_is_off) or bool(port) != fixed:
                continue
            if needed.name == "demo_port" and not settings.gateway.demo:
                continue
            yield needed


def _value(settings: Settings, name: str) -> int:
    value: int = getattr(getattr(settings, tables()[name]), name)
    return value


def _bound(address: str, port: int) -> socket.socket | None:
    """A socket on that port, None when it is taken or the address is not of this machine."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
        listener.listen(1)
    except OSError:
        listener.close()
        return None
    return listener


def _taken(name: str, port: int, twin: str | None) -> str:
    choice = f"choose another with {variable(name)} or --set {name}=PORT, or use --free-ports"
    if twin is not None:
        return f"port {port} ({variable(name)}) is also {variable(twin)}; {choice}"
    owner = owner_of(port)
    if owner is not None:
        return f"port {port} ({variable(name)}) is taken by pid {owner[0]} ({owner[1]}); {choice}"
    if port < 1024:
        return f"port {port} ({variable(name)}) is taken, or only for root; {choice}"
    return f"port {port} ({variable(name)}) is taken by another user's process; {choice}"


def owner_of(port: int) -> tuple[int, str] | None:
    """Pid and name of the process that listens on `port`, as far as this user may see it."""
    inodes = {f"socket:[{inode}]" for inode in _listeners(port)}
    if not inodes:
        return None
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if any(str(file.readlink()) in inodes for file in (process / "fd").iterdir()):
                return int(process.name), (process / "comm").read_text().strip()
        except OSError:  # gone meanwhile, or another user's
            continue
    return None


def _listeners(port: int) -> Iterator[str]:
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        try:
            lines = table.read_text().splitlines()[1:]
        except OSError:  # not Linux, or no such family
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]
