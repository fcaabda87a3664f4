"""What the policy engine can be told."""

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

Network = IPv4Network | IPv6Network


class EngineSettings(BaseModel):
    """The engine's own ports, and its workers."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    engine_admin_address: str = "127.0.0.1"
    """Address of the engine's admin and metrics ports. `0.0.0.0` opens them to the network; the
    admin API then still answers only `engine_admin_allowed_networks`."""

    engine_admin_port: int = Field(default=9002, ge=0, le=65535)
    """Port of the engine's admin API; 0 takes a free one."""

    engine_metrics_port: int = Field(default=9003, ge=0, le=65535)
    """Port of the engine's Prometheus metrics; 0 takes a free one."""

    engine_admin_allowed_networks: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Who may use the admin API: networks such as `10.0.0.0/8`, or single addresses. It shows the
    configuration of all policies, without secrets. Empty: nobody."""

    engine_workers: int = Field(default=1, ge=0, le=64)
    """Processes that run Python policies. One serves about one core; each takes 10 MB until a
    Python policy is used, then about 65 MB more. 0: none, Python policies fail as declared."""

    engine_worker_memory_mb: int = Field(default=512, ge=128)
    """Data that a worker may have, MiB. Policies that want more fail; a worker that stays full
    ends and is started again. Less protects the machine sooner, more lets policies keep more."""

    engine_stuck_s: float = Field(default=2, ge=0.5)
    """How long a hook that is a plain function may block its worker, seconds, before the worker is
    ended and started again. Shorter frees other APIs' requests sooner, longer spares workers on a
    busy machine; the time a policy may take for a request is its own `timeout`."""

    engine_feed_socket: Path | None = None
    """Unix socket at which workers learn from the engine what to run. Unset: a socket in the data
    folder."""

    engine_worker_address: str = "127.0.0.1"
    """Address on which `signalbox run engine-worker` serves routers, where it has a port. Whoever
    reaches it can have policies run: keep it in a network of your own."""

    engine_worker_port: int = Field(default=0, ge=0, le=65535)
    """TCP port of `signalbox run engine-worker`, for routers on other machines. 0: a socket in the
    data folder, for a router beside it."""

    engine_shutdown_grace_s: float = Field(default=2, ge=0)
    """How long answers in flight may take when the engine stops, seconds."""

    @field_validator("engine_admin_allowed_networks")
    @classmethod
    def _networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for one in networks:
            ip_network(one)  # raises ValueError, naming it
        return networks

    @property
    def allowed_networks(self) -> tuple[Network, ...]:
        """`engine_admin_allowed_networks`, parsed."""
        return tuple(ip_network(one) for one in self.engine_admin_allowed_networks)
