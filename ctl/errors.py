"""What can go wrong for somebody at the command line, and the exit code that tells a script.

* CtlError
  - Refused         the gateway, or a check made before asking it, says no: read the message
    - NotAllowed    wrong user or password, or a role that may not do this
  - Misused         the command was called wrongly
  - NotReachable    no gateway answers there: start it, or name the right address
  - NotFound        no such resource
  - NotLive         accepted, but a router refused it or did not confirm it in time
  - Different       `--dry-run` found differences
"""

from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What the process answers to the shell."""

    OK = 0
    REFUSED = 1
    MISUSED = 2
    NOT_REACHABLE = 3
    NOT_FOUND = 4
    NOT_LIVE = 5
    DIFFERENT = 6
    INTERRUPTED = 130

    @property
    def meaning(self) -> str:
        """One line for `signalbox --help` and the documentation."""
        return _MEANING[self]


_MEANING = {
    ExitCode.OK: "done, and live where that was asked for",
    ExitCode.REFUSED: "refused: invalid, in conflict, or not allowed; the message names the field",
    ExitCode.MISUSED: (
        "the command was called wrongly, or a file cannot be read, or `plan` found changes"
    ),
    ExitCode.NOT_REACHABLE: "no gateway answers at the address",
    ExitCode.NOT_FOUND: "no such resource",
    ExitCode.NOT_LIVE: "accepted, but refused by a router or not live in time",
    ExitCode.DIFFERENT: "--dry-run found differences",
    ExitCode.INTERRUPTED: "interrupted",
}


class CtlError(Exception):
    """A sentence for the user; `details` are further lines, one finding each."""

    exit_code = ExitCode.REFUSED

    def __init__(self, message: str, details: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.details = tuple(details)


class Refused(CtlError):
    """The gateway, or a check before asking it, says no."""

    def __init__(
        self,
        message: str,
        details: Iterable[str] = (),
        *,
        status: int | None = None,
        faults: Iterable[tuple[str, str]] = (),
    ) -> None:
        super().__init__(message, details)
        self.status = status  # HTTP status, None when nothing was sent
        self.faults = tuple(faults)  # (field, message), as the gateway named them


class NotAllowed(Refused):
    """Wrong user or password, or a role that may not do this."""


class Misused(CtlError):
    """The command was called wrongly."""

    exit_code = ExitCode.MISUSED


class NotReachable(CtlError):
    """No gateway answers."""

    exit_code = ExitCode.NOT_REACHABLE


class NotFound(CtlError):
    """No such resource."""

    exit_code = ExitCode.NOT_FOUND


class NotLive(CtlError):
    """Accepted, but a router refused it or did not confirm it in time."""

    exit_code = ExitCode.NOT_LIVE


class Different(CtlError):
    """`--dry-run` found differences."""

    exit_code = ExitCode.DIFFERENT
