"""The composition root of the Python process: every component, or one, in one event loop.

`python -m compose.components SETTINGS DESCRIPTOR`: the file that the launcher wrote, and the
socket of the access log, which the supervisor holds open.
"""

import asyncio
import gc
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import uvloop

from compose import log_output
from compose.addressed_bus import AddressedBus
from compose.data_folder import DataFolder, write_private
from compose.errors import BadSettings, ComponentEnded, ComposeError
from compose.settings import Settings
from compose.tracing import tracing

if TYPE_CHECKING:
    from analytics.ports import TotalsStore
    from controller.ports import Record
    from policy_engine.catalogue import Catalogue

log = structlog.get_logger()

CONTROLLER, XDS, ANALYTICS, ENGINE = "controller", "xds", "analytics", "policy-engine"
RATELIMITER = "ratelimiter"
COMPONENTS = (CONTROLLER, XDS, ANALYTICS, ENGINE, RATELIMITER)
"""What runs in Python; the router is Envoy."""

_RECORD_FILE, _USAGE_FILE = "record.db", "usage.db"
_ASYNCIO_DRIVERS = {
    "sqlite": "+aiosqlite",
    "postgresql": "+asyncpg",
    "mysql": "+aiomysql",
    "mariadb": "+aiomysql",
    "oracle": "+oracledb_async",
    "mssql": "+aioodbc",
}
_FAILED, _STOPPED = 1, 0
_NO_COLLECTION_MAX_S = 60.0


@dataclass(slots=True)
class Readiness:
    """Which components do not work yet; calls `whole` once all do."""

    missing: set[str]
    whole: Callable[[], None]
    done: bool = field(default=False, init=False)

    def of(self, component: str) -> Callable[[], None]:
        """What the component calls when it works."""

        def works() -> None:
            self.missing.discard(component)
            if not self.missing and not self.done:
                self.done = True
                self.whole()

        return works


def all_of(settings: Settings) -> tuple[str, ...]:
    """The components of the tier: limits are shared in Standard only."""
    basic = settings.gateway.tier == "basic"
    return tuple(name for name in COMPONENTS if not (basic and name == RATELIMITER))


