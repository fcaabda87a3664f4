"""What one router has, wants and is being told of one type of resources.

Rules, with where they come from (xDS = the protocol document, Envoy = seen with 1.40.0):

* A first request that names nothing, or `*`, asks for everything.
  xDS: https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#how-the-client-specifies-what-resources-to-return
* A reconnecting router says what it has: equal versions are not sent again, what no longer exists
  is removed. xDS: `initial_resource_versions`, https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#incremental-xds
* A subscription is always answered: a name that does not exist is said to be removed, and a
  router that has nothing and is to have nothing gets an empty response. xDS:
  https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#knowing-when-a-requested-resource-does-not-exist
* Only of a secret that does not exist yet nothing is said: Envoy would take that for the answer and
  call the cluster warm that waits for it.
* Subscribing to a name again asks for it again, whatever was sent before. xDS: as above.
* One response at a time: the next goes out when the last was answered. Envoy withholds the ACK of
  clusters until they are warm (names resolved, secrets there), so an answer means "usable".
* Envoy applies the removals of a response that it refuses, and some of its clusters, but none of
  its scopes. So removals travel alone, and after a NACK nothing of that response is taken for
  granted until it was sent again (and see `xds.ads.codec` for how).
* What is guilty in a refused response is searched for (`xds.ads.suspects`) and quarantined: that
  version is not sent again.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from itertools import islice

from xds.ads.lag import Lag, Routed
from xds.ads.protocol import (
    NEVER,
    SECRET,
    WILDCARD,
    Change,
    Key,
    Memory,
    Outcome,
    Rejection,
    Request,
    Resource,
    Response,
)
from xds.ads.suspects import Part, Suspects


class Subscription:
    """One router, one type."""

    def __init__(
        self,
        type_url: str,
        desired: Mapping[str, Resource],
        memory: Memory,
        *,
        resumed: bool = False,
    ) -> None:
        """`resumed`: the router had another stream before, perhaps to a server that is gone."""
        self.type_url = type_url
        self.in_force: dict[str, str] = {}  # name -> version the router has acknowledged
        self.changed: dict[str, Change] = {}  # to be sent, oldest first
        self.gone: dict[str, Change] = {}  # to be removed, oldest first
        self.outstanding: Response | None = None
        self.late: dict[str, Response] = {}  # by nonce
        self._desired = desired
        self._memory = memory
        self._wildcard = False
        self._names: set[str] = set()
        self._good: dict[str, Resource] = {}  # what `in_force` stands for, where we sent it
        self._lag = Lag()
        self._suspects = Suspects()
        self._suspects_waited = False  # fresh changes went before them
        self._greet = False  # owes an answer even if there is nothing to say
        self._fresh = True
        self._resumed = resumed

    # What the router says

    def request(self, request: Request, latest: Change) -> Outcome:
        """Take in a request of the router."""
        outcome = Outcome()
        if request.nonce:
            self._answer(request.nonce, request.error, outcome)
        if self._fresh:
            self._fresh = False
            outcome.applied.update(
                (self._key(name), version) for name, version in request.initial_versions.items()
            )
            self._resume(request.initial_versions)
            self._subscribe(request.subscribe or (WILDCARD,), latest, anew=False)
        else:
            self._subscribe(request.subscribe, latest, anew=True)
        self._unsubscribe(request.unsubscribe)
        return outcome

    def _resume(self, versions: Mapping[str, str]) -> None:
        """Go on where another stream ended."""
        self.in_force.update(versions)
        for name, version in versions.items():
            target = self._target(name)
            if target is not None and target.version == version:
                self._good[name] = target

    def _subscribe(self, names: Iterable[str], latest: Change, *, anew: bool) -> None:
        for name in names:
            if name == WILDCARD:
                self._wildcard = True
                if anew:
                    self.in_force.clear()
                self._greet = not self.in_force
                for known in self._desired:
                    self._want(known, latest)
                tried = {name for kind, name in self._memory.uncertain if kind == self.type_url}
                for known in (self.in_force.keys() | tried) - self._desired.keys():
                    self._lose(known, latest)
            else:
                self._names.add(name)
                if anew:
                    self.in_force.pop(name, None)
                if name in self._desired:
                    self._want(name, latest)
                elif self.type_url != SECRET or self.may_have(name):
                    self._lose(name, latest)

    def _want(self, name: str, change: Change) -> None:
        """Look at `name` when sending; behind all that waits already."""
        self.gone.pop(name, None)
        self.changed.pop(name, None)
        if self._missing(name) is not None:
            self.changed[name] = change
            self._lag.publish(name, change.sequence)
        else:
            self._lag.forget(name)
            target = self._target(name)
            if target is not None:
                self._good[name] = target

    def _lose(self, name: str, change: Change) -> None:
        """Say that `name` is not there, or not any more."""
        self.changed.pop(name, None)
        self.gone.pop(name, None)
        self.gone[name] = change
        self._lag.publish(name, change.sequence)

    def _unsubscribe(self, names: Iterable[str]) -> None:
        for name in names:
            if name == WILDCARD:
                self._wildcard = False
            else:
                self._names.discard(name)
        if names:
            known = {*self.in_force, *self.changed, *self.gone}
            for name in known:
                if not self._subscribed(name):
                    self.in_force.pop(name, None)
                    self.changed.pop(name, None)
                    self.gone.pop(name, None)
                    self._lag.forget(name)

    def _subscribed(self, name: str) -> bool:
        return self._wildcard or name in self._names

    def _key(self, name: str) -> Key:
        return self.type_url, name

    # What is published

    def upsert(self, name: str, change: Change) -> None:
        """`name` has a new version."""
        key = self._key(name)
        refused = self._memory.quarantined.get(key)
        if refused is not None and refused != self._desired[name].version:
            del self._memory.quarantined[key]
            self._memory.last_good.pop(key, None)
            self._lag.publish(name, 0)  # what it has is older than what it refused
        if self._subscribed(name):
            self._want(name, change)

    def remove(self, name: str, change: Change) -> None:
        """`name` is not to be any more."""
        if self._memory.quarantined.pop(self._key(name), None) is not None:
            self._lag.publish(name, 0)
        self._memory.last_good.pop(self._key(name), None)
        asked = name in self._names and self.type_url != SECRET
        if self._subscribed(name) and (self.may_have(name) or asked):
            self._lose(name, change)
        else:
            self.changed.pop(name, None)
            self._lag.forget(name)

    def may_have(self, name: str) -> bool:
        """Whether the router has, or is about to have, some version of `name`."""
        return name in self.in_force or self._is_unsettled(name)

    def _is_unsettled(self, name: str) -> bool:
        return self._lag.is_in_flight(name) or self._key(name) in self._memory.uncertain

    def _target(self, name: str) -> Resource | None:
        """The version the router is to have: the last good one where it refused the newest."""
        wanted = self._desired.get(name)
        key = self._key(name)
        if wanted is not None and self._memory.quarantined.get(key) == wanted.version:
            return self._memory.last_good.get(key)
        return wanted

    def _is_wanted(self, resource: Resource) -> bool:
        target = self._target(resource.name)
        return target is not None and target.version == resource.version

    def _missing(self, name: str) -> Resource | None:
        """What is to be sent of `name`; None when the router has it."""
        target = self._target(name)
        if target is None:
            return None
        has = self.in_force.get(name) == target.version and not self._is_unsettled(name)
        return None if has else target

    # What goes out

    @property
    def has_work(self) -> bool:
        """Whether anything waits to be sent."""
        return bool(self.changed or self.gone or self._suspects or self._greet)

    def next_upserts(
        self,
        may_go: Callable[[Resource, Change], bool],
        nonce: Callable[[], str],
        limit_bytes: int,
        *,
        may_greet: bool = True,
    ) -> Response | None:
        """The next response with additions, if there is one.

        `may_greet`: nothing that could let a resource go is on its way, so a router that waits
        for its first answer is told that there is nothing.
        """
        if self.outstanding is not None:
            return None
        suspects_first = self._suspects_waited or not self.changed
        ways = (self._fresh_ones, self._next_suspects)
        for way in reversed(ways) if suspects_first else ways:
            part = way(may_go, limit_bytes)
            if part is not None:
                self._suspects_waited = way != self._next_suspects and bool(self._suspects)
                return self._send(part, nonce)
        if self._greet and may_greet:
            return self._send(Part((), NEVER), nonce)
        return None

    def _fresh_ones(
        self, may_go: Callable[[Resource, Change], bool], limit_bytes: int
    ) -> Part | None:
        """What has changed and may go, up to a size."""
        chosen: list[Resource] = []
        oldest: Change | None = None
        size = 0
        for name, change in list(self.changed.items()):
            resource = self._missing(name)
            if resource is None:
                del self.changed[name]
            elif may_go(resource, change):
                size += len(resource.body)
                if chosen and size > limit_bytes:
                    break
                del self.changed[name]
                chosen.append(resource)
                oldest = oldest or change
        return Part(tuple(chosen), oldest) if oldest is not None else None

    def _next_suspects(
        self,
        may_go: Callable[[Resource, Change], bool],
        limit_bytes: int,  # noqa: ARG002 - a part is never larger than the response it comes from
    ) -> Part | None:
        """The next part of a refused response, without what has been replaced meanwhile."""

        def is_current(one: Resource) -> bool:
            return self._is_wanted(one) and one.name not in self.changed

        return self._suspects.next(is_current, may_go)

    def next_removals(
        self, may_go: Callable[[str, Change], bool], nonce: Callable[[], str]
    ) -> Response | None:
        """The next response with removals, if there is one."""
        if self.outstanding is not None:
            return None
        ripe = {name: change for name, change in self.gone.items() if may_go(name, change)}
        if not ripe:
            return None
        for name in ripe:
            del self.gone[name]
        oldest = next(iter(ripe.values()))
        self.outstanding = Response(self.type_url, nonce(), removals=tuple(ripe), change=oldest)
        self._lag.send(_names(self.outstanding))
        return self.outstanding

    def _send(self, part: Part, nonce: Callable[[], str]) -> Response:
        self._greet = False
        again = (one.name for one in part.resources if self._may_have_been_refused(one))
        self.outstanding = Response(
            self.type_url,
            nonce(),
            upserts=part.resources,
            again=frozenset(again),
            change=part.change,
        )
        self._lag.send(_names(self.outstanding))
        return self.outstanding

    def _may_have_been_refused(self, resource: Resource) -> bool:
        """In company; on another stream, too."""
        unheard = self._resumed and resource.name not in self._good
        return unheard or resource.key in self._memory.uncertain

    def give_up_waiting(self) -> None:
        """The outstanding response is late: the next may go out, and its answer still counts."""
        if self.outstanding is not None:
            self.late[self.outstanding.nonce] = replace(self.outstanding, late=True)
            self.outstanding = None

    # What is on its way, for the order of types

    def adds_since(self) -> int | None:
        """The oldest publication whose additions are still to be sent or answered."""
        waiting = list(self._suspects.sequences())
        waiting += (change.sequence for change in islice(self.changed.values(), 1))
        if self.outstanding is not None and self.outstanding.upserts:
            waiting.append(self.outstanding.change.sequence)
        return min(waiting, default=None)

    def routed(self, *, precise: bool) -> Routed:
        """What versions that the router is to lose, or refused to lose, may still use.

        `precise`: clusters are asked about, and some resources say which they need.
        """
        routed = Routed({})
        quarantined = [
            (name, 0) for kind, name in self._memory.quarantined if kind == self.type_url
        ]
        for name, since in (*self._lag, *quarantined):
            known = self._good.get(name)
            vague = not precise or known is None or known.needs is None
            if self._is_unsettled(name) or (name in self.in_force and vague):
                routed.use(None, since)
            elif name in self.in_force and known is not None:
                for cluster in known.needs or ():
                    routed.use(cluster, since)
        return routed

    # Answers

    def _answer(self, nonce: str, error: str | None, outcome: Outcome) -> None:
        response = self.late.pop(nonce, None)
        if response is None:
            if self.outstanding is None or self.outstanding.nonce != nonce:
                return  # an answer to nothing we know of: a stream can only be behind
            response, self.outstanding = self.outstanding, None
        self._lag.answer(_names(response))
        outcome.answered.append((response, error))
        if error is None or not response.upserts:
            self._acknowledged(response, outcome)
        else:
            self._refused(response, error, outcome)

    def _acknowledged(self, response: Response, outcome: Outcome) -> None:
        for resource in response.upserts:
            self.in_force[resource.name] = resource.version
            self._good[resource.name] = resource
            outcome.applied[resource.key] = resource.version
        for name in response.removals:
            self.in_force.pop(name, None)
            self._good.pop(name, None)
            outcome.applied[self._key(name)] = None
        for name in _names(response):
            self._memory.uncertain.discard(self._key(name))
            self._lag.settle(name)

    def _refused(self, response: Response, error: str, outcome: Outcome) -> None:
        if len(response.upserts) == 1:
            self._quarantine(response.upserts[0], error, outcome)
            return
        self._memory.uncertain.update(one.key for one in response.upserts)
        self._suspects.accuse(Part(response.upserts, response.change), error)

    def _quarantine(self, resource: Resource, error: str, outcome: Outcome) -> None:
        """Refused alone: the router keeps what it had."""
        name, key = resource.name, resource.key
        self._memory.uncertain.discard(key)
        outcome.rejected.append(Rejection(resource, error))
        if self._is_wanted(resource):
            self._memory.quarantined[key] = resource.version
            good = self._good.get(name)
            if good is not None and self.in_force.get(name) == good.version:
                self._memory.last_good[key] = good
        self._lag.settle(name)


def _names(response: Response) -> tuple[str, ...]:
    return (*(one.name for one in response.upserts), *response.removals)
