"""log-message."""

import re
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import unquote_plus

import structlog
from pydantic import Field, model_validator

from policy_engine.hooks import Exchange, Headers, Phase, PythonPolicy
from policy_engine.parameters.headers import (
    APPLICATION_HEADER,
    PRIVATE_PREFIX,
    HeaderName,
    holds_secret,
)
from policy_engine.policy import Document, FailureMode, Parameters, Version

Flow = Literal["REQUEST", "RESPONSE"]

_MASK = "***"
_EVENTS = "text/event-stream"
_TEXTUAL = re.compile(r"(?i)text/|.*(json|xml|javascript|graphql|yaml|x-www-form-urlencoded)")
_IN_A_QUERY = re.compile(r"([?&#;]([^?&#;=\s]+)=)[^&#;\s\"'<>]+")

log = structlog.get_logger()


class Logged(Parameters):
    """What of one direction is written."""

    payload: bool = False
    """Whether the payload is."""

    headers: bool = False
    """Whether the headers are."""

    exclude_headers: Annotated[tuple[HeaderName, ...], Field(max_length=100)] = ()
    """Headers that are left out, in any case of their letters."""

    @property
    def wanted(self) -> bool:
        """Whether anything is."""
        return self.payload or self.headers


class LogMessage(PythonPolicy):
    """Writes headers and payloads of requests and answers to the log; traffic is not changed.

    The lines are in the log of the policy engine, with `flow` (`REQUEST`, `RESPONSE`), `api`,
    `api_version`, `operation`, `request_id`, `trace_id`, `application`, `method`, `path`, `status`:
    one with the headers when they are there, and one with the payload when its end is there (of
    event streams one for each part). Payloads are cut off after `log_message_max_payload_bytes`;
    of those that are no text only the length is written. What holds secrets (`Authorization`,
    cookies, keys, tokens, and `log_message_masked_headers`) is `***`, in the query, too.
    """

    name: ClassVar[str] = "log-message"
    version: ClassVar[Version] = Version(1, 0, 3)
    why_python: ClassVar[str] = "Envoy's access log cannot hold bodies"
    failure_mode: ClassVar[FailureMode] = "open"
    only_looks: ClassVar[bool] = True
    example: ClassVar[Document] = {
        "request": {"payload": True, "headers": True, "excludeHeaders": ["User-Agent"]},
        "response": {"headers": True},
    }

    request: Logged | None = None
    """What of requests is written."""

    response: Logged | None = None
    """What of answers is written."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.request is None and self.response is None:
            raise ValueError("request or response is required")
        return self

    def phases(self) -> frozenset[Phase]:
        """Bodies are looked at while they pass."""
        phases: set[Phase] = set()
        if self.request is not None and self.request.wanted:
            phases.add("request_headers")
            if self.request.payload:
                phases.add("request_chunk")
        if self.response is not None and self.response.wanted:
            phases.add("response_headers")
            if self.response.payload:
                phases.add("response_chunk")
        return frozenset(phases)

    def on_request_headers(self, exchange: Exchange) -> None:
        """The line with the headers."""
        if self.request is not None and self.request.headers:
            self._headers(exchange, "REQUEST", exchange.request.headers, self.request)

    def on_request_chunk(self, exchange: Exchange, chunk: bytes, *, last: bool) -> None:
        """Kept, as much as is to be written, until the end."""
        if self.request is not None and self.request.payload:
            self._chunk(exchange, "REQUEST", exchange.request.headers, chunk, last=last)

    def on_response_headers(self, exchange: Exchange) -> None:
        """The line with the headers."""
        response = exchange.response
        if response is not None and self.response is not None and self.response.headers:
            self._headers(exchange, "RESPONSE", response.headers, self.response)

    def on_response_chunk(self, exchange: Exchange, chunk: bytes, *, last: bool) -> None:
        """Kept, as much as is to be written, until the end; parts of event streams are not."""
        response = exchange.response
        if response is not None and self.response is not None and self.response.payload:
            self._chunk(exchange, "RESPONSE", response.headers, chunk, last=last)

    def _headers(self, exchange: Exchange, flow: Flow, headers: Headers, logged: Logged) -> None:
        left_out = {one.lower() for one in logged.exclude_headers}
        masked = {one.lower() for one in exchange.system.log_message_masked_headers}
        shown = {
            name: _MASK if _is_secret(name, masked) else _without_secrets(headers.get(name) or "")
            for name in headers
            if not name.startswith((":", PRIVATE_PREFIX)) and name not in left_out
        }
        log.info("message", **_about(exchange, flow), headers=shown)

    def _chunk(
        self, exchange: Exchange, flow: Flow, headers: Headers, chunk: bytes, *, last: bool
    ) -> None:
        most = exchange.system.log_message_max_payload_bytes
        kind = headers.get("content-type") or ""
        if kind.lower().startswith(_EVENTS):
            if chunk:
                self._payload(exchange, flow, headers, chunk[:most], len(chunk))
            return
        kept: tuple[bytearray, int] = exchange.notes.get((id(self), flow), (bytearray(), 0))
        beginning, length = kept
        beginning += chunk[: max(0, most - len(beginning))]
        length += len(chunk)
        exchange.notes[id(self), flow] = (beginning, length)
        if last and length:
            self._payload(exchange, flow, headers, bytes(beginning), length)

    def _payload(
        self, exchange: Exchange, flow: Flow, headers: Headers, beginning: bytes, length: int
    ) -> None:
        about = _about(exchange, flow)
        kind, coding = headers.get("content-type") or "", headers.get("content-encoding")
        if coding is None and (not kind or _TEXTUAL.match(kind)):
            about["payload"] = beginning.decode("utf-8", "replace")
        log.info("message", **about, payload_bytes=length, payload_cut_off=len(beginning) < length)


def _about(exchange: Exchange, flow: Flow) -> Document:
    """Which message it is: the same of every line about one request."""
    place, request = exchange.place, exchange.request
    about: Document = {
        "flow": flow,
        "api": place.api_id,
        "api_version": place.api_version,
        "operation": _operation(exchange),
        "request_id": exchange.request_id,
        "trace_id": _trace_id(request.headers),
        "application": request.headers.get(APPLICATION_HEADER),
        "method": request.method,
        "path": _without_secrets(request.path),
    }
    if flow == "RESPONSE" and exchange.response is not None:
        about["status"] = exchange.response.status
    return {name: value for name, value in about.items() if value is not None}


def _operation(exchange: Exchange) -> str | None:
    place = exchange.place
    if place.operation_path is None:
        return None
    return f"{place.operation_method or '*'} {place.operation_path}"


def _trace_id(headers: Headers) -> str | None:
    """Of the W3C trace context: what finds the request's spans."""
    parts = (headers.get("traceparent") or "").split("-")
    return parts[1] if len(parts) >= len(("version", "trace", "span", "flags")) else None


def _is_secret(name: str, masked: set[str]) -> bool:
    return name in masked or holds_secret(name)


def _without_secrets(text: str) -> str:
    """`text`, a path or the value of a header, with the secrets in its queries masked."""
    return _IN_A_QUERY.sub(_masked, text) if "=" in text else text


def _masked(match: re.Match[str]) -> str:
    return f"{match[1]}{_MASK}" if holds_secret(unquote_plus(match[2])) else match[0]
