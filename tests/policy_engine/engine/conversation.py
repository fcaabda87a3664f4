"""What Envoy says to the engine, without Envoy: messages by hand, and a stream that listens."""

from collections.abc import Iterable
from typing import Any

from policy_engine.chain import hop_of
from policy_engine.engine.call import Call
from policy_engine.engine.messages import ProcessingRequest, ProcessingResponse
from policy_engine.engine.outside import Internet
from policy_engine.engine.runtime import Runtime
from policy_engine.policy import Scope
from tests.policy_engine.engine.trial_policies import TRIALS
from tests.policy_engine.python_gateway import catalogue_with

HEADERS = (
    (":authority", "shop.example"),
    (":path", "/orders?page=2"),
    (":method", "POST"),
    (":scheme", "https"),
    ("x-client", "me"),
    ("x-request-id", "4e44127b-1a03-4e40-8de6-e6b201a92335"),
)
CATALOGUE = catalogue_with(TRIALS, None)


class Listener:
    """A stream that keeps what it is told."""

    def __init__(self, hop: str) -> None:
        self.field = hop
        self.finished = False
        self.said: list[Any] = []

    def send(self, message: bytes) -> None:
        assert not self.finished
        self.said.append(ProcessingResponse.FromString(message))

    def send_and_finish(self, message: bytes) -> None:
        self.send(message)
        self.finished = True

    def finish(self, status: int = 0, message: str = "") -> None:
        self.finished = True

    def hold(self, size_bytes: int) -> bool:
        return True

    def failed(self, error: BaseException) -> None:
        raise error


def runtime_of(*refs: Any) -> tuple[Runtime, str]:
    """A runtime that knows the one hop of these policies, and the hop's name."""
    runtime = Runtime(CATALOGUE, Internet())
    scope = Scope("api", "tried", "Tried", "v1", "/")
    hop = hop_of((CATALOGUE.attach(ref) for ref in refs), scope)
    runtime.learn({hop.name: hop.document()})
    return runtime, hop.name


def request_headers(*, ended: bool = False, headers: Iterable[tuple[str, str]] = HEADERS) -> bytes:
    request = ProcessingRequest()
    _headers(request.request_headers, headers, ended)
    return bytes(request.SerializeToString())


def response_headers(*, ended: bool = False, status: int = 200) -> bytes:
    request = ProcessingRequest()
    _headers(request.response_headers, ((":status", str(status)), ("content-type", "x/y")), ended)
    return bytes(request.SerializeToString())


def body(kind: str, data: bytes, *, ended: bool = True) -> bytes:
    request = ProcessingRequest()
    part = getattr(request, kind)
    part.body, part.end_of_stream = data, ended
    return bytes(request.SerializeToString())


def _headers(part: Any, headers: Iterable[tuple[str, str]], ended: bool) -> None:
    for name, value in headers:
        one = part.headers.headers.add()
        one.key, one.raw_value = name, value.encode()
    part.end_of_stream = ended


def call(runtime: Runtime, hop: str) -> tuple[Call, Listener]:
    """A call for `hop` that has just begun."""
    listener = Listener(hop)
    return Call(runtime, listener), listener  # type: ignore[arg-type]
