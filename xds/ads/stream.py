"""One router: its subscriptions, and the order in which it is told of different types.

No request may fail because of a change. So a cluster is there (acknowledged, hence warm) before a
scope routes to it, and goes only after every scope that routed to it was replaced or removed, and
some more time has passed for the requests that were routed by then.

Source: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#eventual-consistency-considerations
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count

from xds.ads.lag import Routed
from xds.ads.protocol import (
    CLUSTER,
    MAKE_BEFORE_BREAK,
    Change,
    Desired,
    Key,
    Memory,
    Outcome,
    Publication,
    Request,
    Resource,
    Response,
)
from xds.ads.subscription import Subscription


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient the server is with a router."""

    linger_s: float = 2.0
    """Time between the last route to a cluster and its removal, for requests on their way."""
    patience_s: float = 5.0
    """Time for an answer, after which changes that do not need the answer go ahead."""
    response_bytes: int = 64 << 20
    """Size above which a response is cut. A router that starts is ready after the first part."""


class Stream:
    """What a router has and is to be told next; knows nothing of transports and clocks."""

    def __init__(
        self, desired: Desired, memory: Memory, pace: Pace, *, nonce_prefix: str = ""
    ) -> None:
        """`nonce_prefix` is to differ from stream to stream."""
        self.subscriptions: dict[str, Subscription] = {}
        self._desired = desired
        self._memory = memory
        self._pace = pace
        self._nonce_prefix = nonce_prefix
        self._nonces = count(1)
        self._resumed = False  # the router has had another stream before
        self._free_since: dict[Key, float] = {}  # cluster -> when nothing routed to it any more
        self._wake_s: float | None = None

    @property
    def wake_s(self) -> float | None:
        """When `responses` has to be asked again though nothing happened; monotonic."""
        return self._wake_s

    def request(self, request: Request) -> Outcome:
        """Take in what the router says."""
        self._resumed = self._resumed or bool(request.initial_versions)
        subscription = self.subscriptions.get(request.type_url)
        if subscription is None:
            subscription = self.subscriptions[request.type_url] = Subscription(
                request.type_url,
                self._desired.of(request.type_url),
                self._memory,
                resumed=self._resumed,
            )
        return subscription.request(request, self._desired.latest)

    def publish(self, publication: Publication) -> None:
        """Note what changed; costs what changed."""
        for type_url, name in publication.upserts:
            if subscription := self.subscriptions.get(type_url):
                subscription.upsert(name, publication.change)
            self._free_since.pop((type_url, name), None)
        for type_url, name in publication.removals:
            if subscription := self.subscriptions.get(type_url):
                subscription.remove(name, publication.change)

    def responses(self, now_s: float) -> Iterator[Response]:
        """What may be sent now, in order."""
        self._wake_s = None
        for subscription in self.subscriptions.values():
            self._lose_patience(subscription, now_s)
        for type_url in self._order():
            subscription = self.subscriptions[type_url]
            response = self._next(subscription, now_s)
            if response is not None:
                response = subscription.outstanding = replace(response, sent_s=now_s)
                self._wake_at(now_s + self._pace.patience_s)
                yield response

    def _order(self) -> list[str]:
        known = [type_url for type_url in MAKE_BEFORE_BREAK if type_url in self.subscriptions]
        return [*known, *(each for each in self.subscriptions if each not in MAKE_BEFORE_BREAK)]

    def _next(self, subscription: Subscription, now_s: float) -> Response | None:
        if not subscription.has_work:
            return None
        type_url = subscription.type_url
        pending = (self.subscriptions[each].adds_since() for each in self._before(type_url))
        before = min((since for since in pending if since is not None), default=None)

        after = self._after(type_url) if subscription.gone else None

        def may_add(resource: Resource, change: Change) -> bool:
            clusters = self.subscriptions.get(CLUSTER)
            if resource.needs is None or clusters is None:
                return before is None or change.sequence < before
            if self._desired.of(resource.type_url).get(resource.name) is not resource:
                return resource.needs <= clusters.in_force.keys()  # a last good version
            known = self._desired.of(CLUSTER)
            return all(name in clusters.in_force for name in resource.needs if name in known)

        def may_remove(name: str, change: Change) -> bool:
            if not subscription.may_have(name):
                return True  # only said not to exist, to a router that asked for it
            if after is None or any(each.may_use(name, change.sequence) for each in after):
                self._free_since.pop((type_url, name), None)
                return False
            return self._has_lingered(type_url, name, now_s)

        return subscription.next_upserts(
            may_add, self._nonce, self._pace.response_bytes, may_greet=before is None
        ) or subscription.next_removals(may_remove, self._nonce)

    def _before(self, type_url: str) -> list[str]:
        """The types whose additions those of `type_url` wait for."""
        if type_url not in MAKE_BEFORE_BREAK:
            return []
        earlier = MAKE_BEFORE_BREAK[: MAKE_BEFORE_BREAK.index(type_url)]
        return [each for each in earlier if each in self.subscriptions]

    def _after(self, type_url: str) -> list[Routed] | None:
        """What the router may still use of `type_url`; None: it has not said all it has."""
        if type_url not in MAKE_BEFORE_BREAK:
            return []
        found = []
        for later in MAKE_BEFORE_BREAK[MAKE_BEFORE_BREAK.index(type_url) + 1 :]:
            subscription = self.subscriptions.get(later)
            if subscription is not None:
                found.append(subscription.routed(precise=type_url == CLUSTER))
            elif self._desired.of(later):
                return None  # a router that reconnects asks for one type after the other
        return found

    def _has_lingered(self, type_url: str, name: str, now_s: float) -> bool:
        if type_url != CLUSTER:
            return True
        due_s = self._free_since.setdefault((type_url, name), now_s) + self._pace.linger_s
        if now_s < due_s:
            self._wake_at(due_s)
            return False
        del self._free_since[type_url, name]
        return True

    def _lose_patience(self, subscription: Subscription, now_s: float) -> None:
        if subscription.outstanding is None:
            return
        due_s = subscription.outstanding.sent_s + self._pace.patience_s
        if now_s < due_s:
            self._wake_at(due_s)
        else:
            subscription.give_up_waiting()

    def _wake_at(self, at_s: float) -> None:
        self._wake_s = at_s if self._wake_s is None else min(self._wake_s, at_s)

    def _nonce(self) -> str:
        return f"{self._nonce_prefix}{next(self._nonces)}"
