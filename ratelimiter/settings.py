"""What an operator can set about shared limits."""

from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

_SOCKET_PATH_BYTES = 107  # sockaddr_un of Linux, less the final zero


class RatelimiterSettings(BaseModel):
    """TOML table `[ratelimiter]`; each field is also the variable `SIGNALBOX_<FIELD>`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    ratelimiter_socket: Path | None = None
    """Unix socket on which routers of this machine ask for limits; at most 107 bytes long. Unset:
    a socket in the data folder."""

    ratelimiter_address: str = "127.0.0.1"
    """Address of the TCP port. The protocol knows neither encryption nor who asks: any but a
    loopback address also needs `ratelimiter_trusted_network`."""

    ratelimiter_port: int | None = Field(default=None, ge=0, le=65535)
    """TCP port for routers on other machines or in containers; 0 takes a free one. Unset: only the
    Unix socket."""

    ratelimiter_quota_socket: Path | None = None
    """Unix socket on which routers of this machine get shares of limits (`redis-local-async`); at
    most 107 bytes long. Unset: a socket in the data folder."""

    ratelimiter_quota_port: int | None = Field(default=None, ge=0, le=65535)
    """TCP port on `ratelimiter_address` for shares of limits; 0 takes a free one. Unset: only the
    Unix socket."""

    ratelimiter_quota_buckets: int = Field(default=50_000, ge=100)
    """Limits by key that are given out in shares at the same time; about 2 kB each, and a tenth of
    that in every router that has one. The least used go first, and then begin anew."""

    ratelimiter_trusted_network: bool = False
    """Whether everybody who reaches `ratelimiter_address` may use up anybody's limits, as behind a
    network policy or a mesh that encrypts. Without it the port stays on this machine."""

    ratelimiter_store: Literal["redis", "memory"] = "redis"
    """Where counters are kept: `redis` (or Valkey), shared by all rate limiters, or `memory` of one
    process."""

    ratelimiter_memory_entries: int = Field(default=100_000, ge=100)
    """Counters kept in this process, with the store `memory` or while Redis is away; about 400 B
    each. The least used go first, and then begin anew."""

    ratelimiter_limiters: int = Field(default=0, ge=0, le=1000)
    """Rate limiters that share the limits while Redis is away. 0: those heard on the bus."""

    ratelimiter_heartbeat_s: float = Field(default=5, gt=0, le=60)
    """How often each rate limiter says that it is alive, seconds; who misses three is given up, and
    the others share the limits."""

    ratelimiter_decision_timeout_s: float = Field(default=0.05, gt=0, le=5)
    """How long a request may wait for Redis, seconds; then the local share of the limit decides.
    Shorter bounds latency, longer rides out hiccups of the network."""

    ratelimiter_in_flight: int = Field(default=2, ge=1, le=64)
    """Batches of decisions that are with Redis at the same time. More shorten the wait under load
    and cost CPU time, for batches get smaller."""

    ratelimiter_batch: int = Field(default=128, ge=1, le=1000)
    """Calls decided in one batch at most. A batch is one step of Redis, about 5 µs a call."""

    ratelimiter_over_limit_cache_s: float = Field(default=1, ge=0, le=60)
    """How long a key that is over its limit is refused without asking Redis, seconds, at most to
    the limit's end. 0 switches the cache off; then a flood of refused requests reaches Redis."""

    ratelimiter_over_limit_entries: int = Field(default=100_000, ge=0)
    """Keys remembered as over their limit; about 200 B each."""

    ratelimiter_recovery_interval_s: float = Field(default=0.25, gt=0, le=60)
    """How soon Redis is tried again after a failure, seconds; then twice as long, up to 5 s."""

    ratelimiter_degraded_after_s: float = Field(default=1, ge=0)
    """How long Redis must be away, seconds, before the state is reported as degraded. What is
    shorter shows in the metrics only."""

    ratelimiter_events_per_s: int = Field(default=100, ge=0)
    """Events about limits that are approached, exceeded or reset, per second at most; more are
    dropped and counted. 0: none."""

    redis_mode: Literal["single", "sentinel", "cluster"] = "single"
    """How Redis is run: one server, or servers found by Sentinel or Cluster."""

    redis_addresses: tuple[str, ...] = ()
    """`host:port` of the server, of Sentinels, or of some nodes of the cluster; `unix:/path` for a
    server on this machine. Empty: the Valkey that Signalbox starts."""

    redis_sentinel_service: str = "mymaster"
    """Name that Sentinels know the primary by."""

    redis_username: str = ""
    """User for servers with access control lists."""

    redis_password: SecretStr = SecretStr("")
    """Password; empty: none is sent."""

    redis_sentinel_username: str = ""
    """User for the Sentinels themselves."""

    redis_sentinel_password: SecretStr = SecretStr("")
    """Password for the Sentinels themselves; empty: none is sent."""

    redis_db: int = Field(default=0, ge=0)
    """Number of the database; a cluster has only 0."""

    redis_key_prefix: str = Field(default="ratelimit:v1:", pattern=r"^[^{}]*$")
    """What all keys begin with. Gateways with the same prefix in the same Redis share limits of the
    same organization, gateway and API."""

    redis_connect_timeout_s: float = Field(default=5, gt=0)
    """How long connecting may take, seconds; requests never wait longer than
    `ratelimiter_decision_timeout_s`."""

    redis_read_timeout_s: float = Field(default=3, gt=0)
    """How long an answer may take, seconds, before the connection is given up. Until then a late
    answer still tells what was counted."""

    redis_pool_size: int = Field(default=10, ge=2)
    """Connections to each server at most."""

    redis_tls: bool = False
    """Whether connections are encrypted and the server must prove who it is."""

    redis_tls_ca_file: Path | None = None
    """PEM file of who signed the servers' certificates. Unset: the system's authorities."""

    redis_tls_certificate_file: Path | None = None
    """PEM file of the certificate that this side shows. Unset: none."""

    redis_tls_key_file: Path | None = None
    """PEM file of the private key of `redis_tls_certificate_file`."""

    redis_tls_verify_host: bool = True
    """Whether the certificate must name the host that was connected to. Off, any server with a
    certificate of the authority is believed."""

    @model_validator(mode="after")
    def _fit(self) -> Self:
        for name in ("ratelimiter_socket", "ratelimiter_quota_socket"):
            path = getattr(self, name)
            if path and len(bytes(path)) > _SOCKET_PATH_BYTES:
                raise ValueError(f"{name} is longer than {_SOCKET_PATH_BYTES} bytes: {path}")
        if self.redis_pool_size <= self.ratelimiter_in_flight:
            raise ValueError("redis_pool_size must be above ratelimiter_in_flight")
        if self.redis_mode == "cluster" and self.redis_db:
            raise ValueError("redis_db: a cluster has only database 0")
        if (self.redis_tls_certificate_file is None) != (self.redis_tls_key_file is None):
            raise ValueError(
                "redis_tls_certificate_file and redis_tls_key_file must be given together"
            )
        return self
