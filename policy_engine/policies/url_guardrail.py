"""url-guardrail."""

import asyncio
from collections.abc import Awaitable
from ipaddress import ip_address
from typing import Annotated, ClassVar, Final
from urllib.parse import urlsplit

from pydantic import Field

from policy_engine.guardrails.guarded_stream import (
    LONGEST_TEXT,
    Judgement,
    Step,
    Violation,
    Watch,
    World,
    too_long,
)
from policy_engine.guardrails.guardrail import Guardrail, RequestSection, ResponseSection, Section
from policy_engine.hooks import FetchFailed
from policy_engine.parameters.addresses import is_public
from policy_engine.parameters.regex import expression
from policy_engine.policy import Document, Version
from policy_engine.system import SystemParameters

MOST_URLS: Final = 50
"""A text with more different URLs does not pass: nobody is made to call more servers at once."""

_AT_ONCE: Final = 10
_LONGEST_MS: Final = 30_000
_INSIDE: Final = (  # of a URL: no spaces, no quotes, no punctuation that is as wide as ideographs
    r"[^\s\pZ\p{Pi}\p{Pf}\x{201e}\x{2026}\x{3000}-\x{303f}\x{ff01}-\x{ff1f}\"'<>\\^`{|}]"
)
_URL: Final = rf"(?i)https?://{_INSIDE}+"
_BEGINS: Final = rf"(?i)(?:h|ht|htt|http|https|https?:|https?:/|https?://{_INSIDE}*)$"
_NOT_AT_THE_END: Final = ".,;:!?'\")]*_~"
_FIRST_ERROR: Final = 400
_HEAD_IS_NOT_ALLOWED: Final = (405, 501)  # somebody is there
_SLACK_S: Final = 1.0
_LONGEST_HOST: Final = 253
_LONGEST_URL: Final = 2048


def urls(text: str) -> list[str]:
    """The different http and https URLs in `text`, without the punctuation behind them.

    Those behind one more than are checked are not looked for.
    """
    found: dict[str, None] = {}
    for match in expression(_URL).finditer(text.encode("utf-8", "replace")):
        if len(found) > MOST_URLS:
            break
        url = match.group().decode()
        end = len(url.rstrip(_NOT_AT_THE_END))
        opened = url.count("(", 0, end) - url.count(")", 0, end)
        while opened > 0 and url[end : end + 1] == ")":  # as in `/wiki/Envoy_(software)`
            opened, end = opened - 1, end + 1
        found[url[:end]] = None
    return list(found)


class _Urls(Section):
    seeks: ClassVar[bool] = True

    only_dns: Annotated[bool, Field(alias="onlyDNS")] = False
    """Whether it is enough that DNS knows the host. Off, a HEAD request must be answered with a
    status below 400, or with 405 or 501."""

    timeout: Annotated[int, Field(ge=0, le=_LONGEST_MS)] = 3000
    """How long checking all URLs of a text may take, milliseconds; those not checked by then count
    as invalid. 0: as long as can be, 30 seconds."""

    def judged(self, text: str, world: World) -> Judgement | Awaitable[Judgement]:
        """Whether all URLs can be reached."""
        found = urls(text)
        return self._checked(found, world) if found else None

    async def invalid(self, found: list[str], world: World) -> list[str]:
        """Those that cannot be reached, in order."""
        deadline_s = (self.timeout or _LONGEST_MS) / 1000
        gate = asyncio.Semaphore(_AT_ONCE)
        reached: set[str] = set()

        async def check(url: str) -> None:
            async with gate:
                if await self._reaches(url, world, deadline_s):
                    reached.add(url)

        try:
            async with asyncio.timeout(deadline_s), asyncio.TaskGroup() as group:
                for url in found:
                    group.create_task(check(url))
        except TimeoutError:
            pass  # those that are not reached by now are not
        return [url for url in found if url not in reached]

    async def _checked(self, found: list[str], world: World) -> Judgement:
        if len(found) > MOST_URLS:
            return self.too_many(found)
        return self.violation(await self.invalid(found, world))

    def too_many(self, found: list[str]) -> Violation:
        """What is said of a text with more URLs than are checked."""
        return Violation(
            {"invalidUrls": found[:MOST_URLS], "message": f"There are more than {MOST_URLS} URLs."}
        )

    def violation(self, invalid: list[str]) -> Judgement:
        """What is said of a text with URLs of which these are invalid."""
        if bool(invalid) is self.invert:
            return None
        if self.invert:
            return Violation({"invalidUrls": [], "message": "All URLs in the payload are valid."})
        return Violation(
            {
                "invalidUrls": invalid,
                "message": "One or more URLs in the payload failed validation.",
            }
        )

    async def _reaches(self, url: str, world: World, timeout_s: float) -> bool:
        private = world.system.url_guardrail_private_addresses
        host = _host(url)
        literal = _is_address(host)
        if not host or (literal and not private and not is_public(host)):
            return False
        if self.only_dns:
            return literal or await world.outside.resolves(host, timeout_s)
        try:
            answer = await world.outside.fetch(
                "HEAD", url.partition("#")[0], timeout_s=timeout_s, public_only=not private
            )
        except FetchFailed:
            return False
        return answer.status < _FIRST_ERROR or answer.status in _HEAD_IS_NOT_ALLOWED

    def watch(self) -> Watch:
        """Checks the URLs of a stream."""
        return super().watch() if self.invert else _Checking(self)


