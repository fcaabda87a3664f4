"""The exchange that policies see, backed by Envoy's messages."""

from collections.abc import Mapping
from typing import Any

from policy_engine.engine.messages import ReceivedHeaders, metadata_of
from policy_engine.hooks import Answer, Exchange, Outside, Place, Request, Response
from policy_engine.system import SystemParameters

_REQUEST_ID = "x-request-id"


class LiveRequest(Request):
    """With headers that can be restored."""

    __slots__ = ()
    headers: ReceivedHeaders


class LiveResponse(Response):
    """With headers that can be restored."""

    __slots__ = ()
    headers: ReceivedHeaders


class LiveExchange(Exchange):
    """An exchange that reads what it is asked for only then."""

    __slots__ = ("_forwarded", "_metadata")

    request: LiveRequest
    response: LiveResponse | None

    def __init__(
        self, place: Place, headers: ReceivedHeaders, outside: Outside, system: SystemParameters
    ) -> None:
        self.place = place
        self.request = LiveRequest(headers)
        self.outside = outside
        self.response = None
        self.published = {}
        self.notes = {}
        self.system = system
        self.upstream = None
        self._forwarded: Any = None
        self._metadata: Mapping[str, Mapping[str, Any]] | None = None

    @property
    def request_id(self) -> str:  # type: ignore[override]  # a field there
        """What Envoy calls the request; empty without one."""
        return self.request.headers.get(_REQUEST_ID) or ""

    @property
    def metadata(self) -> Mapping[str, Mapping[str, Any]]:  # type: ignore[override]
        """As Envoy forwarded it with the latest message."""
        if self._metadata is None:
            self._metadata = {} if self._forwarded is None else metadata_of(self._forwarded)
        return self._metadata

    def forwarded_with(self, request: Any) -> None:  # noqa: ANN401 - a upb message
        """Dynamic metadata came with this ProcessingRequest."""
        self._forwarded, self._metadata = request, None

    def answered_by(self, answer: Answer, *, keep_edits: bool) -> Response:
        """The response is what a policy says from now on.

        `keep_edits`: with the headers that policies have set on the one it replaces.
        """
        headers = ReceivedHeaders.of(((":status", str(answer.status)), *answer.headers))
        if keep_edits and self.response is not None:
            for name, values in self.response.headers.every_edit().items():
                if not name.startswith((":", "content-")) and name not in headers:
                    for value in values:
                        headers.append(name, value)
        self.response = response = LiveResponse(headers)
        return response

    def copy(self) -> "LiveExchange":
        """For a policy in shadow mode: it sees all, and changes nothing."""
        made = LiveExchange(
            self.place,
            ReceivedHeaders.of(self.request.headers.items()),
            self.outside,
            self.system,
        )
        if self.response is not None:
            made.response = LiveResponse(ReceivedHeaders.of(self.response.headers.items()))
        made.published = dict(self.published)
        made.notes = self.notes
        made.upstream = self.upstream
        made._forwarded, made._metadata = self._forwarded, self._metadata
        return made
