"""What an operator can set about usage and reports."""

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_SOCKET_PATH_BYTES = 107  # sockaddr_un of Linux, less the final zero


class AnalyticsSettings(BaseModel):
    """Access log in, usage events out, totals kept."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    access_log_socket: Path | None = None
    """Unix socket on which routers of this machine deliver their access log.

    None: the composition chooses one in the data folder. Cheaper than TCP, and guarded by the
    file's permissions; at most 107 bytes long.
    """
    access_log_fd: int | None = Field(default=None, ge=0)
    """File descriptor of a listening socket that this process inherits; None: it opens its own.

    A supervisor that holds the socket keeps routers connected while this process restarts: what
    they log meanwhile waits, up to 16 MiB per worker thread of Envoy, and nothing is lost.
    """
    access_log_port: int | None = Field(default=None, ge=0, le=65535)
    """TCP port on which routers deliver their access log; None: no TCP, 0: any free port.

    For routers on other machines or in other containers. The protocol has no authentication of
    its own: keep the port inside a trusted network.
    """
    access_log_host: str = "127.0.0.1"
    """Address that the TCP port listens on."""
    usage_buffer_bytes: int = Field(default=32 << 20, ge=1 << 16)
    """Memory for usage events that the bus has not taken yet, bytes.

    When it is full, new entries are dropped, counted, and shown as a gap in the reports. 32 MiB
    hold about 150,000 requests.
    """
    usage_flush_interval_s: float = Field(default=1.0, gt=0, le=60)
    """How long usage events are gathered into one transaction, seconds.

    Longer means fewer writes, and reports that lag by as much.
    """
    usage_flush_batches: int = Field(default=200, ge=1, le=10_000)
    """How many usage events go into one transaction at most; bounds its memory and duration."""
    usage_minutes_retention_hours: int = Field(default=48, ge=1)
    """How long totals keep the resolution of a minute, hours; then they are added up to hours."""
    usage_retention_days: int = Field(default=90, ge=1)
    """How long totals are kept at all, days."""
    usage_memory_rows: int = Field(default=100_000, ge=1_000)
    """Totals kept when there is no database (tier Basic), rows of about 1 kB; the oldest go."""
    usage_metrics_apis: int = Field(default=500, ge=0)
    """APIs that have a label of their own in the metrics; later ones are counted as `(other)`.

    Bounds what Prometheus must store; reports know all APIs whatever this says.
    """
    analytics_database_url: str = ""
    """SQLAlchemy URL of the database of totals, with an asyncio driver.

    Empty: the controller's database. A database of its own keeps reporting away from it.
    """

    @model_validator(mode="after")
    def _socket_path_fits(self) -> Self:
        if self.access_log_socket and len(bytes(self.access_log_socket)) > _SOCKET_PATH_BYTES:
            raise ValueError(
                f"access_log_socket is longer than {_SOCKET_PATH_BYTES} bytes: "
                f"{self.access_log_socket}"
            )
        return self
