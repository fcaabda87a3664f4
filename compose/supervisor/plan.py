"""What the supervisor is told: a JSON file in the data folder, written by the launcher."""

import json
from dataclasses import asdict, dataclass
from typing import Any

LISTEN = "{listen}"
"""The argument in whose place a child gets the descriptor of its `listen` socket."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A question that a process answers with yes once it works."""

    kind: str  # tcp | unix | http | file
    target: str  # host:port | path | host:port/path (200 is yes) | path


@dataclass(frozen=True, slots=True)
class Drain:
    """How an Envoy is emptied before it is stopped."""

    admin_port: int
    limit_s: float  # requests that take longer are cut off


@dataclass(frozen=True, slots=True)
class Child:
    """One process to keep alive."""

    name: str
    argv: tuple[str, ...]
    ready: Probe
    env: dict[str, str]  # added to the environment, from which SIGNALBOX_* is taken away
    after: Probe | None = None  # do not start before this says yes ...
    after_limit_s: float = 5.0  # ... but once all was ready, start after so long: traffic first
    listen: str | None = None  # Unix socket held open for it over restarts, see LISTEN
    orphan_signal: str = "SIGKILL"  # what the system sends it when the supervisor dies
    drain: Drain | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole gateway. Children stop in the reverse order."""

    run_folder: str  # state, sockets, marks of readiness
    log_folder: str  # one file per child
    children: tuple[Child, ...]
    started_at: float  # when the user asked, seconds since 1970
    banner: tuple[str, ...] = ()  # printed once, when everything is ready
    start_timeout_s: float = 60.0
    restart_pause_s: float = 0.1
    restart_pause_max_s: float = 10.0
    stop_timeout_s: float = 10.0  # from the request to stop until a child is killed
    log_max_bytes: int = 10 << 20

    def to_json(self) -> str:
        """The file's text."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "Plan":
        """The plan in a file's text."""
        document: dict[str, Any] = json.loads(text)
        children = tuple(_child(one) for one in document.pop("children"))
        return cls(**{**document, "children": children, "banner": tuple(document["banner"])})


def _child(document: dict[str, Any]) -> Child:
    after, drain = document["after"], document["drain"]
    return Child(
        **{
            **document,
            "argv": tuple(document["argv"]),
            "ready": Probe(**document["ready"]),
            "after": Probe(**after) if after else None,
            "drain": Drain(**drain) if drain else None,
        }
    )
