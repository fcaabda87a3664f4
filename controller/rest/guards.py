"""What every request of the management ports passes: counted, timed, and not forged.

Plain ASGI, because it costs microseconds where Starlette's base class costs tasks.
"""

from time import perf_counter
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controller.metrics import ControllerMetrics
from controller.rest.answers import answer, refusal

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_OURS = frozenset({"same-origin", "none"})


class Measure:
    """Counts and times requests by route."""

    def __init__(self, app: ASGIApp, metrics: ControllerMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        status, sent_bytes, received_bytes = 500, 0, 0

        async def counting_receive() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            return message

        async def counting_send(message: Message) -> None:
            nonlocal status, sent_bytes
            if message["type"] == "http.response.start":
                status = message["status"]
            sent_bytes += len(message.get("body", b""))
            await send(message)

        metrics = self._metrics
        try:
            with metrics.concurrent_requests.track_inprogress():
                await self._app(scope, counting_receive, counting_send)
        finally:
            endpoint = getattr(scope.get("route"), "path", "unmatched")
            method = scope["method"] if endpoint != "unmatched" else "ANY"
            metrics.http_requests.labels(method, endpoint, str(status)).inc()
            metrics.http_request_s.labels(method, endpoint).observe(perf_counter() - began)
            metrics.http_request_bytes.labels(endpoint).observe(received_bytes)
            metrics.http_response_bytes.labels(endpoint).observe(sent_bytes)


class SameOrigin:
    """Refuses changes that a browser sends on behalf of another site.

    Browsers send stored basic credentials along, whoever wrote the page; and they say whose page
    it was in `Sec-Fetch-Site`, older ones in `Origin`. Programs send neither.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http" and scope["method"] not in _SAFE:
            headers = Headers(scope=scope)
            site, origin = headers.get("sec-fetch-site"), headers.get("origin")
            foreign = (
                site not in _OURS
                if site is not None
                else origin is not None and urlsplit(origin).netloc != headers.get("host")
            )
            if foreign:
                refused = answer(refusal("Changes from pages of other sites are refused"), 403)
                await refused(scope, receive, send)
                return
        await self._app(scope, receive, send)
