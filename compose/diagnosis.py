"""`signalbox doctor`: can a gateway run here, and is the one that runs well?"""

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import httpx

from compose.data_folder import DataFolder
from compose.errors import ComposeError, PortTaken
from compose.ports import settled
from compose.running import processes
from compose.servers import binary, servers, version
from compose.settings import Settings

_LEAST_DISK_BYTES = 200 << 20
_LEAST_FILES = 4096
_CLOCK_TOLERANCE_S = 5.0
_TIMEOUT_S = 3.0
_LEAST_PYTHON = (3, 11)


@dataclass(frozen=True, slots=True)
class Finding:
    """One check."""

    what: str
    ok: bool
    told: str
    remedy: str = ""  # what to do when it is not ok


def findings(settings: Settings) -> Iterator[Finding]:
    """All checks, in the order in which they depend on one another."""
    yield _python()
    for server in servers(settings):
        yield _checked(
            server.name,
            lambda server=server: version(server, binary(server, settings)),  # type: ignore[misc]
        )
    folder = DataFolder(settings.gateway.data.expanduser().absolute())
    writable = _checked("data folder", lambda: _created(folder))
    yield writable
    if writable.ok:
        yield _disk(folder)
    yield _open_files()
    yield _clock_moves()
    if folder.holder() is None:
        yield from _ports(settings)
        yield Finding("gateway", ok=True, told=f"none runs on {folder.root}")
    else:
        yield from _running(folder, settings)


def _python() -> Finding:
    told = ".".join(map(str, sys.version_info[:3]))
    least = ".".join(map(str, _LEAST_PYTHON))
    return Finding(
        "python", sys.version_info >= _LEAST_PYTHON, told, f"install Python {least} or newer"
    )


def _checked(what: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(what, ok=True, told=check())
    except ComposeError as error:
        told, _, remedy = str(error).partition("; ")
        return Finding(what, ok=False, told=told, remedy=remedy)


def _created(folder: DataFolder) -> str:
    folder.create()
    mode = folder.root.stat().st_mode & 0o077
    return str(folder.root) if not mode else f"{folder.root} (others may look into it)"


def _disk(folder: DataFolder) -> Finding:
    free = shutil.disk_usage(folder.root).free
    return Finding(
        "disk",
        free >= _LEAST_DISK_BYTES,
        f"{free / (1 << 30):.1f} GiB free",
        f"free some space, or choose another data folder: {_LEAST_DISK_BYTES >> 20} MiB are needed",
    )


def _open_files() -> Finding:
    import resource  # noqa: PLC0415 - not on every system

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = soft == resource.RLIM_INFINITY or soft >= _LEAST_FILES or hard >= _LEAST_FILES
    return Finding(
        "open files", enough, f"limit {soft}", f"raise it: ulimit -n {_LEAST_FILES} or more"
    )


def _clock_moves() -> Finding:
    year = time.gmtime().tm_year
    return Finding(
        "clock",
        year >= 2025,
        time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "set the clock: keys expire and certificates are valid by it",
    )


def _ports(settings: Settings) -> Iterator[Finding]:
    try:
        settled(settings)
    except PortTaken as error:
        for problem in error.problems:
            told, _, remedy = problem.partition("; ")
            yield Finding("ports", ok=False, told=told, remedy=remedy)
    else:
        yield Finding("ports", ok=True, told="all free")


def _running(folder: DataFolder, settings: Settings) -> Iterator[Finding]:
    for process in processes(folder):
        again = f", started again {process.restarts} times" if process.restarts else ""
        size = f", {process.resident_bytes / 1e6:.0f} MB" if process.resident_bytes else ""
        yield Finding(
            process.name,
            process.state == "ready",
            f"{process.state}, pid {process.pid}{size}{again}",
            f"read its log: signalbox logs {process.name}",
        )
    health = f"http://127.0.0.1:{settings.controller.admin_port}/api/admin/v1/health"
    yield _reachable("controller", health)
    if settings.xds.http_port:
        router = f"http://127.0.0.1:{settings.xds.http_port}/_gateway-health/ready"
        yield _reachable("router", router)


def _reachable(what: str, url: str) -> Finding:
    remedy = f"read its log: signalbox logs; is {url} the right port for this data folder?"
    try:
        answer = httpx.get(url, timeout=_TIMEOUT_S, trust_env=False)
    except httpx.HTTPError as error:
        return Finding(what, ok=False, told=f"{url} does not answer: {error}", remedy=remedy)
    if answer.is_error:
        return Finding(what, ok=False, told=f"{url} answers {answer.status_code}", remedy=remedy)
    skew_s = _skew_s(answer)
    if skew_s > _CLOCK_TOLERANCE_S:
        told = f"{url} answers, but its clock is off by {skew_s:.0f} s"
        return Finding(what, ok=False, told=told, remedy="synchronise the clocks (NTP)")
    return Finding(what, ok=True, told=f"{url} answers")


def _skew_s(answer: httpx.Response) -> float:
    try:
        said = parsedate_to_datetime(answer.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return 0.0
    return abs(said - time.time())
