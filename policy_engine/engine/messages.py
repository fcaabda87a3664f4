"""Envoy's external processing messages, as far as the engine reads and writes them.

Requests are looked into only as far as a policy does; the answers that say "go on" are bytes made
once. Source: https://www.envoyproxy.io/docs/envoy/v1.40.0/api-v3/service/ext_proc/v3/external_processor.proto
"""
# ruff: noqa: ANN401 - upb messages have no static type

from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, NamedTuple, Self

import orjson
from google.protobuf import json_format

from policy_engine.engine.header_edits import edited, header_mutation
from policy_engine.hooks import CHOICE_NAMESPACE, Answer, Headers, sendable
from policy_engine.refusals import WORDED_PREFIX
from xds.wire.messages import message_class

Kind = Literal["request_headers", "request_body", "response_headers", "response_body"]
KINDS: Final[tuple[Kind, ...]] = (
    "request_headers",
    "request_body",
    "response_headers",
    "response_body",
)

ProcessingRequest: Final = message_class("envoy.service.ext_proc.v3.ProcessingRequest")
ProcessingResponse: Final = message_class("envoy.service.ext_proc.v3.ProcessingResponse")

_REPLACE: Final = 1  # CommonResponse.ResponseStatus.CONTINUE_AND_REPLACE
_SEND: Final = 1  # ProcessingMode.HeaderSendMode.SEND
_UNSENDABLE: Final = (":status", "content-length", "transfer-encoding", "connection")


class _Entry(NamedTuple):
    """Like Envoy's HeaderValue."""

    key: str
    raw_value: bytes


SavedHeaders = dict[str, tuple[str, ...]]


class ReceivedHeaders(Headers):
    """Headers as Envoy sent them: looked through for one, decoded as a whole only when need be."""

    __slots__ = ("_decoded", "_names", "_received", "_told")

    def __init__(self, received: Any) -> None:
        """`received`: the entries of Envoy's HeaderMap."""
        self._received = received
        self._names: list[str] | None = None  # of `_received`, once one was looked for
        self._decoded = False
        self._edits: dict[str, tuple[str, ...]] = {}
        self._told: dict[str, tuple[str, ...]] | None = None  # edits that Envoy knows

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, str]]) -> Self:
        """Headers that Envoy has not seen yet; names in any case."""
        return cls(
            [
                _Entry(name.lower(), value.encode("utf-8", "surrogateescape"))
                for name, value in pairs
            ]
        )

    def __getattr__(self, name: str) -> Any:
        """Only reached while `_values` is not there."""
        if name != "_values":
            raise AttributeError(name)
        values: dict[str, tuple[str, ...]] = {}
        for one in self._received:
            key = one.key
            value = one.raw_value.decode("utf-8", "surrogateescape")
            values[key] = (*values[key], value) if key in values else (value,)
        for key, edit in self.every_edit().items():
            if edit:
                values[key] = edit
            else:
                values.pop(key, None)
        self._values = values
        self._decoded = True
        return values

    def get(self, name: str, default: str | None = None) -> str | None:
        """See `Headers`."""
        values = self.all(name)
        if not values:
            return default
        return values[0] if len(values) == 1 else ", ".join(values)

    def all(self, name: str) -> tuple[str, ...]:
        """See `Headers`."""
        lower = name.lower()
        if self._decoded:
            return self._values.get(lower, ())
        if lower in self._edits:
            return self._edits[lower]
        if self._told is not None and lower in self._told:
            return self._told[lower]
        names = self._names
        if names is None:
            names = self._names = [one.key for one in self._received]
        count = names.count(lower)
        if not count:
            return ()
        at = names.index(lower)
        values = [self._value(at)]
        while len(values) < count:
            at = names.index(lower, at + 1)
            values.append(self._value(at))
        return tuple(values)

    def _value(self, at: int) -> str:
        raw: bytes = self._received[at].raw_value
        return raw.decode("utf-8", "surrogateescape")

    def remove(self, name: str) -> None:
        """See `Headers`."""
        if self.all(name):
            lower = name.lower()
            self._edits[lower] = ()
            if self._decoded:
                del self._values[lower]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and bool(self.all(name))

    def _put(self, name: str, values: tuple[str, ...]) -> None:
        if self._decoded:
            super()._put(name, values)
            return
        lower = sendable(name, values[-1])
        self._edits[lower] = values

    def take_edits(self) -> dict[str, tuple[str, ...]]:
        """What was changed since the last time."""
        edits = self._edits
        if edits:
            self._told = {**(self._told or {}), **edits}
            self._edits = {}
        return edits

    def every_edit(self) -> dict[str, tuple[str, ...]]:
        """What was changed, also before `take_edits`."""
        return {**(self._told or {}), **self._edits}

    def saved(self) -> SavedHeaders:
        """As they are now, for `restore`."""
        return dict(self._edits)

    def restore(self, saved: SavedHeaders) -> None:
        """As they were when `saved` was taken; edits that Envoy knows stay."""
        self._edits = saved
        if self._decoded:
            del self._values
            self._decoded = False


