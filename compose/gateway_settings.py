"""Settings of the gateway as a whole: what is started, where it keeps things, how it logs."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class GatewaySettings(BaseModel):
    """What `signalbox up` starts, and how it watches over it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    tier: Literal["basic", "standard"] = "standard"
    """What is kept. `basic` stores nothing: after a stop the gateway is empty again.

    `standard` keeps APIs, keys and usage in a database and streams on disk, and starts Valkey;
    it costs about 40 MB more memory.
    """

    data: Path = Path("~/.signalbox")
    """Folder for everything a gateway writes: databases, streams, logs, sockets, credentials.

    One gateway per folder. Sockets live in it, so its path may be at most 80 bytes long.
    """

    org: str = Field(default="default", min_length=1)
    """Organization whose gateway this is; a token of every subject on the bus."""

    gateway: str = Field(default="default", min_length=1)
    """Gateway group of the organization; routers of the same group serve the same APIs."""

    router_name: str = ""
    """Node id that the router reports as, unique in its group. Empty: host name and group."""

    ratelimiter_target: str = ""
    """`HOST:PORT` of the rate limiter, for `signalbox run router`.

    Empty: the socket in the data folder, for a router on the same machine.
    """

    engine_targets: tuple[str, ...] = ()
    """`HOST:PORT` of each worker of the policy engine, for `signalbox run router`.

    Empty: the sockets in the data folder, for a router on the same machine.
    """

    quota_target: str = ""
    """`HOST:PORT` where the rate limiter gives shares of limits, for `signalbox run router`.

    Empty: the socket in the data folder, for a router on the same machine.
    """

    xds_target: str = ""
    """`HOST:PORT` of the configuration service, for `signalbox run router`.

    Empty: the socket in the data folder, for a router on the same machine. On other machines
    `xds_server_ca_file`, `xds_tls_certificate_file` and `xds_tls_key_file` are needed.
    """

    access_log_target: str = ""
    """`HOST:PORT` where `signalbox run router` delivers its access log. Empty: the socket."""

    demo: bool = False
    """Whether to start a sample backend and publish a sample API, so that a first `curl` works."""

    demo_port: int = Field(default=0, ge=0, le=65535)
    """TCP port of the sample backend on the loopback address; 0 picks a free one."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that components, Envoy and the broker log.

    `debug` costs throughput in Envoy; use it to find one fault, not in production.
    """

    log_format: Literal["console", "json"] = "console"
    """Shape of the components' log lines: for people (`console`) or for collectors (`json`)."""

    log_max_bytes: int = Field(default=10 << 20, ge=64 << 10)
    """Size at which the log file of a child process is put aside, bytes.

    One older file is kept, so each child takes at most twice this on disk.
    """

    otlp_endpoint: str = ""
    """OTLP gRPC endpoint that traces go to, such as `http://127.0.0.1:4317`; empty: no traces.

    Needs the extra `tracing`: pip install 'signalbox[tracing]'.
    """

    nats_port: int = Field(default=0, ge=0, le=65535)
    """TCP port of the broker that `up` starts, on the loopback address; 0 picks a free one."""

    valkey_max_memory_mb: int = Field(default=64, ge=8)
    """Memory for the counters that Valkey keeps (tier Standard), MiB; the oldest go when full."""

    start_timeout_s: float = Field(default=60, gt=0)
    """How long `up` waits for all processes to be ready, seconds, before it gives up and stops.

    A start takes about 3 seconds; slow disks and thousands of APIs take longer.
    """

    restart_pause_s: float = Field(default=0.1, gt=0)
    """Pause before a process that died is started again, seconds; doubles with each death."""

    restart_pause_max_s: float = Field(default=10, gt=0)
    """Longest pause before a process is started again, seconds.

    Shorter heals sooner, longer spares the machine when a process dies again and again.
    """

    drain_timeout_s: float = Field(default=10, ge=0)
    """How long a stop waits for requests in flight, seconds; 0 ends them at once.

    Envoy refuses new connections meanwhile; the stop goes on as soon as no request is left.
    """

    stop_timeout_s: float = Field(default=10, gt=0)
    """How long a process may take to stop after it was asked, seconds, before it is killed."""

    malloc_arenas: int = Field(default=2, ge=1)
    """Memory arenas of the C library in the components' process.

    Fewer keep the process small (about 10 MB less than the library's own choice), more help many
    threads allocate at once.
    """

    envoy_binary: Path | None = None
    """Envoy to run. Unset: the one that was installed with Signalbox."""

    nats_server_binary: Path | None = None
    """nats-server to run. Unset: the one that was installed with Signalbox."""

    valkey_server_binary: Path | None = None
    """valkey-server to run (tier Standard). Unset: the one that was installed with Signalbox."""
