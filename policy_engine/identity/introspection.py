"""What opaque tokens are worth: asked of whoever has issued them, and remembered for a while.

Source: RFC 7662 (introspection), RFC 6749 section 2.3.1 (how the gateway says who it is).
"""

import asyncio
import re
import time
from base64 import b64encode
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from typing import Any
from urllib.parse import quote_plus, urlencode

import orjson
import structlog

from policy_engine.hooks import FetchFailed, Outside
from policy_engine.identity.token_issuers import IntrospectionProvider
from policy_engine.system import SystemParameters

Document = dict[str, Any]

_OK = 200
_LONGEST_ANSWER_BYTES = 65_536

log = structlog.get_logger()


class ProviderUnavailable(Exception):
    """The provider gave no answer that says whether the token is live."""

    def __init__(self, provider: str, reason: str) -> None:
        super().__init__(f"introspection provider {provider!r}: {reason}")
        self.provider = provider
        self.reason = reason


@dataclass(slots=True)
class _Asking:
    """One question under way; whoever has the same waits for its answer."""

    over: asyncio.Event = field(default_factory=asyncio.Event)
    answer: Document | ProviderUnavailable | None = None  # None: whoever asked has left


class Introspector:
    """One provider: answers are kept by the digest of the token, questions are asked once."""

    def __init__(self, provider: IntrospectionProvider, system: SystemParameters) -> None:
        self.provider = provider
        self._system = system
        self._pattern = re.compile(provider.token_pattern) if provider.token_pattern else None
        self._live: OrderedDict[bytes, tuple[float, Document]] = OrderedDict()  # until, claims
        self._dead: OrderedDict[bytes, float] = OrderedDict()  # until, Unix time
        self._asking: dict[bytes, _Asking] = {}

    def is_for(self, token: str) -> bool:
        """Whether the provider may have issued `token`."""
        return self._pattern is None or self._pattern.search(token) is not None

    def remembered(self, token: bytes, now: float) -> Document | None:
        """What the provider has said of the token with digest `token`: its claims, `{}` for a dead
        one, None when it has to be asked."""
        if (kept := self._live.get(token)) is not None:
            if kept[0] > now:
                return kept[1]
            del self._live[token]
        if (until := self._dead.get(token)) is not None:
            if until > now:
                return {}
            del self._dead[token]
        return None

    async def ask(self, token: str, digest: bytes, outside: Outside) -> Document:
        """The claims of `token`, `{}` for a dead one; together with all who ask the same.

        Raises ProviderUnavailable.
        """
        while (other := self._asking.get(digest)) is not None:
            await other.over.wait()
            if isinstance(other.answer, ProviderUnavailable):
                raise other.answer
            if other.answer is not None:
                return other.answer
        asking = self._asking[digest] = _Asking()
        try:
            asking.answer = claims = await self._asked(token, outside)
        except ProviderUnavailable as error:
            asking.answer = error
            raise
        finally:
            del self._asking[digest]
            asking.over.set()
        self._keep(digest, claims)
        return claims

    async def _asked(self, token: str, outside: Outside) -> Document:
        name, reason = self.provider.name, "no answer in time"
        try:
            async with asyncio.timeout(self._system.introspection_timeout_s):
                for attempt in range(self._system.introspection_retries + 1):
                    if attempt:
                        await asyncio.sleep(self._system.introspection_retry_interval_s)
                    try:
                        return await self._answer(token, outside)
                    except ProviderUnavailable as error:
                        reason = error.reason
        except TimeoutError:
            pass
        log.warning("introspection failed", provider=name, reason=reason)
        raise ProviderUnavailable(name, reason)

    async def _answer(self, token: str, outside: Outside) -> Document:
        how = self.provider.introspection
        headers = {
            "content-type": "application/x-www-form-urlencoded",
            "accept": "application/json",
        }
        form = {"token": token}
        if how.token_type_hint:
            form["token_type_hint"] = how.token_type_hint
        secret, bearer = how.client_secret.get_secret_value(), how.bearer_token.get_secret_value()
        if bearer:
            headers["authorization"] = f"Bearer {bearer}"
        elif how.client_id and how.auth_style == "post":
            form |= {"client_id": how.client_id, "client_secret": secret}
        elif how.client_id:
            pair = f"{quote_plus(how.client_id)}:{quote_plus(secret)}"
            headers["authorization"] = f"Basic {b64encode(pair.encode()).decode()}"
        try:
            answer = await outside.fetch(
                "POST",
                how.uri,
                headers=headers,
                body=urlencode(form).encode(),
                timeout_s=self._system.introspection_timeout_s,
                verify=not how.skip_tls_verify,
                authorities=how.authorities,
                max_body_bytes=_LONGEST_ANSWER_BYTES,
            )
        except FetchFailed as error:
            raise ProviderUnavailable(self.provider.name, str(error)) from error
        if answer.status != _OK:
            raise ProviderUnavailable(self.provider.name, f"status {answer.status}")
        try:
            document = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            document = None
        if not isinstance(document, dict) or not isinstance(document.get("active"), bool):
            raise ProviderUnavailable(self.provider.name, "the answer is no introspection response")
        return document if document["active"] else {}

    def _keep(self, digest: bytes, claims: Document) -> None:
        now, system = time.time(), self._system
        if not claims:
            if system.introspection_negative_cache_ttl_s:
                self._dead[digest] = now + system.introspection_negative_cache_ttl_s
                _trim(self._dead, system.introspection_cache_entries)
            return
        until = now + system.introspection_cache_ttl_s
        expires = number(claims.get("exp"))
        if expires is not None:
            until = min(until, expires)
        if until > now:
            self._live[digest] = (until, claims)
            _trim(self._live, system.introspection_cache_entries)


@lru_cache(maxsize=256)
def introspector(provider: IntrospectionProvider, system: SystemParameters) -> Introspector:
    """The one of this process: what one policy has learned, all know."""
    return Introspector(provider, system)


def digest_of(token: str) -> bytes:
    """How a token is remembered."""
    return sha256(token.encode()).digest()


def number(value: object) -> float | None:
    """`value` as a moment, Unix time in seconds; None if it is no number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _trim(kept: OrderedDict[bytes, Any], most: int) -> None:
    while len(kept) > most:
        kept.popitem(last=False)
