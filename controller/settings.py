"""What the controller can be told."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

Role = Literal["admin", "developer", "consumer"]


class User(BaseModel):
    """Somebody who may use the management API with HTTP basic authentication."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(min_length=1, pattern="^[^:]+$")
    """User name; no colon, because basic authentication separates by it."""

    password: SecretStr
    """Plain, or hashed by scrypt or PBKDF2 (see `controller.passwords`)."""

    roles: tuple[Role, ...]
    """What the user may do: admin everything, developer APIs, consumer API keys."""


class ControllerSettings(BaseModel):
    """The management API, the record and the outbox."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    management_address: str = "127.0.0.1"
    """Address of all ports of the controller. `0.0.0.0` opens them to the network."""

    management_port: int = Field(default=9090, ge=0, le=65535)
    """Port of the management API; 0 takes a free one."""

    admin_port: int = Field(default=9092, ge=0, le=65535)
    """Port of the controller's admin API; 0 takes a free one."""

    metrics_port: int = Field(default=9091, ge=0, le=65535)
    """Port of the controller's Prometheus metrics; 0 takes a free one."""

    admin_user: str = Field(default="admin", min_length=1, pattern="^[^:]+$")
    """Name of the user who may do everything."""

    admin_password: SecretStr | None = None
    """Password of `admin_user`, plain or hashed. Unset: there is no such user."""

    users: tuple[User, ...] = ()
    """More users. Without any user nobody can use the management API."""

    database_url: SecretStr = SecretStr("")
    """The record: `sqlite:////path`, `postgresql://`, `mysql://`, `oracle://` or `mssql://`.

    Empty: `record.db` in the data folder. Only Standard uses it, Basic stores nothing.
    """

    max_body_bytes: int = Field(default=512 << 10, ge=1024, le=900 << 10)
    """Largest request body, bytes.

    More allows larger APIs; an event must fit into one message of the broker (1 MiB).
    """

    api_keys_per_user_per_api: int = Field(default=10, ge=1)
    """How many live keys of one API a user may have."""

    api_key_issuer: str = ""
    """Issuer written on keys that do not name one; empty: none."""

    config_dump_enabled: bool = False
    """Whether the admin API answers `/config_dump`: all configuration, secrets masked."""

    outbox_poll_s: float = Field(default=2.0, gt=0)
    """How often the outbox is read when nothing wakes the relay, seconds.

    The relay is woken by each change of this process; this is for changes of others.
    """

    outbox_batch: int = Field(default=64, ge=1)
    """How many events the relay reads at once: more is faster in bulk, fewer holds less memory."""

    status_wait_max_s: float = Field(default=60, gt=0)
    """Longest time a status request may wait for the routers, seconds."""

    shutdown_grace_s: float = Field(default=3, ge=0)
    """How long requests in flight may take after the controller was told to end, seconds."""
