"""URLs as parameters may name them: http or https, a host, no credentials."""

import re
from typing import Annotated
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field

_ORIGIN = re.compile(
    r"https?://[A-Za-z0-9._-]+(:[0-9]{1,5})?|https?://\[[0-9A-Fa-f:.]+\](:[0-9]{1,5})?"
)


def _parts(url: str) -> SplitResult:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ValueError("must be an http or https URL without credentials")
    if parts.port == 0:  # an invalid one raises ValueError by itself
        raise ValueError("port 0 cannot be reached")
    return parts


def _reachable(url: str) -> str:
    _parts(url)
    return url


def _whole(url: str) -> str:
    parts = _parts(url)
    if parts.fragment or not url.isascii() or not url.isprintable():
        raise ValueError("must be an http or https URL without a fragment")
    return url


def _base(url: str) -> str:
    _parts(url)
    if "?" in url or "#" in url:
        raise ValueError("must have neither query nor fragment")
    return url.rstrip("/")


def _origin(url: str) -> str:
    if not _ORIGIN.fullmatch(url):
        raise ValueError("must be a scheme and a host, such as https://api.example.com:8443")
    return url


HttpUrl = Annotated[str, AfterValidator(_reachable)]
"""Of the operator's own, such as a server's."""

Url = Annotated[str, Field(max_length=2048), AfterValidator(_whole)]
"""A whole one, without a fragment."""

BaseUrl = Annotated[str, Field(max_length=2048), AfterValidator(_base)]
"""One that paths are put behind."""

Origin = Annotated[str, Field(max_length=512), AfterValidator(_origin)]
"""A scheme and a host."""
