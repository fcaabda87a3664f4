"""Envoy's part of an exchange with the engine, played: for tests of policies without Envoy.

It sends the messages that Envoy would for the filters of the hops, in its order, and does to the
request and the answer what the engine says.
"""
# ruff: noqa: ANN401 - upb messages have no static type

import asyncio
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from google.protobuf import json_format
from pydantic_core import to_jsonable_python

from policy_engine.engine.call import Call
from policy_engine.engine.messages import ProcessingRequest, ProcessingResponse
from policy_engine.engine.runtime import Runtime
from policy_engine.hooks import CHOICE_NAMESPACE, Answer
from policy_engine.hop import BodySendMode, Hop, ext_proc

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: of a caller, or as the upstream gets it."""

    method: str = "GET"
    path: str = "/"  # with its query, and with the context of the API
    headers: Mapping[str, str] | Headers = ()
    body: bytes = b""
    authority: str = "api.example"

    def header(self, name: str) -> str | None:
        """The value of `name` in any case, several joined by `, `; None without one."""
        return _joined(_pairs(self.headers), name)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request."""

    status: int
    headers: Headers  # of the answer, lower-case names
    body: bytes
    upstream: Asked | None  # as the upstream got it; None: it was not asked
    answered_by: str = ""  # the policy that answered instead of the upstream
    chunks: tuple[bytes, ...] = ()  # of the answer, as they were passed on
    would_have: Mapping[str, str] = field(default_factory=dict)
    """Policies in shadow mode that would have answered, and why."""
    published: Mapping[str, Any] = field(default_factory=dict)
    failures: tuple[str, ...] = ()  # policies that failed: name, phase, kind, reason
    sent_to: str | None = None  # the upstream definition that a policy has chosen

    def header(self, name: str) -> str | None:
        """The value of a header of the answer in any case; None without one."""
        return _joined(self.headers, name)


@dataclass(slots=True)
class _Message:
    """A request or an answer on its way through the chain."""

    headers: list[tuple[str, str]]
    chunks: list[bytes]

    @property
    def body(self) -> bytes:
        return b"".join(self.chunks)

    def value(self, name: str) -> str:
        return _joined(tuple(self.headers), name) or ""

    def replace(self, body: bytes) -> None:
        self.chunks = [body] if body else []


class _Immediate(Exception):
    """A policy answers instead of the upstream."""

    def __init__(self, message: _Message, by: str) -> None:
        super().__init__(by)
        self.message = message
        self.by = by


class Play:
    """One request through all hops, and its answer back through them."""

    def __init__(
        self, runtime: Runtime, hops: Sequence[Hop], metadata: dict[str, Mapping[str, Any]]
    ) -> None:
        self._runtime = runtime
        self._metadata: dict[str, dict[str, Any]] = {
            name: dict(values) for name, values in metadata.items()
        }
        self._legs = [_Leg(runtime, hop, self._metadata) for hop in hops]

    async def run(
        self,
        asked: Asked,
        parts: list[bytes],
        answer: Answer | Callable[[Asked], Answer] | None,
        answer_chunks: Sequence[bytes] | None,
    ) -> Outcome:
        """The outcome of `asked` with its body in `parts`, and of the upstream's answer."""
        message = _Message(_request_headers(asked, sum(map(len, parts))), parts)
        upstream: Asked | None = None
        by, entered = "", 0
        try:
            for leg in self._legs:
                entered += 1
                await leg.pass_on("request", message)
            upstream = _as_asked(message)
            reply = answer(upstream) if callable(answer) else answer or Answer(200)
            chunks = list(answer_chunks) if answer_chunks is not None else [reply.body]
            back = _answer(reply, [one for one in chunks if one])
        except _Immediate as given:
            back, by, entered = given.message, given.by, entered - 1
        position = entered
        while position > 0:
            position -= 1
            try:
                await self._legs[position].pass_on("response", back)
            except _Immediate as given:
                back, by = given.message, given.by
        for leg in self._legs:
            leg.end()
        shadow = self._metadata.get("signalbox.shadow", {})
        return Outcome(
            status=int(back.value(":status") or 0),
            headers=tuple(pair for pair in back.headers if not pair[0].startswith(":")),
            body=back.body,
            upstream=upstream,
            answered_by=by,
            chunks=tuple(back.chunks),
            would_have={name: str(why) for name, why in shadow.items()},
            published=self._metadata.get("signalbox", {}),
            sent_to=self._metadata.get(CHOICE_NAMESPACE, {}).get("upstream"),
            failures=tuple(
                f"{one.policy} {one.phase} {one.kind}: {one.reason}"
                for one in self._runtime.failures.taken()
            ),
        )


class _Stream:
    """The engine's end of a call, without a connection: a `xds.wire.h2.Stream`."""

    def __init__(self, hop: str) -> None:
        self.field = hop
        self.said: asyncio.Queue[bytes | BaseException] = asyncio.Queue()
        self.finished = False

    def send(self, message: bytes) -> None:
        self.said.put_nowait(message)

    def send_and_finish(self, message: bytes) -> None:
        self.send(message)
        self.finish()

    def finish(self) -> None:
        self.finished = True

    def hold(self, size: int) -> bool:
        del size
        return True

    def failed(self, error: BaseException) -> None:
        self.finished = True
        self.said.put_nowait(error)


