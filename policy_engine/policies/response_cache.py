"""response-cache.

Source: RFC 9111 (caching), RFC 9110 section 13 (conditional requests).
"""

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from bus.resources.document import PositiveDuration, duration_s
from policy_engine.errors import PolicyNotCompiled
from policy_engine.lua import constants, program
from policy_engine.parameters.headers import APPLICATION_HEADER, EditableHeaderName
from policy_engine.policy import Document, HttpFilter, Policy, Purpose, Scope, Version, typed

_LUA = "envoy.extensions.filters.http.lua.v3.Lua"

MAY_STAND_BEHIND = frozenset(
    {
        "advanced-ratelimit",
        "aws-authentication",
        "basic-ratelimit",
        "circuit-breaker",
        "compression",
        "dynamic-endpoint",
        "fault-injection",
        "host-rewrite",
        "mirror",
        "remove-headers",
        "request-rewrite",
        "request-size-limit",
        "retry",
        "set-headers",
        "traffic-split",
    }
)
"""Policies that let nobody in, and whose work on an answer may be done twice."""

Status = Literal[200, 203, 300, 301, 308, 404, 405, 410, 414, 451, 501]
"""What RFC 9110, 15.1 lets a cache keep without being told to; 204 and 206 apart."""


def _a_second(duration: str) -> str:
    if duration_s(duration) < 1:
        raise ValueError("must be at least 1s")
    return duration


class ResponseCache(Policy):
    """Keeps answers of the upstream in the router's memory and gives them while they are good.

    Answers to `GET` are kept as the upstream's `Cache-Control` and `Expires` say, or for `ttl`
    where it says nothing, and given to `GET` and `HEAD` with `Age` and `X-Cache-Status: HIT`. What
    came from the upstream says `MISS`, or `BYPASS` where no cache was looked at. Never kept:
    answers that are `private`, `no-store` or `no-cache`, that set cookies, are larger than
    `maxBodyBytes`, or come with trailers. Of what is kept, `RateLimit` and `X-RateLimit-*` are
    left out. An answer is never given after its time.

    Callers who are known (by a policy that stands before, an `Authorization` or a `Cookie`) get and
    leave only answers that the upstream calls `public` or gives an `s-maxage`, unless `perCaller`.
    Policies that may refuse a request must stand before this one; one that stands behind it, where
    an answer from memory would not pass it, is an error. Other headers that upstreams know callers
    by belong into `varyBy`.

    Each worker of each router has a memory of its own, which is empty after any change of the API,
    of its keys or of an API that shares its first path segment: that is how to purge it.
    """

    name: ClassVar[str] = "response-cache"
    version: ClassVar[Version] = Version(1, 0, 0)
    purpose: ClassVar[Purpose] = "changes"
    example: ClassVar[Document] = {"ttl": "30s", "varyBy": ["Accept-Language"]}

    ttl: Annotated[PositiveDuration, AfterValidator(_a_second)] | None = None
    """How long an answer is good whose upstream says nothing about it; without it such answers are
    not kept."""

    statuses: Annotated[tuple[Status, ...], Field(min_length=1, max_length=11)] = (200,)
    """The statuses of answers that may be kept."""

    vary_by: Annotated[tuple[EditableHeaderName, ...], Field(max_length=8)] = ()
    """Request headers that answers depend on, beside those that the upstream names in `Vary`."""

    per_caller: bool = False
    """Whether each known caller has answers of its own, which nobody else gets."""

    ignore_request_directives: bool = False
    """Whether what callers say in `Cache-Control` is not looked at; `no-cache` then brings no new
    answer."""

    max_body_bytes: Annotated[int, Field(ge=1, le=16 << 20)] = 256 << 10
    """The largest body that is kept, bytes."""

    max_memory_bytes: Annotated[int, Field(ge=64 << 10, le=256 << 20)] = 8 << 20
    """What all answers together may take in each worker of a router, bytes; the least used go
    first."""

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        """One `lua` filter with a memory of its own."""
        self._check_place(scope)
        name = scope.unique(self.name)
        source = constants(
            TTL_S=None if self.ttl is None else int(duration_s(self.ttl)),
            STATUSES=[str(one) for one in self.statuses],
            VARY_BY=[one.lower() for one in self.vary_by],
            PER_CALLER=self.per_caller,
            IGNORE_REQUEST=self.ignore_request_directives,
            MAX_BODY_BYTES=self.max_body_bytes,
            MAX_BYTES=self.max_memory_bytes,
            APPLICATION=APPLICATION_HEADER,
            NAMESPACE=f"signalbox.{name}",
        ) + program("response_cache.lua")
        config: Document = {
            "default_source_code": {"inline_string": source},
            "clear_route_cache": False,
        }
        return (HttpFilter(name, typed(_LUA, config)),)

    def _check_place(self, scope: Scope) -> None:
        if scope.repeats(self.name):
            raise PolicyNotCompiled(
                self.name, "a request would meet it twice; attach it once to each operation"
            )
        behind = {*scope.attached[scope.attached.index(self.name) + 1 :], *scope.below}
        unfit = sorted(behind - MAY_STAND_BEHIND)
        if unfit:
            raise PolicyNotCompiled(
                self.name,
                f"answers from memory would not pass {', '.join(unfit)}: put response-cache behind",
            )