def metadata_of(request: Any) -> dict[str, Any]:
    """Dynamic metadata that Envoy forwarded, by namespace."""
    return {
        name: json_format.MessageToDict(struct)
        for name, struct in request.metadata_context.filter_metadata.items()
    }


def _bare(kind: Kind) -> bytes:
    response = ProcessingResponse()
    getattr(response, kind).SetInParent()
    return bytes(response.SerializeToString())


GO_ON: Final[Mapping[str, bytes]] = {kind: _bare(kind) for kind in KINDS}
"""The answer to each kind of message that changes nothing."""


def _cleared(kind: Kind) -> bytes:
    response = ProcessingResponse()
    getattr(response, kind).response.body_mutation.clear_body = True
    return bytes(response.SerializeToString())


NOTHING: Final[Mapping[str, bytes]] = {
    kind: _cleared(kind) for kind in ("request_body", "response_body")
}
"""The answer to a chunk of a body that lets nothing of it pass."""


def changed(
    kind: Kind,
    *,
    edits: Mapping[str, tuple[str, ...]],
    body: bytes | None = None,
    override: Mapping[str, int] | None = None,
    published: Mapping[str, Mapping[str, Any]] | None = None,
) -> bytes:
    """The answer to a message of `kind` that changes something.

    `body` takes the place of the body; with headers of a message without one it is added.
    `override`: fields of ProcessingMode and their values, for what is still to come. With a choice
    of the upstream among what is `published` Envoy looks for the route again.
    """
    if body is None and override is None and not published:
        return edited(kind, edits)
    response = ProcessingResponse()
    part = getattr(response, kind)
    part.SetInParent()
    if published and CHOICE_NAMESPACE in published:
        part.response.clear_route_cache = True
        part.response.header_mutation.SetInParent()  # without it Envoy does not look again
    if edits or body is not None:
        common = part.response
        if edits:
            common.header_mutation.MergeFromString(header_mutation(edits))
        if body is not None:
            if body:
                common.body_mutation.body = body
            else:
                common.body_mutation.clear_body = True
            if kind.endswith("headers"):
                common.status = _REPLACE
    if override is not None:
        mode = response.mode_override
        mode.request_header_mode = mode.response_header_mode = _SEND
        for field, value in override.items():
            setattr(mode, field, value)
    if published:
        _publish(response, published)
    return bytes(response.SerializeToString())


def immediate(
    answer: Answer,
    policy: str,
    *,
    headers: Iterable[tuple[str, str]] | None = None,
    body: bytes | None = None,
    status: int | None = None,
    published: Mapping[str, Mapping[str, Any]] | None = None,
) -> bytes:
    """The caller gets `answer`, of `policy`; the others take the place of parts of it."""
    response = ProcessingResponse()
    told = response.immediate_response
    told.status.code = answer.status if status is None else status
    told.body = answer.body if body is None else body
    told.details = WORDED_PREFIX + policy
    sent: dict[str, tuple[str, ...]] = {}
    for name, value in answer.headers if headers is None else headers:
        lower = name.lower()
        if lower not in _UNSENDABLE:
            sent[lower] = (*sent.get(lower, ()), value)
    if sent:
        told.headers.MergeFromString(header_mutation(sent))
    if published:
        _publish(response, published)
    return bytes(response.SerializeToString())


def _publish(response: Any, published: Mapping[str, Mapping[str, Any]]) -> None:
    """What is no JSON goes as text: nothing is lost because a policy published an object."""
    try:
        response.dynamic_metadata.update(published)
    except (TypeError, ValueError):
        response.dynamic_metadata.Clear()
        plain = orjson.loads(orjson.dumps(published, default=str, option=orjson.OPT_NON_STR_KEYS))
        response.dynamic_metadata.update(plain)
