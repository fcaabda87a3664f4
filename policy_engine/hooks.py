"""What a Python policy sees of a request and its answer, and what it may say about them.

A hook gets an `Exchange`, edits its headers in place, and returns what becomes of the message:
nothing (go on), other bytes (of a body or a chunk), or an `Answer` (the caller gets that, and
nobody behind the policy is asked). Hooks are plain functions, or coroutines when they wait.
"""

from collections.abc import Awaitable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from policy_engine.policy import (
    Document,
    FailureMode,
    HttpFilter,
    Level,
    Policy,
    Scope,
    Where,
)
from policy_engine.system import SystemParameters

Phase = Literal[
    "request_headers",
    "request_body",
    "request_chunk",
    "response_headers",
    "response_body",
    "response_chunk",
]
PHASES: tuple[Phase, ...] = (
    "request_headers",
    "request_body",
    "request_chunk",
    "response_headers",
    "response_body",
    "response_chunk",
)

EXCHANGE_NAMESPACE = "signalbox"
"""Dynamic metadata that Python policies write: read by later ones, conditions and the log."""

CHOICE_NAMESPACE = "signalbox.choice"
"""Dynamic metadata: under `upstream` the upstream definition that a policy has chosen."""

SHADOW_NAMESPACE = "signalbox.shadow"
"""Dynamic metadata of policies in shadow mode: policy name -> why it would have refused."""


class Headers:
    """Headers of one message: names in any case, several values allowed, edits recorded.

    Reading sees the edits already made. Pseudo headers (`:path`) are there too.
    """

    __slots__ = ("_edits", "_values")

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        """`pairs` have lower-case names, as Envoy sends them."""
        self._values: dict[str, tuple[str, ...]] = {}
        for name, value in pairs:
            self._values[name] = (*self._values.get(name, ()), value)
        self._edits: dict[str, tuple[str, ...]] = {}

    def get(self, name: str, default: str | None = None) -> str | None:
        """The value of `name`, several joined by `, `; `default` without one."""
        values = self._values.get(name.lower())
        return default if values is None else ", ".join(values)

    def all(self, name: str) -> tuple[str, ...]:
        """Every value of `name`, in order."""
        return self._values.get(name.lower(), ())

    def set(self, name: str, value: str) -> None:
        """`value` instead of all there were. Raises ValueError for what no header can hold."""
        self._put(name, (value,))

    def append(self, name: str, value: str) -> None:
        """`value` behind those there are. Raises ValueError for what no header can hold."""
        self._put(name, (*self.all(name), value))

    def remove(self, name: str) -> None:
        """Without `name`; nothing happens if it is not there."""
        if self._values.pop(name.lower(), None) is not None:
            self._edits[name.lower()] = ()

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in self._values

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def items(self) -> Iterator[tuple[str, str]]:
        """Every name with every value, pseudo headers first as they came."""
        return ((name, value) for name, values in self._values.items() for value in values)

    def as_lists(self) -> dict[str, list[str]]:
        """Name -> values, without pseudo headers: how conditions see headers."""
        return {
            name: list(values) for name, values in self._values.items() if not name.startswith(":")
        }

    @property
    def edits(self) -> Mapping[str, tuple[str, ...]]:
        """What was changed: name -> its values now, none if it was removed."""
        return self._edits

    def _put(self, name: str, values: tuple[str, ...]) -> None:
        lower = sendable(name, values[-1])
        self._values[lower] = self._edits[lower] = values


def sendable(name: str, value: str) -> str:
    """`name` in lower case. Raises ValueError when a header cannot have this name or value."""
    if not name or "\n" in value or "\r" in value or "\0" in value:
        raise ValueError(f"header {name!r} cannot hold {value!r}")
    return name.lower()


