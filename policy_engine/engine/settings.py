"""What the policy engine can be told."""

from ipaddress import IPv4Network, IPv6Network, ip_network

from pydantic import BaseModel, ConfigDict, Field, field_validator

Network = IPv4Network | IPv6Network


class EngineSettings(BaseModel):
    """The engine's own ports."""

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
