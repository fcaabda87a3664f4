"""What an interceptor service may say: its reply, as the gateway follows it.

The names are those of the public interceptor service contract (OpenAPI, `/handle-request` and
`/handle-response`).
"""

from base64 import b64decode
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from policy_engine.hooks import Headers
from policy_engine.parameters.headers import HeaderValue, editable

_OK = 200
FRAMING = "content-length"
"""Follows from the body; in replies it is not looked at."""


class InterceptorFailed(Exception):
    """The service gave no answer that can be followed."""


def _decoded(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("must be base64")  # noqa: TRY004 - pydantic takes ValueError
    return b64decode(text, validate=True)


class DynamicEndpoint(BaseModel):
    """Another upstream for the request."""

    model_config = ConfigDict(alias_generator=to_camel)

    endpoint_name: str


class Reply(BaseModel):
    """What the service wants; fields that are not known are not looked at, trailers among them."""

    model_config = ConfigDict(alias_generator=to_camel)

    direct_respond: bool = False
    response_code: Annotated[int, Field(ge=0, le=599)] = 0
    headers_to_add: dict[str, HeaderValue] = {}
    headers_to_replace: dict[str, HeaderValue] = {}
    headers_to_remove: list[str] = []
    path_to_rewrite: str = ""
    dynamic_endpoint: DynamicEndpoint | None = None
    body: Annotated[bytes, BeforeValidator(_decoded)] | None = None  # None: it stays
    interceptor_context: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: object) -> object:
        """Generated servers write null for what they do not set."""
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if value is not None}

    @model_validator(mode="after")
    def _sound(self) -> Self:
        for name in (*self.headers_to_add, *self.headers_to_replace, *self.headers_to_remove):
            if name.lower() != FRAMING:
                editable(name)
        if self.response_code and self.response_code < _OK:
            raise ValueError("responseCode must be 200 to 599")
        if self.path_to_rewrite and not self.path_to_rewrite.startswith("/"):
            raise ValueError("pathToRewrite must start with /")
        if not all("!" <= one <= "~" for one in self.path_to_rewrite):
            raise ValueError("pathToRewrite must be printable ASCII without spaces")
        return self

    @property
    def upstream(self) -> str:
        """The upstream definition that the request is for; empty: as the API says."""
        return "" if self.dynamic_endpoint is None else self.dynamic_endpoint.endpoint_name

    def can_be_followed(self, sent: bytes | None) -> None:
        """Raises InterceptorFailed if it is about a body that was not `sent`."""
        if self.body is not None and sent is None and not self.direct_respond:
            raise InterceptorFailed("it replaces a body that it has not been sent")

    def edit(self, headers: Headers) -> None:
        """Remove, then set; what is in both stays as `headersToReplace` has it."""
        for name in self.headers_to_remove:
            headers.remove(name)
        for name, value in {**self.headers_to_add, **self.headers_to_replace}.items():
            if name.lower() != FRAMING:
                headers.set(name, value)
