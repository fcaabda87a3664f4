"""respond."""

from typing import Annotated, ClassVar

from pydantic import AfterValidator, Field

from policy_engine.errors import PolicyNotCompiled
from policy_engine.parameters.headers import EditableHeaderName, HeaderValue
from policy_engine.policy import (
    DirectAnswer,
    Document,
    HttpFilter,
    Parameters,
    Policy,
    Purpose,
    Scope,
    Version,
    literal,
)
from policy_engine.shadow import noting

LONGEST_BODY_BYTES = 1 << 20  # `max_direct_response_body_size_bytes` of the route configuration
_FIRST_FINAL = 200
_WITHOUT_BODY = (204, 304)


def _body(body: str) -> str:
    if len(body.encode()) > LONGEST_BODY_BYTES:
        raise ValueError(f"must be at most {LONGEST_BODY_BYTES} bytes long")
    return body


class AnswerHeader(Parameters):
    """One header of the answer."""

    name: EditableHeaderName
    """The header, in any case; pseudo headers, `host` and connection headers cannot be set."""

    value: HeaderValue
    """Its value, taken literally."""


class Respond(Policy):
    """Answers the request itself; no upstream is called and no later policy runs."""

    name: ClassVar[str] = "respond"
    version: ClassVar[Version] = Version(1, 0, 1)
    purpose: ClassVar[Purpose] = "answers"
    example: ClassVar[Document] = {
        "statusCode": 503,
        "body": '{"error":"Closed for maintenance"}',
        "headers": [{"name": "Content-Type", "value": "application/json"}],
    }

    status_code: Annotated[int, Field(ge=100, le=599)] = 200
    """The status. An interim one (100 to 199) is no answer to a request: such an API is refused by
    the router, with the reason on its status."""

    body: Annotated[str, AfterValidator(_body)] = ""
    """The body, at most 1 MiB; statuses 204 and 304 have none. Without a `Content-Type` among the
    headers it is text/plain."""

    headers: Annotated[tuple[AnswerHeader, ...], Field(max_length=100)] = ()
    """Headers of the answer; of two with the same name the later one stays."""

    def shadow(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """Every request is reported."""
        note = noting(self.name, f"answers {self.status_code}")
        return (HttpFilter(scope.unique(self.name), note),)

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """None: the route answers. Raises PolicyNotCompiled for an interim status."""
        del scope
        if self.status_code < _FIRST_FINAL:
            raise PolicyNotCompiled(
                self.name,
                f"statusCode {self.status_code} is interim: HTTP needs a final status, 200 to 599",
                parameter="statusCode",
            )
        return ()

    def answer(self) -> DirectAnswer:
        """The answer, always."""
        headers = {one.name.lower(): literal(one.value) for one in self.headers}
        body = "" if self.status_code in _WITHOUT_BODY else self.body
        return DirectAnswer(self.status_code, body, tuple(headers.items()))
