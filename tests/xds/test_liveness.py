"""A revision is live on a router once all its scopes are there as published."""

from xds.liveness import Liveness


def published() -> Liveness:
    liveness = Liveness()
    liveness.connect("a")
    liveness.publish("scope:shop", "v1")
    liveness.expect("shop", 1, frozenset({"scope:shop"}))
    return liveness


def test_a_revision_is_live_when_its_scope_was_acknowledged() -> None:
    liveness = published()
    assert liveness.settle(["shop"]) == {}
    assert liveness.acknowledge("a", {"scope:shop": "v0"}) == {}
    assert liveness.acknowledge("a", {"scope:shop": "v1"}) == {"shop": 1}
    assert liveness.acknowledge("a", {"scope:shop": "v1"}) == {}
    assert liveness.report("a") == {"shop": 1}


def test_an_api_in_two_scopes_is_live_when_both_are_there() -> None:
    liveness = published()
    liveness.publish("scope:pets", "p1")
    liveness.expect("shop", 2, frozenset({"scope:shop", "scope:pets"}))
    assert liveness.acknowledge("a", {"scope:shop": "v1"}) == {}
    assert liveness.acknowledge("a", {"scope:pets": "p1"}) == {"shop": 2}


def test_a_retired_api_is_gone_when_its_scope_is() -> None:
    liveness = published()
    liveness.acknowledge("a", {"scope:shop": "v1"})
    liveness.publish("scope:shop", None)
    liveness.expect("shop", 2, frozenset({"scope:shop"}))
    assert liveness.settle(["shop"]) == {}
    assert liveness.acknowledge("a", {"scope:shop": None}) == {"shop": 2}


def test_a_revision_that_changes_nothing_is_live_at_once() -> None:
    liveness = published()
    liveness.acknowledge("a", {"scope:shop": "v1"})
    liveness.expect("shop", 2, frozenset({"scope:shop"}))
    assert liveness.settle(["shop"]) == {"a": {"shop": 2}}


def test_a_refused_api_that_never_was_good_is_live_nowhere() -> None:
    liveness = published()
    liveness.publish("scope:shop", None)
    liveness.forget("shop")
    assert liveness.acknowledge("a", {"scope:shop": None}) == {}
    assert liveness.report("a") == {}


def test_a_router_that_went_is_asked_no_more() -> None:
    liveness = published()
    liveness.disconnect("a")
    assert liveness.acknowledge("a", {"scope:shop": "v1"}) == {}
    assert liveness.nodes == ()
