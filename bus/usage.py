"""Usage events: what the routers served, and what of it could not be kept.

A batch is columnar: what repeats is said once (`groups`), what differs is one list per fact. That
keeps a request at about 30 bytes of JSON, and lets readers count without an object per request.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from bus.events import Event
from bus.subjects import Family

APPLICATION_HEADER = "x-signalbox-application"
"""Request header in which an authenticating policy tells the access log who calls.

The listener strips it from what callers send.
"""

SUBSCRIPTION_HEADER = "x-signalbox-subscription"
"""Request header in which `subscription-validation` tells by which subscription the caller came.

The listener strips it, too.
"""

HEADER_FILTER_NAMESPACE = "signalbox.analytics"
"""Dynamic metadata in which `analytics-header-filter` tells which headers are not to be recorded:
use of the policy -> `request`, `response` -> `{mode, headers}`."""

Moment = Annotated[int, Field(ge=0, lt=1 << 42)]  # Unix time in ms, up to the year 2109
Column = tuple[Annotated[int, Field(ge=0, lt=1 << 48)], ...]
"""One number per request of the batch, in the order of the access log."""


class ServedGroup(BaseModel):
    """What requests of one batch have in common."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    route: str = ""
    """Envoy's route name: a `bus.route_key.RouteKey`, another name, or empty: no route matched."""
    application: str = ""
    """Who called, as the authenticating policy said; empty when nobody asked."""
    subscription: str = ""
    """By which subscription, its id; empty when nobody asked."""
    status: Annotated[int, Field(ge=0, le=999)] = 0
    """HTTP status; 0 when the caller left before an answer."""
    details: str = ""
    """Envoy's response code details up to the first `{`: `via_upstream`, `local_rate_limited`."""
    shadow: tuple[str, ...] = ()
    """Policies in shadow mode that would have refused, each with its reason: `rbac: denied`."""


class RequestsServed(Event, kind="usage.requests-served", family=Family.USAGE):
    """Requests that one router has finished: one batch of its access log."""

    node: str  # Envoy's node id
    since_ms: Moment  # start of the earliest request, Unix time
    groups: tuple[ServedGroup, ...]
    group: Column  # index into `groups`
    after_ms: Column  # start of the request, after `since_ms`
    duration_us: Column  # first byte received to last byte sent
    upstream_us: Column  # of these, waiting for the upstream; 0 when none was called
    request_bytes: Column  # headers and body
    response_bytes: Column  # headers and body
    request_headers: tuple[dict[str, str], ...] = ()
    """The different sets of headers that requests came with, of those that are recorded."""
    request_header_set: Column = ()  # index into `request_headers`; empty: nothing is recorded
    response_headers: tuple[dict[str, str], ...] = ()
    """The different sets of headers that answers had, of those that are recorded."""
    response_header_set: Column = ()  # index into `response_headers`; empty: nothing is recorded

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by router: a batch holds requests of many APIs."""
        return (self.node or "unknown",)

    @model_validator(mode="after")
    def _columns_fit(self) -> Self:
        count = len(self.group)
        for name in ("after_ms", "duration_us", "upstream_us", "request_bytes", "response_bytes"):
            if len(getattr(self, name)) != count:
                raise ValueError(f"column {name} does not have {count} entries")
        if count and max(self.group) >= len(self.groups):
            raise ValueError("column group points beyond groups")
        for name in ("request_header", "response_header"):
            column, sets = getattr(self, f"{name}_set"), getattr(self, f"{name}s")
            if column and (len(column) != count or max(column) >= len(sets)):
                raise ValueError(f"column {name}_set does not fit {name}s")
        return self


class AccessLogGap(Event, kind="usage.access-log-gap", family=Family.USAGE):
    """Access-log entries of one router that were received and could not be kept."""

    node: str
    entries: Annotated[int, Field(ge=1, lt=1 << 48)]
    """How many; an access-log message that could not be read at all counts as one."""
    since_ms: Moment  # first loss, Unix time
    until_ms: Moment  # last loss, Unix time
    reason: Literal["buffer-full", "unreadable", "refused"]
    """The bus was away too long, the message was not one, or the bus would not take the event."""

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by router."""
        return (self.node or "unknown",)