class Request:
    """The request as it stands: earlier policies of the chain may have changed it."""

    __slots__ = ("headers",)

    def __init__(self, headers: Headers) -> None:
        self.headers = headers

    @property
    def method(self) -> str:
        """`GET`, ..."""
        return self.headers.get(":method", "") or ""

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return self.headers.get(":scheme", "") or ""

    @property
    def authority(self) -> str:
        """The host that was called, with its port if one was given."""
        return self.headers.get(":authority", "") or ""

    @property
    def path(self) -> str:
        """The path with its query, the API's context included."""
        return self.headers.get(":path", "") or ""

    @path.setter
    def path(self, path: str) -> None:
        """Needs `Routing(moves_path=True)` of the policy where the part below may change."""
        self.headers.set(":path", path)


class Response:
    """The answer as it stands, of the upstream or of a policy."""

    __slots__ = ("headers",)

    def __init__(self, headers: Headers) -> None:
        self.headers = headers

    @property
    def status(self) -> int:
        """The status code."""
        return int(self.headers.get(":status", "0") or 0)

    @status.setter
    def status(self, status: int) -> None:
        self.headers.set(":status", str(status))


@dataclass(frozen=True, slots=True)
class Answer:
    """The policy answers itself; in a request phase no upstream is called.

    Once a response's headers are gone (streamed chunks) only the body can be given: it takes the
    place of the chunk, and the rest of the upstream's answer is dropped.
    """

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    reason: str = ""
    """For logs, metrics and shadow mode: one short phrase; not shown to the caller."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a policy is attached."""

    level: Level
    api_id: str
    api_name: str
    api_version: str
    context: str  # resolved; `/` for the root
    operation_method: str | None = None  # None at the API's level
    operation_path: str | None = None  # below the context, such as `/items/{id}`
    upstreams: tuple[str, ...] = ()
    """The API's upstream definitions, where a policy may choose one, see `Exchange.send_to`."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a server answered to a policy."""

    status: int
    headers: Mapping[str, str]  # lower-case names
    body: bytes


class UnknownUpstream(Exception):
    """The API has no such upstream definition, or none may be chosen any more.

    A hook that lets it go answers 502, whatever the failure mode: the request was not meant for
    the upstream that it would go to.
    """


class FetchFailed(Exception):
    """A server that a policy asked did not answer: refused, too slow, too long, not trusted."""


class Outside(Protocol):
    """What a hook may use of the world: connections are pooled over all policies of a process."""

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = 5.0,
        verify: bool = True,
        authorities: str = "",
        max_body_bytes: int = 1 << 20,
        public_only: bool = False,
    ) -> Fetched:
        """Ask a server; `authorities` are PEM, empty: those the machine trusts.

        `public_only` is for URLs that callers name: no connection is made to an address that
        `policy_engine.parameters.addresses.is_public` does not allow, whatever the name resolves
        to; checked on the very address that is connected to. Redirections are not followed.

        Raises FetchFailed.
        """
        ...

    def resolves(self, host: str, timeout_s: float) -> Awaitable[bool]:
        """Whether DNS knows `host`."""
        ...


_NO_SYSTEM = SystemParameters()


@dataclass(slots=True)
class Exchange:
    """One request and its answer, for all Python policies of one hop: the request's context."""

    place: Place
    request: Request
    outside: Outside
    response: Response | None = None  # None until the upstream, or a later policy, has answered
    metadata: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """What filters before wrote, by namespace: those that the policies ask for."""
    published: dict[str, Any] = field(default_factory=dict)
    """Written here, read from `metadata["signalbox"]` by later hops and by the access log."""
    notes: dict[Any, Any] = field(default_factory=dict)
    """What a policy keeps from one phase to the next; key it by what only this policy has, such as
    `id(self)`: policies whose parameters hold mappings cannot be keys."""
    request_id: str = ""
    system: SystemParameters = _NO_SYSTEM
    """What whoever runs the gateway tells policies: that of the engine's catalogue."""
    upstream: str | None = None  # the upstream definition that was chosen; None: the route's own

    def send_to(self, upstream: str) -> None:
        """Send the request to upstream definition `upstream` of the API; the last word counts.

        For `on_request_headers` and `on_request_body` of a policy whose `routing()` is `choosable`.
        Raises UnknownUpstream.
        """
        known = self.place.upstreams
        if self.response is not None:
            raise UnknownUpstream(f"{upstream!r}: the request has been sent already")
        if upstream not in known:
            has = f"it has {', '.join(known)}" if known else "it has none to choose from"
            raise UnknownUpstream(f"the API has no upstream definition {upstream!r}; {has}")
        self.upstream = upstream


