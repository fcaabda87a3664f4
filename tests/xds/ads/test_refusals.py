"""One router, one type: what it refuses is found, kept away, and replaced."""

from tests.xds.ads.side import Side, one, served, told
from xds.ads.protocol import (
    CLUSTER,
    Memory,
)


def test_a_refused_resource_is_found_by_halving() -> None:
    names = [f"n{number}" for number in range(8)]
    side = Side(*(one(name) for name in names))
    side.says()
    rejected: list[str] = []
    rounds = 0
    while (response := side.sends()) is not None:
        rounds += 1
        side.response = response
        if any(each.name == "n5" for each in response.upserts):
            rejected += side.refuses("something is wrong")
        else:
            side.acks()
    assert rejected == ["n5 1"]
    assert rounds == 7  # 8, 4+4, 2+2, 1+1
    assert side.subscription.in_force == dict.fromkeys(set(names) - {"n5"}, "1")


def test_a_resource_that_the_reason_names_is_tried_alone_at_once() -> None:
    side = told(*(one(f"n{number}") for number in range(8)))
    assert side.refuses("cluster n5: no address") == []
    added, _ = side.told()
    assert len(added) == 7
    assert "n5 1" not in added
    side.acks()
    assert side.told() == (["n5 1"], [])
    assert side.refuses("cluster n5: no address") == ["n5 1"]


def test_what_was_in_a_refused_response_is_sent_again_marked() -> None:
    side = told(one("a"), one("b"))
    assert side.response.again == frozenset()
    side.refuses()
    side.told()
    assert side.response.again == {"a"}
    side.acks()
    side.told()
    assert side.response.again == {"b"}
    side.acks()
    side.publish(one("a", "2"))
    side.told()
    assert side.response.again == frozenset()


def test_a_quarantined_version_is_not_sent_again_but_the_next_is() -> None:
    side = told(one("a"))
    assert side.refuses() == ["a 1"]
    side.publish(one("a", "1"))
    assert side.sends() is None
    side.publish(one("a", "2"))
    assert side.told() == (["a 2"], [])
    side.acks()
    side.publish(one("a", "1"))
    assert side.told() == (["a 1"], [])  # it has changed in between


def test_a_restarted_router_gets_the_last_version_that_it_took() -> None:
    side = served(one("a"))
    side.publish(one("a", "2"))
    side.told()
    side.refuses()
    side.reconnect()
    side.says()
    assert side.told() == (["a 1"], [])
    side.acks()
    assert side.sends() is None


def test_a_reconnecting_router_keeps_its_last_good_version() -> None:
    side = served(one("a"))
    side.publish(one("a", "2"))
    side.told()
    side.refuses()
    side.reconnect()
    side.says(has={"a": "1"})
    assert side.sends() is None


def test_removing_a_quarantined_resource_removes_its_last_good_version() -> None:
    side = served(one("a"))
    side.publish(one("a", "2"))
    side.told()
    side.refuses()
    side.publish(remove=("a",))
    assert side.told() == ([], ["a"])
    side.acks()
    assert side.memory == Memory()


def test_a_fresh_change_does_not_wait_for_the_search_to_end() -> None:
    side = told(*(one(f"n{number}") for number in range(16)))
    side.refuses()
    side.publish(one("fresh"))
    assert side.told() == (["fresh 1"], [])
    side.acks()
    added, _ = side.told()
    assert len(added) == 8


def test_a_suspect_that_is_replaced_meanwhile_is_dropped() -> None:
    side = told(one("a"), one("b"))
    side.refuses()
    side.publish(one("a", "2"))
    assert side.told() == (["a 2"], [])
    side.acks()
    assert side.told() == (["b 1"], [])
    side.acks()
    assert side.sends() is None


def test_a_suspect_that_goes_back_to_the_old_version_is_sent_for_certainty() -> None:
    side = served(one("a"), one("b"), type_url=CLUSTER)
    side.publish(one("a", "2", CLUSTER), one("b", "2", CLUSTER))
    side.told()
    side.refuses()  # Envoy may have taken one of them
    side.publish(one("a", "1", CLUSTER), one("b", "1", CLUSTER))
    assert side.told() == (["a 1", "b 1"], [])


def test_a_suspect_that_is_removed_meanwhile_is_removed_at_the_router() -> None:
    side = told(one("a"), one("b"))
    side.refuses()
    side.publish(remove=("a",))
    assert side.told() == (["b 1"], [])
    side.acks()
    assert side.told() == ([], ["a"])
