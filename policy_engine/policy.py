"""The one interface of the catalogue: what a policy is, and what it compiles to.

A policy is one file: a pydantic model of its parameters, and what it adds to Envoy's
configuration. Documents are JSON-shaped, as Envoy's own configuration files are.
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import scrypt, sha256
from typing import Any, ClassVar, Literal, NamedTuple
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from policy_engine.errors import PolicyNotCompiled
from policy_engine.subscriptions import Subscriber
from policy_engine.system import SystemParameters

Document = dict[str, Any]
"""A part of Envoy's configuration, JSON-shaped, snake_case field names, `@type` in every Any."""

Level = Literal["api", "operation"]
Where = Literal["envoy", "python"]
Mode = Literal["enforce", "shadow"]
"""Whether a policy refuses, or only reports that it would have."""

Purpose = Literal["guards", "answers", "changes"]
"""What a policy is there for: to let requests pass or not, to answer always, or neither."""

FailureMode = Literal["open", "closed"]
"""What becomes of a request whose Python policy failed or was too slow: it passes, or not."""


def typed(message: str, fields: Document | None = None) -> Document:
    """`fields` as an Any of Envoy message `message` (full name)."""
    return {"@type": f"type.googleapis.com/{message}", **(fields or {})}


def literal(text: str) -> str:
    """`text` as an Envoy format string that stands for itself."""
    return text.replace("%", "%%")


class Version(NamedTuple):
    """A policy's version; resources name the major only (`v1`)."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


@dataclass(frozen=True, slots=True)
class Credential:
    """A caller's key, as a digest."""

    digest: str  # lower-case hex SHA-256
    application: str  # who it is; shown on usage events
    issuer: str | None = None


@dataclass(slots=True)
class Scope:
    """Where a policy is attached: the facts it may compile against.

    One Scope serves all policies of one attachment in written order; `unique` keeps count.
    """

    level: Level
    api_id: str
    api_name: str
    api_version: str
    context: str  # resolved; `/` for the root
    credentials: tuple[Credential, ...] = ()  # the live keys of the API
    key_issuer: str | None = None  # keys of other issuers open nothing; None: any issuer
    subscriptions: tuple[Subscriber, ...] = ()  # the live ones of the API, oldest first
    operation_method: str | None = None  # None at the API's level
    operation_path: str | None = None
    """The path below the context, such as `/items/{id}` or `/items/*`; None at the API's level."""
    system: SystemParameters = field(default_factory=SystemParameters)
    """What whoever runs the gateway tells policies."""
    upstreams: tuple[str, ...] = ()  # names of the API's upstream definitions
    below: frozenset[str] = frozenset()
    """Names of the policies attached to the operations below, when this is the API's level."""
    attached: tuple[str, ...] = ()  # names of the policies of this attachment, in order
    _taken: dict[str, int] = field(default_factory=dict)

    def unique(self, name: str) -> str:
        """A filter name that no other filter of this attachment has: `api.cors`, `api.cors-2`."""
        count = self._taken[name] = self._taken.get(name, 0) + 1
        return f"{self.level}.{name}" if count == 1 else f"{self.level}.{name}-{count}"

    def taken(self, name: str) -> int:
        """How often `unique` was asked for `name`: which of its likes a policy is, from 1."""
        return self._taken.get(name, 0)

    def repeats(self, name: str) -> bool:
        """Whether a request may meet policy `name` more than once."""
        return name in self.below or self.attached.count(name) > 1


@dataclass(frozen=True, slots=True)
class Gate:
    """When filters run: a condition that Envoy decides where they stand."""

    # a cel.expr.Expr, see `policy_engine.conditions.gates`; equal ones have equal text
    expression: str
    on_error: bool = False
    """Whether it holds where it cannot be decided, such as for want of a header."""


@dataclass(frozen=True, slots=True)
class HttpFilter:
    """One filter of a chain."""

    name: str  # from Scope.unique
    config: Document  # with `@type`
    per_route: Document | None = None
    """For filters that read the route: goes to `typed_per_filter_config` under `name`."""
    when: Gate | None = None  # None: always
    counts: bool = False
    """Whether it counts requests: preflights that the gateway answers do not meet it."""


