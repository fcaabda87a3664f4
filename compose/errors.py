"""What can go wrong when a gateway is put together; each message is for the person who started it.

* ComposeError
  - BadSettings           correct the named settings
  - DataFolderUnusable    choose another data folder, or give it to this user
  - AlreadyRunning        a gateway runs on this data folder: stop it, or choose another
  - NotRunning            no gateway runs on this data folder
  - PortTaken             choose another port, or stop who has it
  - WrongVersion          install the server that belongs to this version of Signalbox
  - NotReady              the gateway did not become ready; its logs say why
  - TracingNotInstalled   install the extra, or do without traces
  - ComponentEnded        a component ended although nobody asked it to
"""

from collections.abc import Sequence
from pathlib import Path


class ComposeError(Exception):
    """The gateway cannot be put together like this."""


class BadSettings(ComposeError):
    """Settings that are unknown, of the wrong type, or contradict one another."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)  # one sentence each


class DataFolderUnusable(ComposeError):
    """The data folder cannot be created or written."""

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(
            f"the data folder {folder} cannot be used: {reason}; choose another with --data DIR"
            " (SIGNALBOX_DATA), or give this one to the user who runs the gateway"
        )
        self.folder = folder


class AlreadyRunning(ComposeError):
    """Another gateway holds the data folder."""

    def __init__(self, folder: Path, pid: int | None) -> None:
        who = f"pid {pid}" if pid else "another process"
        super().__init__(
            f"a gateway already runs on the data folder {folder} ({who});"
            " stop it with `signalbox down`, or choose another folder with --data DIR"
        )
        self.pid = pid


class NotRunning(ComposeError):
    """Nobody holds the data folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"no gateway runs on the data folder {folder}")


class PortTaken(ComposeError):
    """Ports that the gateway needs are in use."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


class WrongVersion(ComposeError):
    """A server binary is missing, does not run, or is not the expected version."""


class NotReady(ComposeError):
    """The gateway started, but did not become ready."""


class TracingNotInstalled(ComposeError):
    """Traces are asked for, but the packages that send them are not there."""

    def __init__(self) -> None:
        super().__init__(
            "SIGNALBOX_OTLP_ENDPOINT is set, but tracing is not installed;"
            " install it with: pip install 'signalbox[tracing]'"
        )


class ComponentEnded(ComposeError):
    """A component that should run until it is stopped has returned."""

    def __init__(self, component: str) -> None:
        super().__init__(f"the component {component} ended although nobody asked it to")
        self.component = component
