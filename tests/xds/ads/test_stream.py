"""The order in which one router is told of clusters, listeners and scopes."""

from collections.abc import Iterable

from xds.ads.protocol import (
    CLUSTER,
    LISTENER,
    SCOPE,
    SECRET,
    Desired,
    Key,
    Memory,
    Request,
    Resource,
)
from xds.ads.stream import Pace, Stream

PACE = Pace(linger_s=2.0, patience_s=5.0)


def cluster(name: str, version: str = "1") -> Resource:
    return Resource(CLUSTER, name, version, b"")


def scope(name: str, version: str = "1", needs: Iterable[str] | None = None) -> Resource:
    return Resource(SCOPE, name, version, b"", None if needs is None else frozenset(needs))


class Side:
    """A stream, driven by hand; `sends` tells type, names and removed names as text."""

    def __init__(self, *resources: Resource) -> None:
        self.now_s = 100.0
        self.desired = Desired()
        self.memory = Memory()
        self.connect()
        self.publish(*resources)

    def connect(self, **has: dict[str, str]) -> None:
        self.stream = Stream(self.desired, self.memory, PACE)
        self.has = has

    def ask(self, *kinds: str) -> None:
        for kind in kinds:
            has = self.has.get(kind.rpartition(".")[2], {})
            self.stream.request(Request(kind, initial_versions=has))

    def publish(self, *upserts: Resource, remove: Iterable[Key] = ()) -> None:
        self.stream.publish(self.desired.publish(upserts, remove, self.now_s))

    def sends(self) -> list[str]:
        self.last = list(self.stream.responses(self.now_s))
        return [
            " ".join(
                (
                    each.type_url.rpartition(".")[2],
                    *(one.name for one in each.upserts),
                    *(f"-{name}" for name in each.removals),
                )
            )
            for each in self.last
        ]

    def answer(self, kind: str, error: str | None = None) -> None:
        outstanding = self.stream.subscriptions[kind].outstanding
        assert outstanding is not None
        self.stream.request(Request(kind, nonce=outstanding.nonce, error=error))

    def ready(self) -> None:
        """A router that has all there is."""
        self.ask(CLUSTER, LISTENER, SCOPE)
        while self.sends():
            for each in self.last:
                self.answer(each.type_url)


def test_scopes_wait_for_the_clusters_published_with_or_before_them() -> None:
    side = Side()
    side.ready()
    side.publish(scope("a"), cluster("c"))
    assert side.sends() == ["Cluster c"]
    side.publish(scope("b"))
    assert side.sends() == []
    side.answer(CLUSTER)
    assert side.sends() == ["ScopedRouteConfiguration a b"]


def test_scopes_do_not_wait_for_clusters_published_later() -> None:
    side = Side()
    side.ready()
    side.publish(scope("a"))
    side.publish(cluster("c"))
    assert side.sends() == ["Cluster c", "ScopedRouteConfiguration a"]


def test_listeners_wait_for_clusters_and_scopes_for_listeners() -> None:
    side = Side(Resource(LISTENER, "http", "1", b""))
    side.ready()
    side.publish(scope("a"), Resource(LISTENER, "http", "2", b""), cluster("c"))
    assert side.sends() == ["Cluster c"]
    side.answer(CLUSTER)
    assert side.sends() == ["Listener http"]
    side.answer(LISTENER)
    assert side.sends() == ["ScopedRouteConfiguration a"]


def test_a_secret_waits_for_nothing() -> None:
    side = Side()
    side.ready()
    side.publish(cluster("c"))
    assert side.sends() == ["Cluster c"]
    side.stream.request(Request(SECRET, ("ca",)))
    assert side.sends() == []
    side.publish(Resource(SECRET, "ca", "1", b""))
    assert side.sends() == ["Secret ca"]


def test_a_scope_that_says_what_it_needs_waits_for_that_only() -> None:
    side = Side()
    side.ready()
    side.publish(cluster("slow"), scope("a", needs=["slow"]), scope("b", needs=()))
    assert side.sends() == ["Cluster slow", "ScopedRouteConfiguration b"]


def test_a_scope_is_held_while_its_cluster_is_refused() -> None:
    side = Side()
    side.ready()
    side.publish(cluster("c"), scope("a", needs=["c"]))
    side.sends()
    side.answer(CLUSTER, "no")
    assert side.sends() == []
    side.publish(cluster("c", "2"))
    assert side.sends() == ["Cluster c"]
    side.answer(CLUSTER)
    assert side.sends() == ["ScopedRouteConfiguration a"]


def test_a_cluster_goes_after_the_scope_was_moved_and_some_time_passed() -> None:
    side = Side(cluster("old"), scope("a"))
    side.ready()
    side.publish(cluster("new"), scope("a", "2"), remove=[(CLUSTER, "old")])
    assert side.sends() == ["Cluster new"]
    side.answer(CLUSTER)
    assert side.sends() == ["ScopedRouteConfiguration a"]
    side.answer(SCOPE)
    assert side.sends() == []
    assert side.stream.wake_s == side.now_s + PACE.linger_s
    side.now_s += PACE.linger_s
    assert side.sends() == ["Cluster -old"]


