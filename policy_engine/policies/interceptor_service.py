"""interceptor-service.

The names of what is exchanged are those of the public interceptor service contract (OpenAPI,
`/handle-request` and `/handle-response`).
"""

from base64 import b64encode
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

import orjson
import structlog
from pydantic import Field, ValidationError, model_validator

from policy_engine.hooks import (
    Answer,
    BodyVerdict,
    Exchange,
    FetchFailed,
    Headers,
    Phase,
    PythonPolicy,
    Verdict,
    json_answer,
)
from policy_engine.interceptor import FRAMING, InterceptorFailed, Reply
from policy_engine.parameters.headers import APPLICATION_HEADER, PRIVATE_PREFIX
from policy_engine.parameters.urls import BaseUrl
from policy_engine.policy import Document, Parameters, Routing, Version
from policy_engine.system import SystemParameters

_OK = 200
_AROUND_S = 0.25  # beside the call

log = structlog.get_logger()


class RequestPhase(Parameters):
    """What of the request the service gets."""

    include_request_headers: bool = True
    """Whether it gets the request's headers."""

    include_request_body: bool = True
    """Whether it gets the request's body. Only a body that it gets can it replace."""

    passthrough_on_error: bool = False
    """Whether requests go on as they are when the service fails; otherwise they are answered
    500."""


class ResponsePhase(Parameters):
    """What of the answer, and of the request before it, the service gets."""

    include_request_headers: bool = False
    """Whether it gets the headers that the upstream got."""

    include_request_body: bool = False
    """Whether it gets the body that the upstream got."""

    include_response_headers: bool = True
    """Whether it gets the answer's headers."""

    include_response_body: bool = True
    """Whether it gets the answer's body. Only a body that it gets can it replace."""

    passthrough_on_error: bool = False
    """Whether answers go on as they are when the service fails; otherwise the caller gets 500."""


@dataclass(slots=True)
class _Kept:
    """From one phase to the next."""

    context: dict[str, str]
    body: bytes = b""