def _host(url: str) -> str:
    """The host to ask; empty for URLs that are not asked for: broken, too long, with a password."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return ""
    asked = len(url) <= _LONGEST_URL and len(host) <= _LONGEST_HOST and parts.username is None
    return host if asked else ""


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


class _Checking:
    """Holds back what may be a part of a URL, and checks each URL once it is whole."""

    def __init__(self, section: _Urls) -> None:
        self._section = section
        self._text = ""  # that may still become a URL
        self._length = 0
        self._known: set[str] = set()

    def add(self, piece: str, world: World, *, ended: bool) -> Step | Awaitable[Step]:
        """What becomes of the part of the stream that ends with `piece`. Raises NotInspected."""
        self._length += len(piece)
        if self._length > LONGEST_TEXT:
            raise too_long()
        text = self._text + piece
        begun = None if ended else expression(_BEGINS).search(text)
        if begun is not None and len(text) - begun.start() > _LONGEST_URL:
            begun = None  # too long to become one that is asked for
        end = len(text) if begun is None else begun.start()
        whole, self._text = text[:end], text[end:]
        new = [url for url in urls(whole) if url not in self._known]
        step: Step = "hold" if self._text else "pass"
        if not new:
            return step
        self._known.update(new)
        return self._checked(new, world, step)

    async def _checked(self, new: list[str], world: World, step: Step) -> Step:
        if len(self._known) > MOST_URLS:
            return self._section.too_many(sorted(self._known))
        invalid = await self._section.invalid(new, world)
        return self._section.violation(invalid) or step


class UrlRequest(RequestSection, _Urls):
    """What is done with URLs in requests."""


class UrlResponse(ResponseSection, _Urls):
    """What is done with URLs in answers."""


class UrlGuardrail(Guardrail):
    """Lets messages pass only if every http and https URL in their text can be reached.

    Others are answered with 422. At most 50 URLs of a text are checked, ten at a time; servers on
    private, loopback and link-local addresses are never contacted and count as invalid, unless
    whoever runs the gateway allows it. An answer that is a stream is held back while a URL in it
    may go on.
    """

    name: ClassVar[str] = "url-guardrail"
    version: ClassVar[Version] = Version(1, 0, 0)
    why_python: ClassVar[str] = "it looks for URLs in the body and asks their servers"
    kind: ClassVar[str] = "URL_GUARDRAIL"
    reason: ClassVar[str] = "Violation of url validity detected."
    example: ClassVar[Document] = {
        "request": {"onlyDNS": True, "timeout": 2000, "showAssessment": True}
    }

    request: UrlRequest | None = None
    """Which requests pass."""

    response: UrlResponse | None = None
    """Which answers pass."""

    def patience_s(self, system: SystemParameters) -> float:
        """As long as its own timeouts, and a little more."""
        del system
        slowest_ms = max(
            (one.timeout or _LONGEST_MS) for one in (self.request, self.response) if one is not None
        )
        return slowest_ms / 1000 + _SLACK_S
