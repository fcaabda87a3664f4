"""Commands that start, stop and look after a gateway on this machine."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compose.errors import ComposeError, NotRunning
from ctl.errors import ExitCode, Misused, NotReachable, Refused

if TYPE_CHECKING:
    from compose.data_folder import DataFolder
    from compose.settings import Settings

_SECTION = "Gateway"
Tier = Annotated[
    str | None,
    typer.Option("--tier", metavar="TIER", help="basic stores nothing; standard keeps everything."),
]
Data = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help="Folder of the gateway [default: ~/.signalbox]."),
]
Config = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Settings as TOML; see docs/settings.md."),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any setting; may be repeated."),
]


def register(app: typer.Typer) -> None:
    """Add the commands to `app`."""
    for name, command in (
        ("up", up),
        ("down", down),
        ("logs", logs),
        ("run", run),
        ("doctor", doctor),
    ):
        app.command(name, rich_help_panel=_SECTION)(command)


def up(
    tier: Tier = None,
    data: Data = None,
    config: Config = None,
    demo: Annotated[
        bool | None,
        typer.Option("--demo", help="Also start a sample backend and publish a sample API."),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when it is ready; `down` stops it.")
    ] = False,
    free_ports: Annotated[
        bool, typer.Option("--free-ports", help="Use another port where one is taken.")
    ] = False,
    assignments: Set = None,
) -> None:
    """Start the gateway here: router, broker, and all components.

    It runs until Ctrl-C, or `signalbox down` when it was started with --detach.

    \b
    Examples:
      signalbox up --demo
      signalbox up --tier basic --set http_port=80 --set https_port=443
      signalbox up --config gateway.toml --detach
    """
    with _told():
        from compose.launch import become_supervisor, prepared, start_detached  # noqa: PLC0415
        from compose.running import own_start  # noqa: PLC0415

        options = {"tier": tier, "data": data, "demo": demo}
        settings = _settings(config, options, assignments or [])
        with prepared(settings, began=own_start(), free_ports=free_ports, detach=detach) as launch:
            if not detach:
                become_supervisor(launch)
            took_s = start_detached(launch)
            typer.echo(f"ready in {took_s:.1f} s")
            for line in launch.banner:
                typer.echo(line)


def down(
    data: Data = None,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=0, metavar="SECONDS", help="How long to wait for it.")
    ] = 60.0,
) -> None:
    """Stop the gateway of the data folder, and wait until it is gone.

    Requests in flight are answered first (setting drain_timeout_s).

    \b
    Examples:
      signalbox down
      signalbox down --data /srv/gateway --timeout 10
    """
    with _told():
        from compose.running import stop  # noqa: PLC0415

        pid = stop(_folder(data), timeout_s)
        typer.echo(f"stopped (pid {pid})")


def logs(
    component: Annotated[
        str | None,
        typer.Argument(metavar="[PROCESS]", help="components, envoy, nats-server, supervisor, ..."),
    ] = None,
    data: Data = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, metavar="N", help="Begin with the last N lines.")
    ] = 100,
) -> None:
    """Show the logs of the gateway's processes, one or all together.

    \b
    Examples:
      signalbox logs --follow
      signalbox logs envoy --lines 20
    """
    with _told():
        from compose.log_reading import follow_lines, last_lines, log_files  # noqa: PLC0415

        files = log_files(_folder(data).logs)
        if component is not None and component not in files:
            known = ", ".join(sorted(files)) or "none yet"
            raise Misused(f"there is no log of {component!r}; there are: {known}")
        chosen = {component: files[component]} if component else files
        width = max(map(len, chosen), default=0) if len(chosen) > 1 else 0
        for name, line in last_lines(chosen, lines):
            _log_line(name, line, width)
        if follow:
            try:
                for name, line in follow_lines(chosen):
                    _log_line(name, line, width)
            except KeyboardInterrupt:
                raise typer.Exit(ExitCode.INTERRUPTED) from None


def _log_line(name: str, line: str, width: int) -> None:
    typer.echo(f"{name:<{width}} | {line}" if width else line)


def run(
    component: Annotated[
        str,
        typer.Argument(
            metavar="COMPONENT",
            help="controller, xds, analytics, policy-engine, engine-worker, router or all.",
        ),
    ],
    tier: Tier = None,
    data: Data = None,
    config: Config = None,
    assignments: Set = None,
) -> None:
    """Run one component alone, against a broker that runs elsewhere (setting nats_url).

    The same code as in `up`; one process, no children, log to stderr. `router` is Envoy;
    it finds the others by xds_target, access_log_target and engine_targets. `engine-worker` runs
    Python policies, and shares the data folder with the policy engine. Beside `up` on one machine a
    router needs its own router_name, http_port, https_port and envoy_admin_port.

    \b
    Examples:
      SIGNALBOX_NATS_URL=nats://nats:4222 signalbox run controller
      signalbox run router --config router.toml
      signalbox run router --set router_name=second --set http_port=8081 --set https_port=8444
    """
    with _told():
        from compose.alone import COMPONENTS, become_router, run_components  # noqa: PLC0415

        if component not in COMPONENTS:
            raise Misused(f"unknown component {component!r}: use one of {', '.join(COMPONENTS)}")
        settings = _settings(config, {"tier": tier, "data": data}, assignments or [])
        if component == "router":
            become_router(settings)
        raise typer.Exit(run_components(settings, component))


def doctor(
    tier: Tier = None, data: Data = None, config: Config = None, assignments: Set = None
) -> None:
    """Check whether a gateway can run here, and whether the one that runs is well.

    Each line says ok or failed, and what to do. The exit code is 0 when all is well.

    \b
    Examples:
      signalbox doctor
      signalbox doctor --tier basic --config gateway.toml
    """
    with _told():
        from compose.diagnosis import findings  # noqa: PLC0415

        settings = _settings(config, {"tier": tier, "data": data}, assignments or [])
        failed = 0
        for finding in findings(settings):
            failed += not finding.ok
            typer.echo(f"{'ok' if finding.ok else 'failed':<7} {finding.what}: {finding.told}")
            if not finding.ok:
                typer.echo(f"        {finding.remedy}")
        if failed:
            typer.echo(f"{failed} of the checks failed")
            raise typer.Exit(ExitCode.REFUSED)


def _settings(
    config: Path | None, options: Mapping[str, object], assignments: list[str]
) -> "Settings":
    """All sources merged; warnings go to stderr. Raises BadSettings, Misused."""
    from compose.settings import load  # noqa: PLC0415

    given = {name: (f"--{name}", value) for name, value in options.items() if value is not None}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals:
            raise Misused(f"--set {assignment}: write KEY=VALUE")
        name = key.strip().rpartition(".")[2].lower().replace("-", "_")
        given[name] = (f"--set {key.strip()}", value)
    loaded = load(config=config, environment=os.environ, command_line=given)
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)
    return loaded.settings


def _folder(data: Path | None) -> "DataFolder":
    from compose.data_folder import DataFolder  # noqa: PLC0415

    if data is None:
        data = _settings(None, {}, []).gateway.data
    return DataFolder(data.expanduser().absolute())


@contextmanager
def _told() -> Iterator[None]:
    """Errors of the composition as errors of the command line."""
    try:
        yield
    except NotRunning as error:
        raise NotReachable(str(error)) from error
    except ComposeError as error:
        first, *rest = str(error).splitlines()
        raise Refused(first, rest) from error
