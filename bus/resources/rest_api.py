"""RestApi: an HTTP API, its operations, its upstreams and its policies."""

import re
from collections.abc import Hashable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from bus.resources.document import (
    ApiVersion,
    Document,
    Duration,
    Metadata,
    PositiveDuration,
    wrong,
)
from bus.resources.upstream import (
    SPACE_OR_CONTROL,
    UpstreamDefinition,
    Upstreams,
)

GATEWAY_DEFAULT_VHOST = "_gateway_default_"
MAX_RESOLVED_CONTEXT = 256
RESERVED_CONTEXT = "/_gateway-health"

_NAME = re.compile(r"[a-zA-Z0-9\-_. ]+")
_VERSION = re.compile(r"v?[0-9]+(\.[0-9]+)?(\.[0-9]+)?")
_POLICY_VERSION = re.compile(r"v[0-9]+")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-zA-Z\-]+")
_VHOST = re.compile(r"(\*\.)?[a-zA-Z0-9_]([a-zA-Z0-9\-_.]*[a-zA-Z0-9_])?(:[0-9]+)?|\*")
_NOT_RE2 = re.compile(r"\(\?(?:=|!|<=|<!|>|P=|\()|(?<!\\)(?:\\\\)*\\[1-9]")

Method = Literal["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]


def _display_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError("may only hold letters, digits, spaces, '-', '_' and '.'")
    return text


def _version(text: str) -> str:
    if not _VERSION.fullmatch(text):
        raise ValueError("must follow the semantic versioning pattern, such as v1, v1.0 or v3.0.0")
    return text


def _context(text: str) -> str:
    if not text:
        raise ValueError("Context is required")
    if not text.startswith("/"):
        raise ValueError("Context must start with '/'")
    if text != "/" and text.endswith("/"):
        raise ValueError("Context must not end with '/'")
    if "//" in text or re.search(r"[?#{}*\\]", text) or SPACE_OR_CONTROL.search(text):
        raise ValueError(
            "Context must be a plain path: no '//', whitespace, '\\', '?', '#', '{', '}', '*'"
        )
    _no_dot_segments(text, "Context")
    if text.startswith(RESERVED_CONTEXT):
        raise ValueError(f"Context must not use the reserved prefix {RESERVED_CONTEXT}")
    return text


def _no_dot_segments(path: str, what: str) -> None:
    if {".", ".."} & set(path.split("/")):
        raise ValueError(f"{what} must not hold the segments '.' and '..'")


def _path(text: str) -> str:
    if not text:
        raise ValueError("Operation path is required")
    if not text.startswith("/"):
        raise ValueError("Operation path must start with '/'")
    if re.search(r"[?#]", text) or SPACE_OR_CONTROL.search(text):
        raise ValueError("Operation path must not hold whitespace, '?' or '#'")
    if "//" in text:
        raise ValueError("Operation path must not hold '//'")
    _no_dot_segments(text, "Operation path")
    names: set[str] = set()
    segments = text.split("/")[1:]
    for position, segment in enumerate(segments):
        if segment == "*" and position == len(segments) - 1:
            continue
        if "*" in segment:
            raise ValueError("'*' is only allowed as the last segment of an operation path")
        if "{" in segment or "}" in segment:
            match = re.fullmatch(r"\{([^{}]+)\}", segment)
            if match is None:
                raise ValueError("a path parameter must fill a whole segment, such as /{id}")
            if match[1] in names:
                raise ValueError(f"path parameter {match[1]!r} is named twice")
            names.add(match[1])
    return text


def _host(text: str) -> str:
    if text != GATEWAY_DEFAULT_VHOST and not _VHOST.fullmatch(text):
        raise ValueError(f"{text!r} is not a host name; '*.' is allowed in front only")
    return text


def _hosts(text: str) -> str:
    hosts = [host.strip() for host in text.split(";")]
    if not all(hosts):
        raise ValueError("hosts are separated by ';' and must not be empty")
    seen: set[str] = set()
    for host in hosts:
        _host(host)
        if host.lower() in seen:
            raise ValueError(f"host {host!r} is given twice")
        seen.add(host.lower())
    return text


def _policy_version(text: str) -> str:
    if text and not _POLICY_VERSION.fullmatch(text):
        raise ValueError(
            "Policy version must be a major version such as v1, or empty for the latest"
        )
    return text


def _header_name(text: str) -> str:
    if not _HEADER_NAME.fullmatch(text):
        raise ValueError(f"{text!r} is not a header name")
    return text


class PolicyRef(Document):
    """A policy of the catalogue, attached where this stands."""

    name: Annotated[str, Field(min_length=1)]
    version: Annotated[str, AfterValidator(_policy_version)] = ""
    execution_condition: str | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    mode: Literal["enforce", "shadow"] = "enforce"
    """`shadow`: evaluate and report what would have been refused, but refuse nothing."""
    failure_mode: Literal["open", "closed"] | None = None
    """What becomes of requests when a Python policy fails; None: as the policy itself says."""
    timeout: PositiveDuration | None = None
    """How long one hook of a Python policy may take; None: as the policy itself says."""


class Resilience(Document):
    """How long to wait for an upstream; `0s` waits for ever."""

    timeout: Duration | None = None
    idle_timeout: Duration | None = None


class HeaderMatch(Document):
    """A header a request must carry to be this operation."""

    name: Annotated[str, Field(min_length=1), AfterValidator(_header_name)]
    value: str
    type: Literal["Exact", "RegularExpression"] = "Exact"

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        if self.type == "RegularExpression":
            if _NOT_RE2.search(self.value):
                raise wrong("look-around and back-references are not supported (RE2)", "value")
            try:
                re.compile(self.value)
            except re.error as error:
                raise wrong(f"regular expression is invalid: {error}", "value") from error
        return self


class PathMatch(Document):
    """A path below the context."""

    value: Annotated[str, AfterValidator(_path)]
    type: Literal["Exact", "PathPrefix"] = "Exact"

    @property
    def segments(self) -> tuple[str, ...]:
        """The segments below the context; a last `*` is the rest, as for every prefix."""
        parts = tuple(part for part in self.value.split("/") if part)
        return (*parts, "*") if self.type == "PathPrefix" and parts[-1:] != ("*",) else parts


class OperationMatch(Document):
    """The long form of an operation's method and path."""

    method: Method
    path: PathMatch
    headers: tuple[HeaderMatch, ...] = ()

    @property
    def shape(self) -> Hashable:
        """Equal for matches of the same requests, however they are written."""
        segments = tuple("{}" if part.startswith("{") else part for part in self.path.segments)
        headers = frozenset((one.name.lower(), one.value, one.type) for one in self.headers)
        return self.method, segments, headers


class Operation(Document):
    """One operation: `method` and `path`, or `match`."""

    method: Method | None = None
    path: Annotated[str, AfterValidator(_path)] | None = None
    match: OperationMatch | None = None
    policies: tuple[PolicyRef, ...] = ()
    resilience: Resilience | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        short = self.method is not None or self.path is not None
        if self.match is not None and short:
            raise wrong("give either method and path, or match, not both", "match")
        if self.match is None:
            if self.method is None:
                raise wrong("Operation method is required", "method")
            if self.path is None:
                raise wrong("Operation path is required", "path")
        return self

    @property
    def matcher(self) -> OperationMatch:
        """What a request must look like, in one form."""
        if self.match is not None:
            return self.match
        assert self.method is not None
        assert self.path is not None
        return OperationMatch(method=self.method, path=PathMatch(value=self.path))


class Vhosts(Document):
    """The hosts an API answers on; `_gateway_default_` stands for the gateway's own domains."""

    main: Annotated[str, AfterValidator(_hosts)]
    sandbox: Annotated[str, AfterValidator(_host)] | None = None


def _some_operations(operations: tuple[Operation, ...]) -> tuple[Operation, ...]:
    if not operations:
        raise ValueError("At least one operation is required")
    return operations


class RestApiSpec(Document):
    """What the API is."""

    display_name: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_display_name)]
    version: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_version)]
    context: Annotated[str, Field(max_length=200), AfterValidator(_context)]
    upstream_definitions: tuple[UpstreamDefinition, ...] = ()
    upstream: Upstreams
    vhosts: Vhosts | None = None
    subscription_plans: tuple[str, ...] = ()
    policies: tuple[PolicyRef, ...] = ()
    resilience: Resilience | None = None
    operations: Annotated[tuple[Operation, ...], AfterValidator(_some_operations)]
    deployment_state: Literal["deployed", "undeployed"] = "deployed"

    @model_validator(mode="after")
    def _short(self) -> Self:
        if len(self.resolved_context) > MAX_RESOLVED_CONTEXT:
            raise wrong(
                f"Context must be at most {MAX_RESOLVED_CONTEXT} characters long "
                "once $version is replaced",
                "context",
            )
        return self

    @property
    def resolved_context(self) -> str:
        """The context with `$version` replaced."""
        return self.context.replace("$version", self.version)

    def definition(self, name: str) -> UpstreamDefinition | None:
        """The upstream definition of that name."""
        return next((one for one in self.upstream_definitions if one.name == name), None)


class RestApi(Document):
    """A RestApi resource as applied. Cross-field rules live in `controller` validation."""

    api_version: ApiVersion
    kind: Literal["RestApi"]
    metadata: Metadata
    spec: RestApiSpec

    @property
    def id(self) -> str:
        """The handle."""
        return self.metadata.name

    def rendered(self) -> Self:
        """The resource as the data plane sees it: `$version` is replaced in the context."""
        if "$version" not in self.spec.context:
            return self
        spec = self.spec.model_copy(update={"context": self.spec.resolved_context})
        return self.model_copy(update={"spec": spec})