Verdict = Answer | None
BodyVerdict = bytes | Answer | None
"""Bytes take the place of the body; None leaves it as it is."""


class PythonPolicy(Policy):
    """A policy whose hooks run in the engine; only those that are overridden cost anything.

    With both the body and the chunk hook of one direction: chunks for `text/event-stream` and
    for messages that are too long to buffer, the whole body otherwise.
    """

    runs: ClassVar[Where] = "python"
    why_python: ClassVar[str] = "its hooks are Python"
    """Shown by `signalbox plan`: what Envoy cannot do here."""
    failure_mode: ClassVar[FailureMode] = "closed"
    """When an attachment does not say: raising, too slow, or the engine away."""
    authenticates: ClassVar[bool] = False
    """Fails closed whatever an attachment says."""
    only_looks: ClassVar[bool] = False
    """Its chunk hooks never say anything: messages keep their length where only such look on."""
    timeout_s: ClassVar[float] = 0.5
    """How long one hook may take, seconds, when an attachment does not say."""
    namespaces: ClassVar[tuple[str, ...]] = ()
    """What `Exchange.metadata` shows of dynamic metadata: `envoy.filters.http.jwt_authn`, ..."""

    def phases(self) -> frozenset[Phase]:
        """What the policy takes part in: the hooks it has. Narrow it where parameters allow."""
        return frozenset(
            phase
            for phase in PHASES
            if getattr(type(self), f"on_{phase}") is not getattr(PythonPolicy, f"on_{phase}")
        )

    def patience_s(self, system: SystemParameters) -> float:
        """How long one of its hooks may take, seconds, when an attachment does not say."""
        del system
        return self.timeout_s

    def check(self, scope: Scope) -> None:
        """Raises PolicyNotCompiled when the gateway lacks what the policy needs."""
        del scope

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """None of its own: neighbours share one hop to the engine, see `policy_engine.hop`."""
        del scope
        return ()

    def on_request_headers(self, exchange: Exchange) -> Verdict | Awaitable[Verdict]:
        """The request's headers are there."""
        del exchange
        return None

    def on_request_body(
        self, exchange: Exchange, body: bytes
    ) -> BodyVerdict | Awaitable[BodyVerdict]:
        """The whole body of the request, empty without one; headers may still be edited."""
        del exchange, body
        return None

    def on_request_chunk(
        self, exchange: Exchange, chunk: bytes, *, last: bool
    ) -> BodyVerdict | Awaitable[BodyVerdict]:
        """A part of the request's body; `b""` holds it back, for more to come in `notes`."""
        del exchange, chunk, last
        return None

    def on_response_headers(self, exchange: Exchange) -> Verdict | Awaitable[Verdict]:
        """The answer's headers are there."""
        del exchange
        return None

    def on_response_body(
        self, exchange: Exchange, body: bytes
    ) -> BodyVerdict | Awaitable[BodyVerdict]:
        """The whole body of the answer is there; status and headers may still be edited."""
        del exchange, body
        return None

    def on_response_chunk(
        self, exchange: Exchange, chunk: bytes, *, last: bool
    ) -> BodyVerdict | Awaitable[BodyVerdict]:
        """A part of the answer's body; `b""` holds it back."""
        del exchange, chunk, last
        return None


def json_answer(status: int, document: Document, *, reason: str = "") -> Answer:
    """An answer with a JSON body."""
    import orjson  # noqa: PLC0415 - the compiler of chains does not need it

    return Answer(
        status, orjson.dumps(document), (("content-type", "application/json"),), reason=reason
    )