def test_a_cluster_goes_after_the_scope_was_removed() -> None:
    side = Side(cluster("old"), scope("a"))
    side.ready()
    side.publish(remove=[(CLUSTER, "old"), (SCOPE, "a")])
    assert side.sends() == ["ScopedRouteConfiguration -a"]
    side.now_s += 60
    assert side.sends() == []
    late = next(iter(side.stream.subscriptions[SCOPE].late))
    side.stream.request(Request(SCOPE, nonce=late))
    assert side.sends() == []
    side.now_s += PACE.linger_s
    assert side.sends() == ["Cluster -old"]


def test_a_cluster_that_is_wanted_again_in_time_stays() -> None:
    side = Side(cluster("c"), scope("a"))
    side.ready()
    side.publish(remove=[(CLUSTER, "c"), (SCOPE, "a")])
    side.sends()
    side.answer(SCOPE)
    side.sends()
    side.publish(cluster("c"), scope("b"))
    side.now_s += 60
    assert side.sends() == ["ScopedRouteConfiguration b"]


def test_a_cluster_stays_while_the_scope_that_left_it_is_refused() -> None:
    side = Side(cluster("old"), scope("a"))
    side.ready()
    side.publish(cluster("new"), scope("a", "bad"), remove=[(CLUSTER, "old")])
    side.sends()
    side.answer(CLUSTER)
    side.sends()
    side.answer(SCOPE, "no")
    side.now_s += 60
    assert side.sends() == []
    side.publish(cluster("third"), scope("a", "good"), remove=[(CLUSTER, "new")])
    assert side.sends() == ["Cluster third"]  # and not `old`, which the router still routes to
    side.answer(CLUSTER)
    assert side.sends() == ["ScopedRouteConfiguration a"]
    side.answer(SCOPE)
    side.sends()
    side.now_s += PACE.linger_s
    assert side.sends() == ["Cluster -old -new"]


def test_a_cluster_that_no_stale_scope_needs_does_not_wait() -> None:
    side = Side(cluster("x"), cluster("y"), scope("a", needs=["x"]), scope("b", needs=["y"]))
    side.ready()
    side.publish(cluster("z"), scope("a", "2", needs=["z"]))
    side.publish(remove=[(SCOPE, "b"), (CLUSTER, "y")])
    assert side.sends() == ["Cluster z", "ScopedRouteConfiguration -b"]
    side.answer(SCOPE)
    side.answer(CLUSTER, "no")  # so that `a` stays where it was
    assert side.sends() == []
    side.now_s += PACE.linger_s
    assert side.sends() == ["Cluster -y"]


def test_a_reconnecting_router_keeps_its_clusters_until_it_told_its_scopes() -> None:
    side = Side(scope("a", "2"))
    side.connect(Cluster={"old": "1"}, ScopedRouteConfiguration={"a": "1"})
    side.ask(CLUSTER)
    side.now_s += 60
    assert side.sends() == []
    side.ask(LISTENER, SCOPE)
    assert side.sends() == ["Listener", "ScopedRouteConfiguration a"]
    side.answer(LISTENER)
    side.answer(SCOPE)
    side.sends()
    side.now_s += PACE.linger_s
    assert side.sends() == ["Cluster -old"]


def test_who_does_not_say_what_it_needs_stops_waiting_for_a_late_answer() -> None:
    side = Side()
    side.ready()
    side.publish(cluster("slow"), scope("vague"), scope("exact", needs=["slow"]))
    assert side.sends() == ["Cluster slow"]
    assert side.stream.wake_s == side.now_s + PACE.patience_s
    side.now_s += PACE.patience_s
    assert side.sends() == ["ScopedRouteConfiguration vague"]
    side.publish(cluster("quick"))
    assert side.sends() == ["Cluster quick"]


def test_a_restarted_router_does_not_get_a_last_good_scope_without_its_cluster() -> None:
    side = Side(cluster("old"), scope("a", needs=["old"]))
    side.ready()
    side.publish(cluster("new"), scope("a", "bad", needs=["new"]), remove=[(CLUSTER, "old")])
    side.sends()
    side.answer(CLUSTER)
    side.sends()
    side.answer(SCOPE, "no")
    side.connect()
    side.ask(CLUSTER, LISTENER, SCOPE)
    assert side.sends() == ["Cluster new"]
    side.answer(CLUSTER)
    assert side.sends() == ["Listener", "ScopedRouteConfiguration"]  # told that there is nothing


def test_a_type_we_do_not_serve_is_answered_with_nothing() -> None:
    side = Side()
    side.ask("type.googleapis.com/envoy.config.route.v3.RouteConfiguration")
    assert side.sends() == ["RouteConfiguration"]
