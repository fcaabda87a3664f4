"""The folder that everything of one gateway lives in, and the lock that keeps a second one out."""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from compose.errors import AlreadyRunning, DataFolderUnusable

_SOCKET_PATH_BYTES = 107  # sockaddr_un of Linux, less the final zero


@dataclass(frozen=True, slots=True)
class DataFolder:
    """Where things are. `root` is absolute."""

    root: Path

    @property
    def run(self) -> Path:
        """What only lives as long as the gateway: plan, state, sockets, configurations."""
        return self.root / "run"

    @property
    def logs(self) -> Path:
        """One file per process."""
        return self.root / "logs"

    @property
    def streams(self) -> Path:
        """The broker's files (tier Standard)."""
        return self.root / "jetstream"

    @property
    def policies(self) -> Path:
        """Policies of the operator's own, unless a setting names another folder."""
        return self.root / "policies"

    @property
    def client_file(self) -> Path:
        """Address and credentials for the client commands."""
        return self.root / "client.json"

    @property
    def state_file(self) -> Path:
        """What the supervisor says about its children."""
        return self.run / "state.json"

    @property
    def plan_file(self) -> Path:
        """What the supervisor is told."""
        return self.run / "plan.json"

    @property
    def settings_file(self) -> Path:
        """The settings of the components' process, secrets included."""
        return self.run / "settings.json"

    @property
    def ready_file(self) -> Path:
        """There while every component of the Python process works."""
        return self.run / "components.ready"

    @property
    def xds_socket(self) -> Path:
        """Where the router gets its configuration."""
        return self.run / "xds.sock"

    @property
    def access_log_socket(self) -> Path:
        """Where the router delivers its access log."""
        return self.run / "access-log.sock"

    @property
    def ratelimiter_socket(self) -> Path:
        """Where the router asks for limits (tier Standard)."""
        return self.run / "ratelimiter.sock"

    @property
    def quota_socket(self) -> Path:
        """Where the router gets its shares of limits (tier Standard)."""
        return self.run / "quotas.sock"

    @property
    def ratelimiter_file(self) -> Path:
        """What the rate limiter says of its store (tier Standard)."""
        return self.run / "ratelimiter.json"

    @property
    def engine_socket(self) -> Path:
        """Where the engine's workers learn what to run."""
        return self.run / "engine.sock"

    @property
    def hops_file(self) -> Path:
        """What the engine has told its workers last; parameters of policies are in it."""
        return self.run / "hops.json"

    def worker_socket(self, number: int) -> Path:
        """Where the router has Python policies run."""
        return self.run / f"engine-{number}.sock"

    @property
    def valkey_socket(self) -> Path:
        """Where the counters are (tier Standard)."""
        return self.run / "valkey.sock"

    def create(self) -> None:
        """Make the folders, for this user only. Raises DataFolderUnusable."""
        sockets = (self.access_log_socket, self.xds_socket, self.ratelimiter_socket)
        longest = max(len(os.fsencode(path)) for path in sockets)
        if longest > _SOCKET_PATH_BYTES:
            too_long = longest - _SOCKET_PATH_BYTES
            raise DataFolderUnusable(
                self.root, f"its path is {too_long} bytes too long for Unix sockets in it"
            )
        try:
            for folder in (self.root, self.run, self.logs, self.policies):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            probe = self.run / ".writable"
            probe.write_bytes(b"")
            probe.unlink()
        except FileExistsError as error:
            raise DataFolderUnusable(self.root, f"{error.filename} is not a folder") from error
        except OSError as error:
            raise DataFolderUnusable(self.root, f"{error.filename}: {error.strerror}") from error

    def lock(self) -> int:
        """Take the lock and return its descriptor; it is let go when that closes everywhere.

        Raises AlreadyRunning, DataFolderUnusable.
        """
        try:
            descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise DataFolderUnusable(self.root, f"{error.filename}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _pid(os.pread(descriptor, 32, 0))
            os.close(descriptor)
            raise AlreadyRunning(self.root, holder) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor

    def holder(self) -> int | None:
        """The pid of the gateway that runs here; None when none does."""
        try:
            descriptor = os.open(self.root / "lock", os.O_RDONLY)
        except OSError:
            return None
        with _closing(descriptor):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _pid(os.pread(descriptor, 32, 0))
        return None


@contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


def _pid(content: bytes) -> int | None:
    text = content.decode("ascii", "replace").strip()
    return int(text) if text.isdigit() else None


def write_private(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all, readable by this user only."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    new.replace(path)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Passwords that nobody chose, kept so that they stay the same over restarts."""

    admin_password: str
    nats_password: str
    new: bool  # made just now: to be shown once

    def __repr__(self) -> str:
        return "Credentials(...)"


def credentials(folder: DataFolder) -> Credentials:
    """Those kept in `folder`; made on first use. Raises DataFolderUnusable."""
    path = folder.root / "credentials.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return Credentials(str(kept["admin_password"]), str(kept["nats_password"]), new=False)
    except FileNotFoundError:
        made = Credentials(secrets.token_urlsafe(15), secrets.token_urlsafe(24), new=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataFolderUnusable(folder.root, f"{path} cannot be read: {error}") from error
    write_private(
        path,
        json.dumps({"admin_password": made.admin_password, "nats_password": made.nats_password}),
    )
    return made
