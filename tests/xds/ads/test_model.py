"""Whatever is published, refused, lost and restarted: routers end up right, and never route to
a cluster they do not have.

A model of Envoy 1.40.0 takes what a stream sends: it applies the removals and the good clusters of
a response it refuses, serves none of its scopes but remembers those before the culprit, so that it
does not notice them when they come again unchanged; and it holds back acknowledgements at will.
"""

from collections import deque
from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from xds.ads.protocol import (
    CLUSTER,
    LISTENER,
    SCOPE,
    Desired,
    Key,
    Memory,
    Request,
    Resource,
    Response,
)
from xds.ads.stream import Pace, Stream

KINDS = (CLUSTER, LISTENER, SCOPE)
PACE = Pace(linger_s=1.0, patience_s=50.0)
PRECISE = ("a", "b")
APIS = (*PRECISE, "c", "d")


def cluster_of(scope: str) -> str:
    """The cluster that a scope version `<bad|good> <cluster>` routes to."""
    return scope.split()[1]


@dataclass
class Envoy:
    """What an Envoy holds."""

    has: dict[Key, str] = field(default_factory=dict)  # in force: version
    listed: dict[Key, str] = field(default_factory=dict)  # what it will name on reconnect
    table: dict[Key, str] = field(default_factory=dict)  # scopes it thinks it serves: content
    inbox: deque[Response] = field(default_factory=deque)

    def take(self, response: Response) -> tuple[str, str | None]:
        """Apply a response; its nonce and the reason of a refusal."""
        kind = response.type_url
        for name in response.removals:
            self.has.pop((kind, name), None)
            self.table.pop((kind, name), None)
        guilty = [one.name for one in response.upserts if one.version.startswith("bad")]
        if kind == SCOPE:
            self._take_scopes(response)
        for one in response.upserts if kind != SCOPE else ():
            if not guilty or (kind == CLUSTER and one.name not in guilty):
                self.has[one.key] = one.version
        if guilty:
            named = f"cluster(s) {', '.join(guilty)}" if kind == CLUSTER else "wrong"
            return response.nonce, named
        for one in response.upserts:
            self.listed[one.key] = one.version
        for name in response.removals:
            self.listed.pop((kind, name), None)
        return response.nonce, None

    def _take_scopes(self, response: Response) -> None:
        noticed = {}
        for one in response.upserts:
            if one.version.startswith("bad"):
                return
            content = f"{one.version} {response.nonce if one.name in response.again else ''}"
            if self.table.get(one.key) != content:
                self.table[one.key] = content
                noticed[one.key] = one.version
        self.has.update(noticed)