def run(settings: Settings, names: Collection[str]) -> int:
    """Run these components until SIGTERM or SIGINT; the exit status.

    One component that fails ends all: whoever watches over the process starts it again, and
    state comes back from the record and the bus.
    """
    # Only `exec` follows a fork here. gRPC would start its threads in the child before that, where
    # they crash now and then (grpcio 1.85), and with them Envoy's trial or that of a policy.
    os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
    log_output.configure(settings.gateway)
    try:
        with (
            tracing(settings.gateway, "all" if len(names) > 1 else next(iter(names))),
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(_until_stopped(_serve(settings, names)))
    except ComposeError as error:
        _tell(error)
        return _FAILED
    except BaseExceptionGroup as group:
        for leaf in _leaves(group):
            _tell(leaf)
        return _FAILED
    log.info("stopped")
    return _STOPPED


async def _until_stopped(work: Coroutine[Any, Any, None]) -> None:
    """Do `work` until it ends or a signal asks for the end."""
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(work, name="components")
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _tell(error: BaseException) -> None:
    """A sentence for what an operator can mend, a traceback for what only we can."""
    component = getattr(error, "__notes__", ["all"])[0]
    if _is_ours(error):
        log.error("cannot go on", component=component, reason=str(error))
    else:
        log.error("cannot go on", component=component, exc_info=error)


def _is_ours(error: BaseException) -> bool:
    """Whether the class is from one of the error trees, whose messages are written for people."""
    return type(error).__module__.endswith(".errors") and not isinstance(error, ComponentEnded)


async def _serve(settings: Settings, names: Collection[str]) -> None:
    gc.disable()  # until ready: state is loaded, and next to nothing of it is garbage
    asyncio.get_running_loop().call_later(_NO_COLLECTION_MAX_S, gc.enable)
    from bus.jetstream import JetStreamBus  # noqa: PLC0415 - after logging is set up
    from compose.signing_key import with_signing_key  # noqa: PLC0415
    from policy_engine import catalogue as policies  # noqa: PLC0415
    from policy_engine.loading import watched  # noqa: PLC0415

    folder = DataFolder(settings.gateway.data.expanduser().absolute())
    folder.create()
    catalogue = policies.load(system=with_signing_key(settings.policies, folder))
    own_policies = watched.folder_of(settings.policies, folder.root)
    watched.add(catalogue, own_policies)
    gateway = settings.gateway
    expected = {*names, "demo"} if gateway.demo and CONTROLLER in names else set(names)
    readiness = Readiness(expected, lambda: _all_ready(folder, names))
    async with (
        JetStreamBus.connect(settings.bus, name=f"signalbox {' '.join(sorted(names))}") as link,
        AsyncExitStack() as stores,
        asyncio.TaskGroup() as group,
    ):
        bus = AddressedBus(link, org=gateway.org, gateway=gateway.gateway)
        totals = None
        if ANALYTICS in names or (CONTROLLER in names and _shared_totals(settings)):
            totals = await stores.enter_async_context(_totals(settings, folder))
        record = None
        if CONTROLLER in names:
            record = await stores.enter_async_context(_record(settings, folder))
        group.create_task(watched.keep_current(catalogue, own_policies), name="watch policies")
        for name, work in _components(
            settings, names, readiness, folder, bus, catalogue, record, totals
        ):
            group.create_task(_lasting(name, work), name=name)
        if "demo" in expected:
            group.create_task(_demo(settings, readiness.of("demo")), name="demo")


def _components(
    settings: Settings,
    names: Collection[str],
    readiness: Readiness,
    folder: DataFolder,
    bus: AddressedBus,
    catalogue: "Catalogue",
    record: "Record | None",
    totals: "TotalsStore | None",
) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
    """Those of `names`, each imported only when it is to run."""
    readiness_of_controller = readiness.of(CONTROLLER)
    awake = None
    if XDS in names and ENGINE in names:
        from policy_engine.engine.awake import Awake  # noqa: PLC0415

        awake = Awake(settings.policy_engine.engine_workers)
    if XDS in names:
        from xds import service as xds  # noqa: PLC0415

        yield (
            XDS,
            xds.run(
                settings.xds,
                bus,
                catalogue,
                readiness.of(XDS),
                folder=folder.root,
                org=settings.gateway.org,
                gateway=settings.gateway.gateway,
                workers=awake,
            ),
        )
    if CONTROLLER in names and record is not None:
        from analytics.reports import reports_router  # noqa: PLC0415
        from compose.planning import plan_router, planner_of  # noqa: PLC0415
        from compose.policies_api import policies_router  # noqa: PLC0415
        from compose.subscription_usage import UsageFromTotals  # noqa: PLC0415
        from controller import service as controller  # noqa: PLC0415

        routers = [plan_router(planner_of(settings, catalogue)), policies_router(catalogue)]
        if totals is not None:
            routers.append(reports_router(totals))
        yield (
            CONTROLLER,
            controller.run(
                settings.controller,
                bus,
                record,
                catalogue,
                gateway_id=settings.gateway.gateway,
                time_zone=settings.policies.ratelimit_time_zone,
                usage=UsageFromTotals(totals) if totals is not None else None,
                extra_routers=routers,
                ready=lambda _: readiness_of_controller(),
            ),
        )
    if ANALYTICS in names and totals is not None:
        from analytics import service as analytics  # noqa: PLC0415

        yield (
            ANALYTICS,
            analytics.run(settings.analytics, bus, totals, ready=readiness.of(ANALYTICS)),
        )
    if ENGINE in names:
        from policy_engine.engine import service as engine  # noqa: PLC0415

        yield (
            ENGINE,
            engine.run(
                settings.policy_engine,
                bus,
                catalogue,
                readiness.of(ENGINE),
                hops_file=folder.hops_file,
                awake=awake,
            ),
        )

    if RATELIMITER in names:
        from ratelimiter import service as ratelimiter  # noqa: PLC0415

        yield (
            RATELIMITER,
            ratelimiter.run(
                settings.ratelimiter,
                bus,
                ready=readiness.of(RATELIMITER),
                health=lambda health: write_private(
                    folder.ratelimiter_file, json.dumps(asdict(health))
                ),
            ),
        )


async def _lasting(name: str, work: Coroutine[Any, Any, None]) -> None:
    """A component runs until it is cancelled; anything else is an error that names it."""
    try:
        await work
    except Exception as error:
        error.add_note(name)
        raise
    raise ComponentEnded(name)


async def _demo(settings: Settings, ready: Callable[[], None]) -> None:
    from compose import demo  # noqa: PLC0415

    await demo.publish(settings)
    ready()


def _all_ready(folder: DataFolder, names: Collection[str]) -> None:
    gc.collect()
    gc.freeze()  # what was imported and loaded stays: no collection looks at it again
    gc.enable()
    if {CONTROLLER, XDS, ANALYTICS, ENGINE} <= set(names):
        folder.ready_file.touch()
    log.info("ready", components=sorted(names))


def _shared_totals(settings: Settings) -> bool:
    """Whether another process can read what analytics counts."""
    return settings.gateway.tier == "standard"


@asynccontextmanager
async def _record(settings: Settings, folder: DataFolder) -> AsyncIterator["Record"]:
    if settings.gateway.tier == "basic":
        from controller.memory import MemoryRecord  # noqa: PLC0415

        record: Record = MemoryRecord()
    else:
        from controller.sql import SqlRecord  # noqa: PLC0415

        url = settings.controller.database_url.get_secret_value()
        record = await SqlRecord.open(url or f"sqlite:///{folder.root / _RECORD_FILE}")
    try:
        yield record
    finally:
        await record.close()


@asynccontextmanager
async def _totals(settings: Settings, folder: DataFolder) -> AsyncIterator["TotalsStore"]:
    if settings.gateway.tier == "basic":
        from analytics.memory import MemoryTotals  # noqa: PLC0415

        yield MemoryTotals(settings.analytics.usage_memory_rows)
        return
    from analytics.sql import open_totals  # noqa: PLC0415

    async with open_totals(totals_url(settings, folder)) as totals:
        yield totals


def totals_url(settings: Settings, folder: DataFolder) -> str:
    """The database of totals: its own, or the controller's unless that is a SQLite file.

    SQLite has one writer per file: counting must not make a change of an API wait.
    """
    own = settings.analytics.analytics_database_url
    shared = settings.controller.database_url.get_secret_value()
    if not own and shared.startswith("sqlite"):
        shared = ""
    scheme, separator, rest = (own or shared).partition("://")
    if not separator:
        return f"sqlite+aiosqlite:///{folder.root / _USAGE_FILE}"
    return f"{scheme}{_ASYNCIO_DRIVERS.get(scheme, '')}://{rest}"


def main(file: Path, access_log_fd: int) -> int:
    """Run every component with the settings of `file`, on the access log's inherited socket."""
    try:
        settings = Settings.restore(json.loads(file.read_text(encoding="utf-8")))
        settings = settings.with_values(access_log_fd=access_log_fd)
    except (OSError, ValueError, BadSettings) as error:
        sys.stderr.write(f"the settings of the launcher cannot be used: {error}\n")
        return _FAILED
    return run(settings, all_of(settings))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