class InterceptorService(PythonPolicy):
    """Lets a service of one's own look at requests and answers, change them, or answer itself.

    `POST {endpoint}/handle-request` gets `requestHeaders`, `requestBody` (base64) and
    `invocationContext` (`requestId`, `scheme`, `vhost`, `method`, `path`, `basePath`,
    `pathTemplate`, `apiName`, `apiVersion`); its reply may hold `directRespond` with
    `responseCode`, `headersToAdd` (which replaces, too), `headersToReplace`, `headersToRemove`,
    `pathToRewrite` (below the API's context; its query replaces the old one), `body` (base64),
    `dynamicEndpoint` and `interceptorContext`, which the call for the answer gets again. `POST
    {endpoint}/handle-response` gets `responseCode`, `responseHeaders` and `responseBody` besides,
    and may set `responseCode`, headers and body. A service that is away, too slow, or replies with
    anything else than 200 and such JSON has failed.

    `dynamicEndpoint: {"endpointName": "beta"}` sends the request to the API's upstream definition
    `beta`, with its base path, as `dynamic-endpoint` would; a `dynamic-endpoint` or `traffic-split`
    that runs later has the last word, and `mirror` copies no such requests. A name that the API
    does not have is answered 502, whatever `passthroughOnError` says, and told as a failure of the
    policy (`policy.failed`).
    """

    name: ClassVar[str] = "interceptor-service"
    version: ClassVar[Version] = Version(1, 1, 0)
    why_python: ClassVar[str] = "the service's JSON is written and its reply is followed in Python"
    example: ClassVar[Document] = {
        "endpoint": "https://interceptor.example.com/api/v1",
        "request": {"includeRequestBody": False},
        "response": {"includeResponseBody": True, "passthroughOnError": True},
        "timeoutMillis": 2000,
    }

    endpoint: BaseUrl
    """The service's base URL; `/handle-request` and `/handle-response` are below it."""

    request: RequestPhase | None = None
    """Asks the service about requests."""

    response: ResponsePhase | None = None
    """Asks the service about answers."""

    timeout_millis: Annotated[int, Field(ge=100, le=60_000)] = 5000
    """How long one call of the service may take, milliseconds."""

    tls_skip_verify: bool = False
    """Whether any certificate of the service will do; for tests only."""

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.request is None and self.response is None:
            raise ValueError("request or response is required")
        return self

    def phases(self) -> frozenset[Phase]:
        """No body is held up that the service does not get."""
        phases: set[Phase] = set()
        if self.request is not None:
            phases.add("request_body" if self.request.include_request_body else "request_headers")
        if self.response is not None:
            with_body = self.response.include_response_body
            phases.add("response_body" if with_body else "response_headers")
            if self.response.include_request_body:
                phases.add("request_body")
        return frozenset(phases)

    def routing(self) -> Routing:
        """The service may move the path, and choose the upstream."""
        return Routing(moves_path=self.request is not None, choosable=self.request is not None)

    def patience_s(self, system: SystemParameters) -> float:
        """One call for each hook."""
        del system
        return self.timeout_millis / 1000 + _AROUND_S

    async def on_request_headers(self, exchange: Exchange) -> Verdict:
        """Without the body, if the service does not get it."""
        if self.request is None or self.request.include_request_body:
            return None
        verdict = await self._request(exchange, self.request, None)
        return None if isinstance(verdict, bytes) else verdict

    async def on_request_body(self, exchange: Exchange, body: bytes) -> BodyVerdict:
        """With the body; kept, if the call for the answer gets it again."""
        verdict: BodyVerdict = None
        if self.request is not None and self.request.include_request_body:
            verdict = await self._request(exchange, self.request, body)
        if self.response is not None and self.response.include_request_body:
            self._kept(exchange).body = verdict if isinstance(verdict, bytes) else body
        return verdict

    async def on_response_headers(self, exchange: Exchange) -> Verdict:
        """Without the body, if the service does not get it."""
        if self.response is None or self.response.include_response_body:
            return None
        verdict = await self._response(exchange, self.response, None)
        return None if isinstance(verdict, bytes) else verdict

    async def on_response_body(self, exchange: Exchange, body: bytes) -> BodyVerdict:
        """With the body."""
        if self.response is None or not self.response.include_response_body:
            return None
        return await self._response(exchange, self.response, body)

    async def _request(
        self, exchange: Exchange, phase: RequestPhase, body: bytes | None
    ) -> BodyVerdict:
        asked: Document = {"invocationContext": _invocation(exchange)}
        if phase.include_request_headers:
            asked["requestHeaders"] = _shown(exchange.request.headers)
        if body is not None:
            asked["requestBody"] = b64encode(body).decode()
        try:
            reply = await self._call("handle-request", asked, exchange)
            reply.can_be_followed(body)
        except InterceptorFailed as error:
            return self._failed(exchange, error, goes_on=phase.passthrough_on_error)
        if reply.direct_respond:
            return Answer(
                reply.response_code or _OK,
                reply.body or b"",
                _answer_headers(reply),
                reason="answered by the interceptor service",
            )
        if reply.interceptor_context:
            self._kept(exchange).context = reply.interceptor_context
        reply.edit(exchange.request.headers)
        if reply.path_to_rewrite:
            exchange.request.path = _moved(exchange, reply.path_to_rewrite)
        if reply.upstream:
            exchange.send_to(reply.upstream)
        return reply.body

    async def _response(
        self, exchange: Exchange, phase: ResponsePhase, body: bytes | None
    ) -> BodyVerdict:
        response, kept = exchange.response, self._kept(exchange)
        if response is None:
            return None
        asked: Document = {
            "responseCode": response.status,
            "invocationContext": _invocation(exchange),
            "interceptorContext": kept.context,
        }
        if phase.include_request_headers:
            asked["requestHeaders"] = _shown(exchange.request.headers)
        if phase.include_request_body:
            asked["requestBody"] = b64encode(kept.body).decode()
        if phase.include_response_headers:
            asked["responseHeaders"] = _shown(response.headers)
        if body is not None:
            asked["responseBody"] = b64encode(body).decode()
        try:
            reply = await self._call("handle-response", asked, exchange)
            reply.can_be_followed(body)
            if reply.upstream:
                raise InterceptorFailed("dynamicEndpoint comes too late")  # noqa: TRY301
        except InterceptorFailed as error:
            return self._failed(exchange, error, goes_on=phase.passthrough_on_error)
        reply.edit(response.headers)
        if reply.response_code:
            response.status = reply.response_code
        return reply.body

    async def _call(
        self,
        what: Literal["handle-request", "handle-response"],
        asked: Document,
        exchange: Exchange,
    ) -> Reply:
        """Raises InterceptorFailed."""
        try:
            answer = await exchange.outside.fetch(
                "POST",
                f"{self.endpoint}/{what}",
                headers={"content-type": "application/json", "accept": "application/json"},
                body=orjson.dumps(asked),
                timeout_s=self.timeout_millis / 1000,
                verify=not self.tls_skip_verify,
                max_body_bytes=exchange.system.interceptor_max_response_bytes,
            )
        except FetchFailed as error:
            raise InterceptorFailed(str(error)) from error
        if answer.status != _OK:
            raise InterceptorFailed(f"status {answer.status}")
        try:
            return Reply.model_validate(orjson.loads(answer.body or b"{}"))
        except orjson.JSONDecodeError as error:
            raise InterceptorFailed(f"the reply is not JSON: {error}") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(one) for one in first["loc"])
            raise InterceptorFailed(f"the reply is wrong: {where} {first['msg']}") from error

    def _failed(
        self, exchange: Exchange, error: InterceptorFailed, *, goes_on: bool
    ) -> Answer | None:
        log.warning(
            "interceptor service failed",
            api=exchange.place.api_id,
            endpoint=self.endpoint,
            request_id=exchange.request_id,
            goes_on=goes_on,
            reason=str(error),
        )
        if goes_on:
            return None
        body = {"error": "Internal Server Error", "message": "The interceptor service failed"}
        return json_answer(500, body, reason=f"interceptor service: {error}")

    def _kept(self, exchange: Exchange) -> _Kept:
        kept = exchange.notes.setdefault(id(self), _Kept({}))
        assert isinstance(kept, _Kept)
        return kept