class Gateway(RuleBasedStateMachine):
    """A control plane that publishes, and a router that is slow, refuses, and restarts."""

    @initialize()
    def start(self) -> None:
        self.now_s = 0.0
        self.desired = Desired()
        self.memory = Memory()
        self.serial = 0
        self.wanted: dict[str, str] = {}  # API -> its cluster
        self.forgot = False
        self.streams = 0
        self.publish([Resource(LISTENER, "http", "1", b"")])
        self.envoy = Envoy()
        self.connect()

    # The control plane

    def publish(self, upserts: list[Resource], removals: tuple[Key, ...] = ()) -> None:
        publication = self.desired.publish(upserts, removals, self.now_s)
        if hasattr(self, "stream"):
            self.stream.publish(publication)

    def unused(self) -> tuple[Key, ...]:
        in_use = set(self.wanted.values())
        return tuple((CLUSTER, name) for name in self.desired.of(CLUSTER) if name not in in_use)

    @rule(
        api=st.sampled_from(APIS),
        bad_scope=st.booleans(),
        bad_cluster=st.booleans(),
        share=st.booleans(),
    )
    def change(self, api: str, bad_scope: bool, bad_cluster: bool, share: bool) -> None:
        self.serial += 1
        others = [name for other, name in sorted(self.wanted.items()) if other != api]
        precise = api in PRECISE  # only who says what it needs is safe from refusals
        if share and others and (precise or others[0].startswith("good")):
            cluster = others[0]
        else:
            cluster = f"{'bad' if bad_cluster and precise else 'good'}-{self.serial}"
        version = f"{'bad' if bad_scope and precise else 'good'} {cluster} {self.serial}"
        needs = frozenset({cluster}) if precise else None
        self.wanted[api] = cluster
        self.publish(
            [Resource(CLUSTER, cluster, cluster, b""), Resource(SCOPE, api, version, b"", needs)],
            self.unused(),
        )

    @rule(api=st.sampled_from(APIS))
    def delete(self, api: str) -> None:
        if self.wanted.pop(api, None) is None:
            return
        self.publish([], ((SCOPE, api), *self.unused()))

    # The router

    def connect(self) -> None:
        self.streams += 1
        prefix = f"{self.streams}-"
        self.stream = Stream(self.desired, self.memory, PACE, nonce_prefix=prefix)
        self.envoy.inbox.clear()
        for kind in KINDS:
            if kind != SCOPE or (LISTENER, "http") in self.envoy.listed:
                self.ask(kind)
                self.pump()

    def ask(self, kind: str) -> None:
        listed = {name: v for (known, name), v in self.envoy.listed.items() if known == kind}
        self.stream.request(Request(kind, initial_versions=listed))

    def pump(self) -> None:
        self.envoy.inbox.extend(self.stream.responses(self.now_s))

    @rule(answers=st.integers(1, 3))
    def run(self, answers: int) -> None:
        self.pump()
        for _ in range(answers):
            if self.envoy.inbox:
                response = self.envoy.inbox.popleft()
                nonce, error = self.envoy.take(response)
                self.check()
                self.stream.request(Request(response.type_url, nonce=nonce, error=error))
                if SCOPE not in self.stream.subscriptions and (LISTENER, "http") in self.envoy.has:
                    self.ask(SCOPE)
                self.pump()

    @rule(seconds=st.sampled_from([0.5, 2.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.pump()

    @rule()
    def reconnect(self) -> None:
        self.connect()

    @rule()
    def restart_server(self) -> None:
        resources = [one for kind in KINDS for one in self.desired.of(kind).values()]
        self.memory, self.desired = Memory(), Desired()
        self.desired.publish(resources, (), self.now_s)
        self.forgot = True
        self.connect()

    @rule()
    def restart(self) -> None:
        self.envoy = Envoy()
        self.connect()

    # What must hold

    def check(self) -> None:
        for (kind, name), version in self.envoy.has.items():
            if kind == SCOPE:
                assert (CLUSTER, cluster_of(version)) in self.envoy.has, (name, version)

    @invariant()
    def no_scope_routes_to_nowhere(self) -> None:
        self.check()

    def teardown(self) -> None:
        if not hasattr(self, "envoy"):
            return
        for _ in range(2_000):
            self.pump()
            if self.envoy.inbox:
                self.run(1)
            elif self.stream.wake_s is not None:
                self.now_s = max(self.stream.wake_s, self.now_s)
            else:
                break
        else:
            raise AssertionError("it never ends")
        for api, cluster in self.wanted.items():
            wanted = self.desired.of(SCOPE)[api].version
            has = self.envoy.has.get((SCOPE, api))
            if wanted.startswith("good") and cluster.startswith("good"):
                assert has == wanted
            else:
                assert has is None or has.startswith("good")
        assert {name for kind, name in self.envoy.has if kind == SCOPE} <= self.wanted.keys()
        in_use = {cluster_of(v) for (kind, _), v in self.envoy.has.items() if kind == SCOPE}
        clusters = {name for kind, name in self.envoy.has if kind == CLUSTER}
        desired = {name for name in self.desired.of(CLUSTER) if name.startswith("good")}
        if not self.memory.quarantined and not self.forgot:  # a new server knows no leftovers
            assert clusters <= desired | in_use
        assert desired <= clusters


Gateway.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestGateway = Gateway.TestCase
