"""What is published for which change, and what is served when something is refused."""

from collections.abc import Mapping

from bus.resources.rest_api import RestApi
from tests.xds.routing import NoPolicies, api
from xds.assembly import CLUSTER_URL, SCOPE_URL, Assembly, Changes, Wanted
from xds.settings import XdsSettings


def shop(name: str = "shop", context: str = "/shop", port: int = 80, path: str = "/a") -> RestApi:
    return api(f"""
        name: {name}
        context: {context}
        upstream: {{main: {{url: "http://u.example:{port}"}}}}
        operations: [{{method: GET, path: "{path}"}}]
    """)


def assembly() -> Assembly:
    return Assembly(NoPolicies(), XdsSettings())


def serve(made: Assembly, *apis: RestApi, revision: int = 1) -> Changes:
    return made.update({one.id: Wanted(revision, one) for one in apis})


def take(made: Assembly, scopes: Mapping[str, str | None]) -> None:
    for name, version in scopes.items():
        made.acknowledged(name, version)


def names(changes: Changes) -> set[str]:
    return {name for _, name in changes.upserts}


def test_a_new_api_is_one_scope_and_one_cluster() -> None:
    changes = serve(assembly(), shop())
    assert [kind for kind, _ in changes.upserts] == [CLUSTER_URL, SCOPE_URL]
    assert changes.expected == {"shop": (1, frozenset({"scope:shop"}))}
    assert not changes.refused
    assert not changes.removals


def test_the_same_api_again_pushes_nothing() -> None:
    made = assembly()
    serve(made, shop())
    changes = serve(made, shop(), revision=2)
    assert not changes.upserts
    assert changes.expected == {"shop": (2, frozenset({"scope:shop"}))}


def test_apis_share_the_cluster_of_one_upstream_until_the_last_leaves() -> None:
    made = assembly()
    serve(made, shop("a", "/a"))
    assert names(serve(made, shop("b", "/b"))) == {"scope:b"}
    assert list(made.update({"a": Wanted(2, None)}).removals) == [(SCOPE_URL, "scope:a")]
    gone = made.update({"b": Wanted(2, None)})
    assert [kind for kind, _ in gone.removals] == [SCOPE_URL, CLUSTER_URL]
    assert gone.expected == {"b": (2, frozenset({"scope:b"}))}


def test_an_api_that_moves_leaves_its_old_scope() -> None:
    made = assembly()
    serve(made, shop())
    changes = serve(made, shop(context="/store"), revision=2)
    assert names(changes) == {"scope:store"}
    assert list(changes.removals) == [(SCOPE_URL, "scope:shop")]
    assert changes.expected["shop"] == (2, frozenset({"scope:shop", "scope:store"}))


def test_an_undeployed_api_is_served_nowhere_and_says_so() -> None:
    made = assembly()
    serve(made, shop())
    document = shop().model_dump(by_alias=True)
    document["spec"]["deploymentState"] = "undeployed"
    changes = serve(made, RestApi.model_validate(document), revision=2)
    assert [kind for kind, _ in changes.removals] == [SCOPE_URL, CLUSTER_URL]
    assert changes.expected == {"shop": (2, frozenset({"scope:shop"}))}


def test_an_api_that_does_not_compile_leaves_the_last_good_one_and_the_others() -> None:
    made = assembly()
    take(made, serve(made, shop()).scopes)
    document = shop(path="/b").model_dump(by_alias=True)
    document["spec"]["policies"] = [{"name": "no-such-policy"}]
    bad = RestApi.model_validate(document)
    changes = made.update({"shop": Wanted(2, bad), "pets": Wanted(1, shop("pets", "/pets"))})
    assert [(one.api_id, one.revision) for one in changes.refused] == [("shop", 2)]
    assert "no-such-policy" in changes.refused[0].reason
    assert "scope:shop" not in changes.scopes
    assert "scope:pets" in names(changes)


def test_a_scope_that_a_router_refuses_goes_back_to_its_last_good_shape() -> None:
    made = assembly()
    good = serve(made, shop())
    take(made, good.scopes)
    bad = serve(made, shop(path="/b"), revision=2)
    back = made.rejected(SCOPE_URL, "scope:shop", str(bad.scopes["scope:shop"]), "Envoy says no")
    assert [(one.api_id, one.revision, one.reason) for one in back.refused] == [
        ("shop", 2, "Envoy says no")
    ]
    assert back.scopes == good.scopes
    assert back.expected == {"shop": (1, frozenset({"scope:shop"}))}


def test_a_new_api_that_a_router_refuses_is_taken_out_again() -> None:
    made = assembly()
    bad = serve(made, shop())
    back = made.rejected(SCOPE_URL, "scope:shop", str(bad.scopes["scope:shop"]), "no")
    assert back.scopes == {"scope:shop": None}
    assert back.expected == {"shop": (None, frozenset({"scope:shop"}))}


def test_of_two_suspects_in_one_scope_only_the_guilty_one_is_refused() -> None:
    made = assembly()
    take(made, serve(made, shop("old", "/s/old")).scopes)
    pushed = serve(made, shop("one", "/s/one"), shop("two", "/s/two"))
    refused = []

    def route(changes: Changes) -> None:
        """A router that refuses any scope with API `two` in it."""
        refused.extend(one.api_id for one in changes.refused)
        for (kind, name), resource in list(changes.upserts.items()):
            if kind != SCOPE_URL:
                continue
            if b"|two" in resource.body:
                route(made.rejected(SCOPE_URL, name, resource.version, "two is bad"))
            else:
                route(made.acknowledged(name, resource.version))

    route(pushed)
    assert refused == ["two"]
    live = made.update({"old": Wanted(2, shop("old", "/s/old", path="/new"))})
    (scope,) = (one for (kind, _), one in live.upserts.items() if kind == SCOPE_URL)
    assert b"|one" in scope.body
    assert b"|two" not in scope.body


def test_a_refused_cluster_takes_back_the_api_that_brought_it() -> None:
    made = assembly()
    good = serve(made, shop())
    take(made, good.scopes)
    changed = serve(made, shop(port=81), revision=2)
    (cluster,) = (name for kind, name in changed.upserts if kind == CLUSTER_URL)
    back = made.rejected(CLUSTER_URL, cluster, cluster, "bad cluster")
    assert [one.api_id for one in back.refused] == ["shop"]
    assert (CLUSTER_URL, cluster) in back.removals
    assert back.scopes == good.scopes


def test_a_wildcard_at_the_root_changes_the_listener_once() -> None:
    made = assembly()
    serve(made, shop())
    assert made.root_hosts is None
    changes = serve(made, shop("whole", "/", path="/*"))
    assert changes.root_hosts_changed
    assert made.root_hosts == ""
    assert "scope:#root" in names(changes)
    again = serve(made, shop(path="/c"), revision=2)
    assert not again.root_hosts_changed
    assert {"scope:#root", "scope:shop"} == set(again.scopes)
    gone = made.update({"whole": Wanted(2, None)})
    assert gone.root_hosts_changed
    assert made.root_hosts is None
    assert (SCOPE_URL, "scope:#root") in gone.removals