def _invocation(exchange: Exchange) -> Document:
    place, request = exchange.place, exchange.request
    about = {
        "requestId": exchange.request_id,
        "scheme": request.scheme,
        "vhost": request.authority,
        "method": request.method,
        "path": request.path,
        "basePath": place.context,
        "pathTemplate": place.operation_path,
        "apiName": place.api_name,
        "apiVersion": place.api_version,
    }
    return {name: value for name, value in about.items() if value is not None}


def _shown(headers: Headers) -> dict[str, str]:
    """All but pseudo headers and the gateway's own; of these only who calls."""
    return {
        name: headers.get(name) or ""
        for name in headers
        if not name.startswith((":", PRIVATE_PREFIX)) or name == APPLICATION_HEADER
    }


def _answer_headers(reply: Reply) -> tuple[tuple[str, str], ...]:
    every = {**reply.headers_to_add, **reply.headers_to_replace}
    return tuple((name.lower(), value) for name, value in every.items() if name.lower() != FRAMING)


def _moved(exchange: Exchange, path: str) -> str:
    """The path that was called, with `path` below the API's context; its query stays without one
    in `path`."""
    context = "" if exchange.place.context == "/" else exchange.place.context
    _, mark, query = exchange.request.path.partition("?")
    return f"{context}{path}" if "?" in path else f"{context}{path}{mark}{query}"
