"""What is read from requests: bounded bodies and preconditions."""

from typing import Any

from starlette.requests import Request

from controller.documents import read
from controller.errors import Invalid, TooLarge
from controller.settings import ControllerSettings


async def body(request: Request, *, optional: bool = False) -> dict[str, Any]:
    """The document in the body; `optional`: an empty body is an empty document.

    Raises TooLarge, ParseFailed.
    """
    settings: ControllerSettings = request.app.state.settings
    limit_bytes = settings.max_body_bytes
    if int(request.headers.get("content-length") or 0) > limit_bytes:
        raise TooLarge(limit_bytes)
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > limit_bytes:
            raise TooLarge(limit_bytes)
    if optional and not content.strip():
        return {}
    return read(bytes(content), request.headers.get("content-type", ""))


def if_revision(request: Request) -> int | None:
    """The revision that `If-Match` names; None for any. Raises Invalid."""
    header = request.headers.get("if-match", "*").strip()
    if header == "*":
        return None
    text = header.removeprefix("W/").strip('"')
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Invalid("If-Match must be one entity tag as given by ETag: a revision")
    return int(text)