class _Leg:
    """One hop, as Envoy's filter for it behaves."""

    def __init__(self, runtime: Runtime, hop: Hop, metadata: dict[str, dict[str, Any]]) -> None:
        self._hop = hop
        self._modes = dict(ext_proc(hop)["processing_mode"])
        self._metadata = metadata
        self._stream = _Stream(hop.name)
        self._call = Call(runtime, self._stream)  # type: ignore[arg-type]  # all that it uses

    async def pass_on(self, direction: str, message: _Message) -> None:
        """Let the hop see `message`, and do what it says. Raises _Immediate."""
        if self._stream.finished or self._modes[f"{direction}_header_mode"] == "SKIP":
            return
        chunks = message.chunks
        reply = await self._tell(
            f"{direction}_headers",
            {"headers": {"headers": _wire(message.headers)}, "endOfStream": not chunks},
        )
        common = self._apply(reply, f"{direction}_headers", message)
        if common is not None and common.status:  # CONTINUE_AND_REPLACE
            message.replace(common.body_mutation.body)
            return
        mode = self._modes[f"{direction}_body_mode"]
        if reply.HasField("mode_override"):
            number = getattr(reply.mode_override, f"{direction}_body_mode")
            mode = get_args(BodySendMode)[number]
        if not chunks or mode == "NONE" or self._stream.finished:
            return
        if mode != "STREAMED":
            chunks = [message.body]
        passed: list[bytes] = []
        for number, chunk in enumerate(chunks):
            if self._stream.finished:
                passed.append(chunk)
                continue
            last = number == len(chunks) - 1
            reply = await self._tell(f"{direction}_body", {"endOfStream": last}, chunk)
            headers_are_gone = mode == "STREAMED"
            common = self._apply(reply, f"{direction}_body", None if headers_are_gone else message)
            passed.append(_body(common, chunk))
        message.chunks = [one for one in passed if one]

    def end(self) -> None:
        """The request is over."""
        self._call.lost()

    async def _tell(self, kind: str, part: dict[str, Any], body: bytes = b"") -> Any:
        request = ProcessingRequest()
        json_format.ParseDict(part, getattr(request, kind))
        if kind.endswith("_body"):
            getattr(request, kind).body = body
        getattr(request, kind).SetInParent()
        for namespace in self._hop.namespaces:
            values = self._metadata.get(namespace)
            if values:
                struct = request.metadata_context.filter_metadata[namespace]
                json_format.ParseDict(to_jsonable_python(values, fallback=str), struct)
        self._call.message(request.SerializeToString())
        said = await self._stream.said.get()
        if isinstance(said, BaseException):
            raise said
        return ProcessingResponse.FromString(said)

    def _apply(self, reply: Any, kind: str, message: _Message | None) -> Any:
        """Take over what the reply changes; its common part. Raises _Immediate."""
        for namespace, value in reply.dynamic_metadata.fields.items():
            known = self._metadata.setdefault(namespace, {})
            known |= json_format.MessageToDict(value.struct_value)
        if reply.WhichOneof("response") == "immediate_response":
            told = reply.immediate_response
            headers = [(":status", str(told.status.code))]
            _edit(headers, told.headers)
            if told.body:
                _set(headers, "content-length", str(len(told.body)))
            by = told.details.partition(":")[2]
            raise _Immediate(_Message(headers, [told.body] if told.body else []), by)
        common = getattr(reply, kind).response if reply.WhichOneof("response") == kind else None
        if common is not None and message is not None:
            _edit(message.headers, common.header_mutation)
            if common.HasField("body_mutation") and kind.endswith("_body"):
                _set(message.headers, "content-length", str(len(common.body_mutation.body)))
        return common


def _body(common: Any, chunk: bytes) -> bytes:
    if common is None or not common.HasField("body_mutation"):
        return chunk
    mutation = common.body_mutation
    return b"" if mutation.clear_body else bytes(mutation.body)


def _edit(headers: list[tuple[str, str]], mutation: Any) -> None:
    for name in mutation.remove_headers:
        headers[:] = [pair for pair in headers if pair[0] != name]
    for option in mutation.set_headers:
        name = option.header.key
        value = option.header.raw_value.decode("utf-8", "surrogateescape")
        if option.append.value:
            headers.append((name, value))
        else:
            _set(headers, name, value)


def _set(headers: list[tuple[str, str]], name: str, value: str) -> None:
    headers[:] = [pair for pair in headers if pair[0] != name]
    headers.append((name, value))


def _request_headers(asked: Asked, length: int) -> list[tuple[str, str]]:
    headers = [
        (":method", asked.method),
        (":scheme", "https"),
        (":authority", asked.authority),
        (":path", asked.path),
        *_pairs(asked.headers),
    ]
    if length and not any(name == "content-length" for name, _ in headers):
        headers.append(("content-length", str(length)))
    return headers


def _as_asked(message: _Message) -> Asked:
    return Asked(
        message.value(":method"),
        message.value(":path"),
        tuple(pair for pair in message.headers if not pair[0].startswith(":")),
        message.body,
        message.value(":authority"),
    )


def _answer(answer: Answer, chunks: list[bytes]) -> _Message:
    headers = [(":status", str(answer.status)), *_pairs(answer.headers)]
    if len(chunks) == 1 and not any(name == "content-length" for name, _ in headers):
        headers.append(("content-length", str(len(chunks[0]))))
    return _Message(headers, chunks)


def _pairs(headers: Mapping[str, str] | Headers) -> Headers:
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return tuple((name.lower(), value) for name, value in pairs)


def _joined(pairs: Headers, name: str) -> str | None:
    values = [value for known, value in pairs if known == name.lower()]
    return ", ".join(values) if values else None


def _wire(headers: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Header values travel as bytes: base64 in the JSON form."""
    return [
        {"key": name, "rawValue": b64encode(value.encode("utf-8", "surrogateescape")).decode()}
        for name, value in headers
    ]
