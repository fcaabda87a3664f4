"""HTTP headers as policies may name and set them, and what edits them in Envoy.

Source: RFC 9110, sections 5.1 (names), 5.5 (values) and 7.6.1 (connection headers).
"""

import re
import string
from collections.abc import Iterable
from typing import Annotated
from urllib.parse import quote

from pydantic import AfterValidator, Field

from policy_engine.policy import Document, literal, typed

PRIVATE_PREFIX = "x-signalbox-"
APPLICATION_HEADER = f"{PRIVATE_PREFIX}application"
"""Who calls, for later filters and the access log: printable ASCII, the rest percent-encoded."""

_PRINTABLE = string.printable.strip().replace("%", "") + " "
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_SECRET = re.compile(
    r"(?i)authorization|cookie|assertion|token|secret|passw|credential|signature|session"
    r"|(api|subscription|access)[-_]?key"
)
_FRAMING = frozenset(
    {
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_MUTATION = "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"


def token(name: str) -> str:
    """`name` if it is one that a header can have. Raises ValueError."""
    if name.startswith(":"):
        raise ValueError(f"{name!r} is a pseudo header: rewrites and routes decide it")
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"{name!r} is not a header name")
    return name


def editable(name: str) -> str:
    """`name` if a policy may read, set and remove that header. Raises ValueError."""
    lower = token(name).lower()
    if lower == "host":
        raise ValueError("'host' cannot be edited: the upstream's hostRewrite decides it")
    if lower in _FRAMING:
        raise ValueError(f"{name!r} belongs to the connection and cannot be edited")
    if lower.startswith(PRIVATE_PREFIX):
        raise ValueError(f"names that start with {PRIVATE_PREFIX!r} are the gateway's own")
    return name


def holds_secret(name: str) -> bool:
    """Whether what is called `name`, a header or a parameter, is known to hold secrets."""
    return _SECRET.search(name) is not None


def _value(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("must not contain line breaks or other control characters")
    return value


HeaderName = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(token)]
EditableHeaderName = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(editable)]
HeaderValue = Annotated[str, Field(max_length=8192), AfterValidator(_value)]


def caller(name: str) -> str:
    """`name` as a value of APPLICATION_HEADER."""
    return quote(name, safe=_PRINTABLE) or "-"


def overwrite(name: str, value: str) -> Document:
    """The mutation that leaves one header `name`, with `value` as it stands."""
    return {
        "append": {
            "header": {"key": name.lower(), "value": literal(value)},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
            "keep_empty_value": True,
        }
    }


def header_mutation(
    request: Iterable[Document] = (), response: Iterable[Document] = ()
) -> Document:
    """A `header_mutation` filter's configuration."""
    mutations = {"request_mutations": list(request), "response_mutations": list(response)}
    return typed(_MUTATION, {"mutations": {key: some for key, some in mutations.items() if some}})
