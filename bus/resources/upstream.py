"""Upstreams: where an API's requests go."""

import re
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from bus.resources.document import Document, PositiveDuration, wrong

SPACE_OR_CONTROL = re.compile(r"[\s\x00-\x1f\x7f]")
"""What no URL and no path may hold."""

_DEFINITION_NAME = re.compile(r"[a-zA-Z0-9\-_]+")
_URL_HOST = re.compile(r"[a-zA-Z0-9_]([a-zA-Z0-9\-_.]*[a-zA-Z0-9_.])?|\[[0-9a-fA-F:.]+\]")


def _http_url(text: str, *, upstream: bool = False) -> str:
    """`text` if it is an http or https URL with a host. Raises ValueError."""
    if SPACE_OR_CONTROL.search(text):
        raise ValueError("URL must not include whitespace or control characters")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"URL is malformed: {error}") from error
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"{'Upstream ' if upstream else ''}URL must use http or https scheme")
    if not parts.hostname:
        raise ValueError("URL must include a host")
    if parts.username is not None or parts.password is not None:
        raise ValueError("URL must not include credentials")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if not _URL_HOST.fullmatch(host):
        raise ValueError(f"URL host {parts.hostname!r} is not a host name or an IP address")
    if port == 0:
        raise ValueError("URL port must be between 1 and 65535")
    if "?" in text:
        raise ValueError("URL must not include a query string")
    if "#" in text:
        raise ValueError("URL must not include a fragment")
    return text


def _target_url(text: str) -> str:
    _http_url(text)
    if urlsplit(text).path not in ("", "/"):
        raise ValueError("URL must not include a path; use basePath")
    return text


def _upstream_url(text: str) -> str:
    return _http_url(text, upstream=True)


def _base_path(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError("basePath must start with '/'")
    if text != "/" and text.endswith("/"):
        raise ValueError("basePath must not end with '/'")
    if "?" in text or "#" in text:
        raise ValueError("basePath must not include a query string or a fragment")
    if SPACE_OR_CONTROL.search(text):
        raise ValueError("basePath must not include whitespace or control characters")
    return text


def _definition_name(text: str) -> str:
    if not _DEFINITION_NAME.fullmatch(text):
        raise ValueError("Upstream definition name may only hold letters, digits, '-' and '_'")
    return text


class UpstreamTarget(Document):
    """One address of an upstream definition."""

    url: Annotated[str, AfterValidator(_target_url)]
    weight: Annotated[int, Field(ge=0, le=100)] | None = None


class UpstreamTimeout(Document):
    """Timeouts of the connection to an upstream."""

    connect: PositiveDuration | None = None


class UpstreamDefinition(Document):
    """A named upstream that `ref` and policies can point to."""

    name: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_definition_name)]
    base_path: Annotated[str, AfterValidator(_base_path)] | None = None
    timeout: UpstreamTimeout | None = None
    upstreams: Annotated[tuple[UpstreamTarget, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _weighted(self) -> Self:
        if all(target.weight == 0 for target in self.upstreams):
            raise wrong("at least one upstream must have a weight above 0", "upstreams")
        return self


class Upstream(Document):
    """Where requests go: a `url`, or a `ref` to an upstream definition."""

    url: Annotated[str, AfterValidator(_upstream_url)] | None = None
    ref: Annotated[str, Field(min_length=1)] | None = None
    host_rewrite: Literal["auto", "manual"] = "auto"

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.url is None) == (self.ref is None):
            raise ValueError("exactly one of url and ref must be given")
        return self


class Upstreams(Document):
    """The production upstream and, if there is one, the sandbox."""

    main: Upstream
    sandbox: Upstream | None = None