@dataclass(frozen=True, slots=True)
class Service:
    """A server that a policy's filters call by themselves, by the name of its cluster."""

    url: str  # http or https; its path does not matter
    authorities: str = ""
    """PEM of who may have signed its certificate; empty: those the gateway trusts."""
    verify: bool = True  # off: any certificate will do

    @property
    def cluster(self) -> str:
        """The name of its cluster: the same for all that call it in the same way."""
        parts = urlsplit(self.url)
        identity = f"{parts.scheme}://{parts.netloc} {self.verify} {self.authorities}"
        return f"policy-{parts.hostname}-{sha256(identity.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class DirectAnswer:
    """The policy answers itself: no upstream is called, nothing behind it in the chain runs."""

    status: int
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    """Values are Envoy format strings, such as `%REQ(origin)%`; see `literal`."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """The policy sends the caller elsewhere: no upstream is called, nothing behind it runs."""

    status: int  # 301, 302, 303, 307 or 308
    action: Document  # the other fields of Envoy's RedirectAction


@dataclass(frozen=True, slots=True)
class Share:
    """A part of the requests, for one upstream definition of the API."""

    upstream: str  # the definition's name
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Mirror:
    """Copies of requests for one upstream definition of the API; their answers are dropped."""

    upstream: str  # the definition's name
    per_million: int  # how many requests are copied


@dataclass(frozen=True, slots=True)
class Routing:
    """Where requests go, as far as policies decide it; None or empty: the API's own way."""

    host: str | None = None
    """The Host header for upstreams with `hostRewrite: manual`."""
    shares: tuple[Share, ...] = ()
    """Upstream definitions that take the place of the API's upstream."""
    sticky: bool = False
    """Whether the `hash_policy` among the route's fields chooses the share, not chance."""
    mirrors: tuple[Mirror, ...] = ()
    """Where copies go; those of all policies add up."""
    moves_path: bool = False
    """Whether a filter may have changed the path below the context when the route is taken."""
    choosable: bool = False
    """Whether a hook may choose another upstream definition, see `hooks.Exchange.send_to`."""

    def then(self, later: "Routing") -> "Routing":
        """Both, `later` with the last word."""
        return Routing(
            host=later.host if later.host is not None else self.host,
            shares=later.shares or self.shares,
            sticky=later.sticky if later.shares else self.sticky,
            mirrors=self.mirrors + later.mirrors,
            moves_path=self.moves_path or later.moves_path,
            choosable=later.choosable or (self.choosable and not later.shares),
        )


@dataclass(frozen=True, slots=True)
class Connections:
    """What policies ask of the connections to upstreams; routes that ask for the same share them.

    What a later policy asks for replaces the same of an earlier one.
    """

    limits: Document = field(default_factory=dict)  # fields of Envoy's circuit breaker Thresholds
    outliers: Document | None = None  # Envoy's OutlierDetection; None: the gateway's own
    filters: tuple[HttpFilter, ...] = ()
    """Filters that meet requests last, as the route has rewritten them, once for each attempt."""

    def then(self, later: "Connections") -> "Connections":
        """Both, `later` with the last word."""
        names = {one.name for one in later.filters}
        return Connections(
            limits=self.limits | later.limits,
            outliers=later.outliers if later.outliers is not None else self.outliers,
            filters=tuple(one for one in self.filters if one.name not in names) + later.filters,
        )


@dataclass(frozen=True, slots=True)
class Secret:
    """Text that filters are given apart from their configuration, by its name."""

    value: str = field(repr=False)

    @property
    def name(self) -> str:
        """The name of its resource: hard to guess it from, and the same on all routers."""
        return f"policy-{slow_digest(self.value, 'name of a secret')[:32]}"

    @property
    def config(self) -> Document:
        """Envoy's SdsSecretConfig."""
        return {"name": self.name, "sds_config": {"ads": {}, "resource_api_version": "V3"}}


@lru_cache(maxsize=4096)
def slow_digest(secret: str, purpose: str) -> str:
    """64 hex digits that only who knows `secret` can make; to try many secrets takes long."""
    made = scrypt(secret.encode(), salt=f"signalbox {purpose}".encode(), n=1 << 13, r=8, p=1)
    return made[:32].hex()


@dataclass(frozen=True, slots=True)
class OwnPath:
    """A path that the filters of a policy answer themselves, whatever the operations are."""

    path: str  # exact, below the API's context, such as `/oauth2/callback`
    owner: str  # the same for policies that answer it alike


