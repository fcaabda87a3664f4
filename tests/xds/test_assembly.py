"""What is published for which change, and what is served when something is refused."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

import pytest

from bus.resources.rest_api import Resilience, RestApi
from policy_engine.catalogue import Catalogue, load
from policy_engine.policy import Credential, DirectAnswer, HttpFilter, Policy, Scope, Version
from tests.xds.routing import NoPolicies, api
from xds.assembly import Assembly, Source, Wanted
from xds.last_good import LastGoodFolder
from xds.publication import CLUSTER_URL, SCOPE_URL, Changes
from xds.settings import XdsSettings


class Remembered(dict[str, Source]):
    """A LastGood without a folder."""

    def load(self) -> dict[str, Source]:
        return dict(self)

    def save(self, api_id: str, source: Source) -> None:
        self[api_id] = source

    def forget(self, api_id: str) -> None:
        self.pop(api_id, None)


def shop(name: str = "shop", context: str = "/shop", port: int = 80, path: str = "/a") -> RestApi:
    return api(f"""
        name: {name}
        context: {context}
        upstream: {{main: {{url: "http://u.example:{port}"}}}}
        operations: [{{method: GET, path: "{path}"}}]
    """)


def assembly(last_good: Remembered | None = None) -> Assembly:
    return Assembly(NoPolicies(), XdsSettings(), last_good or Remembered())


class Router:
    """Refuses every scope in which a poisoned API, one with `bad` in its path, is found."""

    def __init__(self, made: Assembly) -> None:
        self.made = made
        self.refused: list[tuple[str, int]] = []
        self.scopes: dict[str, bytes] = {}  # as it serves them

    def take(self, changes: Changes) -> None:
        """Answer everything that is pushed, and what is pushed because of the answers."""
        self.refused.extend((one.api_id, one.revision) for one in changes.refused)
        for kind, name in changes.removals:
            if kind == SCOPE_URL:
                self.scopes.pop(name, None)
                self.take(self.made.acknowledged(name, None))
        for (kind, name), resource in list(changes.upserts.items()):
            if kind != SCOPE_URL:
                continue
            if b"bad" in resource.body:
                self.take(self.made.rejected(kind, name, resource.version, "bad regex"))
            else:
                self.scopes[name] = resource.body
                self.take(self.made.acknowledged(name, resource.version))

    def serves(self, api_id: str) -> bool:
        return any(b"|" + api_id.encode() in body for body in self.scopes.values())


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
    assert names(changes) == {"scope:pets"}
    assert changes.expected["shop"][0] == 1


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
    router = Router(made := assembly())
    router.take(serve(made, shop("old", "/s/old")))
    router.take(serve(made, shop("one", "/s/one"), shop("two", "/s/two", path="/bad")))
    assert router.refused == [("two", 1)]
    assert [router.serves(name) for name in ("old", "one", "two")] == [True, True, False]


def test_a_late_refusal_convicts_nobody_who_came_later() -> None:
    router = Router(made := assembly())
    router.take(serve(made, shop("old", "/s/old")))
    first = serve(made, shop("a", "/s/a", path="/bad"))
    second = serve(made, shop("b", "/s/b"))  # before the router has answered
    router.take(first)
    router.take(second)
    assert router.refused == [("a", 1)]
    assert [router.serves(name) for name in ("old", "a", "b")] == [True, False, True]


def test_an_api_that_is_deleted_while_it_waits_for_its_trial_stays_deleted() -> None:
    made = assembly()
    pushed = serve(made, shop("a", "/s/a"), shop("b", "/s/b"))
    trial = made.rejected(SCOPE_URL, "scope:s", str(pushed.scopes["scope:s"]), "no")
    made.update({"b": Wanted(2, None)})
    after = made.acknowledged("scope:s", trial.scopes["scope:s"])
    assert not after.upserts
    assert "b" not in after.expected


def test_nobody_who_waits_for_a_trial_is_forgotten_when_another_comes() -> None:
    router = Router(made := assembly())
    pushed = serve(made, *(shop(name, f"/s/{name}") for name in "abc"))
    trial = made.rejected(SCOPE_URL, "scope:s", str(pushed.scopes["scope:s"]), "no")
    late = serve(made, shop("d", "/s/d", path="/bad"))
    router.take(trial)
    router.take(late)
    assert router.refused == [("d", 1)]
    assert [router.serves(name) for name in "abcd"] == [True, True, True, False]


def test_an_api_in_two_scopes_is_good_only_where_both_were_taken() -> None:
    router = Router(made := assembly())
    root = api("""
        name: root
        context: /
        upstream: {main: {url: "http://u.example"}}
        operations: [{method: GET, path: /p}, {method: GET, path: /q/bad}]
    """)
    router.take(serve(made, root))
    assert router.refused == [("root", 1)]
    router.take(serve(made, shop("innocent", "/q")))
    assert router.refused == [("root", 1)]
    assert router.serves("innocent")


def test_the_keys_of_a_held_api_are_those_of_today() -> None:
    made = Assembly(load(), XdsSettings(), Remembered())
    guarded = shop().model_dump(by_alias=True)
    guarded["spec"]["policies"] = [
        {"name": "api-key-auth", "params": {"key": "x-key", "in": "header"}}
    ]
    good = RestApi.model_validate(guarded)
    key = Credential("ab" * 32, "billing")
    take(made, made.update({"shop": Wanted(1, good, (key,))}).scopes)
    guarded["spec"]["policies"].append({"name": "no-such-policy"})
    broken = RestApi.model_validate(guarded)
    assert made.update({"shop": Wanted(2, broken, (key,))}).refused
    revoked = made.update({"shop": Wanted(2, broken)})
    assert not revoked.refused  # it was told before
    (scope,) = (one for (kind, _), one in revoked.upserts.items() if kind == SCOPE_URL)
    assert key.digest.encode() not in scope.body
    assert b"api-key-auth" in scope.body


def test_the_last_good_revision_is_served_after_a_restart_too(tmp_path: Path) -> None:
    def started() -> tuple[Assembly, Router]:
        made = Assembly(NoPolicies(), XdsSettings(), LastGoodFolder(tmp_path))
        return made, Router(made)

    made, router = started()
    router.take(serve(made, shop()))
    router.take(serve(made, shop(path="/bad"), revision=2))
    assert router.refused == [("shop", 2)]

    made, router = started()
    changes = serve(made, shop(path="/bad"), revision=2)
    router.take(changes)
    assert router.refused == [("shop", 2)]
    assert router.serves("shop")
    router.take(serve(made, shop(path="/c"), revision=3))
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_encoded_is_refused_and_nothing_else() -> None:
    made = assembly()
    endless = shop()
    resilience = Resilience.model_construct(timeout="1" + "0" * 300 + "s", idle_timeout=None)
    object.__setattr__(endless.spec, "resilience", resilience)  # as if a rule had a hole
    changes = made.update({"shop": Wanted(1, endless), "pets": Wanted(1, shop("pets", "/pets"))})
    assert [one.api_id for one in changes.refused] == ["shop"]
    assert "scope:pets" in names(changes)


def test_long_and_short_durations_are_spelled_out() -> None:
    made = assembly()
    document = shop().model_dump(by_alias=True)
    document["spec"]["resilience"] = {"timeout": "300h", "idleTimeout": "0.05ms"}
    assert not serve(made, RestApi.model_validate(document)).refused


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


# -- the code of a policy changes under a revision ---------------------------------------------


class Changing(Policy):
    """Answers with a word; a test changes the code."""

    name = "changing"
    version = Version(1, 0, 0)
    example = {}
    word: ClassVar[str | None] = "good"

    def filters(self, scope: Scope) -> tuple[HttpFilter, ...]:
        return ()

    def answer(self) -> DirectAnswer:
        if self.word is None:
            raise ValueError("its code is wrong")
        return DirectAnswer(200, self.word)


def guarded() -> RestApi:
    return api("""
        name: shop
        context: /shop
        upstream: {main: {url: "http://u.example"}}
        policies: [{name: changing}]
        operations: [{method: GET, path: /a}]
    """)


@pytest.fixture
def changing() -> Iterator[type[Changing]]:
    yield Changing
    Changing.word = "good"


def test_a_policy_whose_new_code_fails_leaves_the_shape_that_routers_took(
    changing: type[Changing],
) -> None:
    made = Assembly(Catalogue([changing]), XdsSettings(), Remembered())
    router = Router(made)
    router.take(serve(made, guarded()))
    changing.word = None
    assert made.reconsider(["shop"]) == frozenset()
    router.take(serve(made, guarded()))
    assert router.refused == [("shop", 1)]
    assert router.serves("shop")
    assert b"good" in router.scopes["scope:shop"]

    changing.word = "better"
    assert made.reconsider(["shop"]) == {"shop"}
    router.take(serve(made, guarded()))
    assert b"better" in router.scopes["scope:shop"]
    assert router.refused == [("shop", 1)]


def test_a_policy_whose_new_code_a_router_refuses_leaves_the_shape_before(
    changing: type[Changing],
) -> None:
    made = Assembly(Catalogue([changing]), XdsSettings(), Remembered())
    router = Router(made)
    router.take(serve(made, guarded()))
    changing.word = "bad"
    made.reconsider(["shop"])
    router.take(serve(made, guarded()))
    assert router.refused == [("shop", 1)]
    assert b"good" in router.scopes["scope:shop"]


def test_a_shape_that_cannot_be_compiled_again_is_withdrawn_when_its_keys_change(
    changing: type[Changing],
) -> None:
    made = Assembly(Catalogue([changing]), XdsSettings(), Remembered())
    router = Router(made)
    key = Credential("0" * 64, "app")
    router.take(made.update({"shop": Wanted(1, guarded(), (key,))}))
    changing.word = None
    made.reconsider(["shop"])
    router.take(made.update({"shop": Wanted(1, guarded(), (key,))}))
    assert router.serves("shop")
    router.take(made.update({"shop": Wanted(1, guarded())}))  # the key is revoked
    assert not router.serves("shop")
