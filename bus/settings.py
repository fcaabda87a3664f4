"""How the bus is reached, and how long it is waited for."""

from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

_SCHEMES = ("nats", "tls", "ws", "wss")


class BusSettings(BaseModel):
    """Settings of every component that speaks on the bus."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    nats_url: str = "nats://127.0.0.1:4222"
    """Where the brokers are: one URL or several, separated by commas (`tls://` for TLS)."""

    nats_user: str = ""
    """User at the broker; empty: none."""

    nats_password: SecretStr = SecretStr("")
    """Password of `nats_user`."""

    nats_credentials_file: str = ""
    """NATS credentials file (JWT and seed); empty: none. Replaces user and password."""

    nats_tls_ca_file: str = ""
    """PEM file with the authorities that may sign the broker's certificate; empty: the system's."""

    nats_tls_certificate_file: str = ""
    """PEM file with this component's certificate, for brokers that ask for one; empty: none."""

    nats_tls_key_file: str = ""
    """PEM file with the key of `nats_tls_certificate_file`."""

    nats_storage: Literal["memory", "file"] = "memory"
    """Where the broker keeps the streams.

    `memory`: nothing is written to disk, and everything is told again after a broker restart.
    `file`: streams outlive the broker.
    """

    nats_memory_stream_max_bytes: int = Field(default=16 << 20, ge=1 << 20)
    """Most bytes of one stream of a `memory` broker, except state, bytes; the oldest go first.

    More lets consumers lag longer, less saves the broker's memory.
    """

    nats_memory_state_history: int = Field(default=8, ge=1)
    """How many events per subject of the state a `memory` broker keeps; a `file` broker keeps all.

    Followers need one; more lets `events tail` look back further and costs memory.
    """

    nats_connect_timeout_s: float = Field(default=10, gt=0)
    """How long a component waits for the broker when it starts, seconds.

    Longer tolerates slow starts, shorter tells sooner that nothing is there.
    """

    nats_reconnect_pause_s: float = Field(default=0.05, gt=0)
    """Pause before the second attempt to connect again, seconds; doubles up to forty times itself.

    Shorter heals sooner, longer spares a broker that is starting.
    """

    nats_ping_interval_s: float = Field(default=5, gt=0)
    """How often an idle connection is probed, seconds; two lost probes end it.

    Shorter notices a silent network sooner, longer saves traffic.
    """

    publish_timeout_s: float = Field(default=5, gt=0)
    """How long a publisher tries before it reports the bus unavailable, seconds.

    Longer rides out a broker restart, shorter fails the caller sooner.
    """

    publish_attempt_timeout_s: float = Field(default=2, gt=0)
    """How long one attempt waits for the broker's acknowledgement, seconds.

    Repeated attempts are stored once (`Nats-Msg-Id`), so shorter is safe but costs traffic.
    """

    follow_heartbeat_s: float = Field(default=2, ge=0.1)
    """How often the broker shows a quiet follower that its feed is alive, seconds.

    Two and a half times this without a sign starts the feed anew.
    """

    share_ack_wait_s: float = Field(default=30, ge=0.05)
    """How long a worker may hold a delivery before another one gets it, seconds.

    Longer suits slow work, shorter replaces a crashed worker sooner.
    """

    share_batch: int = Field(default=64, ge=1)
    """How many deliveries a worker asks for at once.

    More is faster, fewer spread a short queue over more workers.
    """

    share_unacked_max: int = Field(default=1024, ge=1)
    """How many deliveries all workers of one consumer may hold unacknowledged."""

    @field_validator("nats_url")
    @classmethod
    def _urls(cls, text: str) -> str:
        for url in text.split(","):
            parts = urlsplit(url.strip())
            if parts.scheme not in _SCHEMES or not parts.hostname:
                raise ValueError(f"{url.strip()!r} is not a URL such as nats://host:4222")
        return text