@dataclass(frozen=True, slots=True)
class Preflight:
    """A CORS preflight answered by the gateway: one more route per path that the policy guards.

    `match_headers` are Envoy HeaderMatchers beside the method OPTIONS; tried in order.
    """

    name: str
    match_headers: tuple[Document, ...]
    answer: DirectAnswer
    lets_pass: bool = False
    """Filters may have answered before; an operation for OPTIONS on the path goes first then."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """How an answer that an Envoy filter gives by itself is dressed by the listener.

    Matched by `%RESPONSE_CODE_DETAILS%`: equal to `details`, or starting with it if `prefix`.
    """

    details: str
    status: int
    body: Document | str  # the JSON body, or plain text
    prefix: bool = False
    headers: tuple[tuple[str, str], ...] = ()


class Parameters(BaseModel):
    """A part of a policy's parameters: camelCase on the wire, unknown ones refused."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


class Policy(Parameters):
    """A policy and its parameters. The docstring is its description in the documentation."""

    name: ClassVar[str]
    version: ClassVar[Version]
    runs: ClassVar[Where] = "envoy"
    purpose: ClassVar[Purpose] = "guards"
    """A condition that cannot be decided holds for policies that guard, and for no others."""
    refusals: ClassVar[tuple[Refusal, ...]] = ()
    silenced: ClassVar[frozenset[str]] = frozenset()
    """Response headers, lower-case, that only the gateway may say: upstreams' are removed."""
    counts: ClassVar[bool] = False
    """Whether its filters count requests: preflights that the gateway answers do not meet them."""
    source: ClassVar[str] = ""
    """Digest of the code, set by the gateway for policies of its watched folder."""
    example: ClassVar[Document]
    """Parameters that stand in the documentation, and that a test compiles and runs."""

    @classmethod
    def dressed(cls, system: SystemParameters) -> tuple[Refusal, ...]:
        """`refusals`, as whoever runs the gateway wants them to look."""
        del system
        return cls.refusals

    def masked(self) -> Document:
        """The parameters that were given, JSON-shaped, secret ones masked."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)

    @abstractmethod
    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """The filters of the policy, in the order requests meet them. Raises PolicyNotCompiled."""

    def conditional(self, scope: Scope) -> tuple[HttpFilter, ...] | None:
        """The filters where the policy has a condition; None: the same as ever.

        Everything that the policy does by other means than filters, apart from where requests go,
        has to be done by these. Raises PolicyNotCompiled.
        """
        del scope
        return None

    def shadow(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """The filters in shadow mode: they look, report what would be refused, change nothing.

        See `policy_engine.shadow`. Policies that only change things do nothing then. Raises
        PolicyNotCompiled.
        """
        del scope
        if self.purpose != "changes":
            raise PolicyNotCompiled(self.name, "it has no shadow mode")
        return ()

    def services(self, scope: Scope) -> tuple[Service, ...]:
        """The servers that the policy's filters call."""
        del scope
        return ()

    def answer(self) -> DirectAnswer | None:
        """What the policy answers instead of the upstream, if it always does."""
        return None

    def redirect(self, scope: Scope) -> Redirect | None:
        """Where the policy sends the caller instead of the upstream, if it always does."""
        del scope
        return None

    def routing(self) -> Routing:
        """Where the policy sends requests."""
        return Routing()

    def connections(self) -> Connections:
        """What the policy asks of the connections to the upstream."""
        return Connections()

    def secrets(self, scope: Scope) -> tuple[Secret, ...]:
        """The secrets that the policy's filters name."""
        del scope
        return ()

    def own_paths(self, scope: Scope) -> tuple[OwnPath, ...]:
        """The paths that the policy's filters answer to `GET`."""
        del scope
        return ()

    def upstream_refs(self) -> dict[str, str]:
        """The upstream definitions that must exist: by the path of the parameter that names it."""
        return {}

    def preflights(self) -> tuple[Preflight, ...]:
        """The CORS preflight routes the policy adds beside each path it guards."""
        return ()

    def route_fields(self, scope: Scope) -> Document:
        """Fields for Envoy's `RouteAction` (rewrites, hosts, timeouts); later policies win."""
        del scope
        return {}
