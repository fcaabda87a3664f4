"""One router, one type: what is sent, when, and what an answer means."""

from collections.abc import Mapping
from itertools import count

from xds.ads.protocol import (
    CLUSTER,
    SCOPE,
    Desired,
    Key,
    Memory,
    Outcome,
    Request,
    Resource,
    Response,
)
from xds.ads.subscription import Subscription


def one(name: str, version: str = "1", type_url: str = SCOPE) -> Resource:
    return Resource(type_url, name, version, f"{name} {version}".encode())


def key(name: str) -> Key:
    return SCOPE, name


class Side:
    """A subscription, driven by hand."""

    def __init__(self, *resources: Resource, type_url: str = SCOPE) -> None:
        self.desired = Desired()
        self.memory = Memory()
        self.type_url = type_url
        self.nonces = count(1)
        self.publish(*resources)
        self.reconnect()

    def reconnect(self) -> None:
        self.subscription = Subscription(self.type_url, self.desired.of(self.type_url), self.memory)

    def publish(self, *upserts: Resource, remove: tuple[str, ...] = ()) -> None:
        publication = self.desired.publish(upserts, [(self.type_url, name) for name in remove], 0.0)
        if hasattr(self, "subscription"):
            for _, name in publication.upserts:
                self.subscription.upsert(name, publication.change)
            for _, name in publication.removals:
                self.subscription.remove(name, publication.change)

    def says(
        self,
        *subscribe: str,
        unsubscribe: tuple[str, ...] = (),
        has: Mapping[str, str] | None = None,
        nonce: str = "",
        error: str | None = None,
    ) -> Outcome:
        request = Request(self.type_url, subscribe, unsubscribe, has or {}, nonce, error)
        return self.subscription.request(request, self.desired.latest)

    def sends(self, limit: int = 1 << 20) -> Response | None:
        nonce = lambda: str(next(self.nonces))  # noqa: E731
        return self.subscription.next_upserts(
            lambda *_: True, nonce, limit
        ) or self.subscription.next_removals(lambda *_: True, nonce)

    def told(self, limit: int = 1 << 20) -> tuple[list[str], list[str]]:
        """Names and versions added, and names removed, by the next response."""
        self.response = self.sends(limit)
        assert self.response is not None
        added = [f"{each.name} {each.version}" for each in self.response.upserts]
        return added, list(self.response.removals)

    def acks(self) -> dict[Key, str | None]:
        assert self.response is not None
        return self.says(nonce=self.response.nonce).applied

    def refuses(self, error: str = "no") -> list[str]:
        assert self.response is not None
        rejected = self.says(nonce=self.response.nonce, error=error).rejected
        return [f"{each.resource.name} {each.resource.version}" for each in rejected]


def test_a_first_request_without_names_asks_for_everything() -> None:
    side = Side(one("a"), one("b"))
    side.says()
    assert side.told() == (["a 1", "b 1"], [])
    assert side.acks() == {key("a"): "1", key("b"): "1"}
    assert side.sends() is None


def test_a_star_asks_for_everything() -> None:
    side = Side(one("a"))
    side.says("*")
    assert side.told() == (["a 1"], [])


def test_nothing_to_have_is_said_once() -> None:
    side = Side()
    side.says()
    assert side.told() == ([], [])
    assert side.acks() == {}
    assert side.sends() is None


def test_only_what_was_asked_for_by_name_is_sent() -> None:
    side = Side(one("a"), one("b"))
    side.says("a")
    assert side.told() == (["a 1"], [])
    side.acks()
    side.publish(one("b", "2"), one("c"))
    assert side.sends() is None


def test_a_name_that_does_not_exist_is_said_not_to_exist_until_it_does() -> None:
    side = Side()
    side.says("a")
    assert side.told() == ([], ["a"])
    side.acks()
    side.publish(one("a"))
    assert side.told() == (["a 1"], [])


def test_asking_again_is_answered_again() -> None:
    side = Side(one("a"), one("b"))
    side.says("a")
    side.told()
    side.acks()
    side.says("a")
    assert side.told() == (["a 1"], [])
    side.acks()
    side.says("*")
    assert side.told() == (["a 1", "b 1"], [])


def test_who_unsubscribes_is_told_no_more() -> None:
    side = Side(one("a"))
    side.says("a")
    side.told()
    side.acks()
    side.says(unsubscribe=("a",))
    side.publish(one("a", "2"))
    assert side.sends() is None
    side.publish(remove=("a",))
    assert side.sends() is None
    side.publish(one("a", "3"))
    side.says("a")
    assert side.told() == (["a 3"], [])


def test_unsubscribing_from_everything_keeps_the_names() -> None:
    side = Side(one("a"), one("b"))
    side.says("*", "a")
    side.told()
    side.acks()
    side.says(unsubscribe=("*",))
    side.publish(one("a", "2"), one("b", "2"))
    assert side.told() == (["a 2"], [])
    side.acks()
    side.says("*")
    assert side.told() == (["a 2", "b 2"], [])


def test_a_reconnecting_router_gets_the_differences_only() -> None:
    side = Side(one("same"), one("stale", "2"), one("new"))
    outcome = side.says(has={"same": "1", "stale": "1", "old": "1"})
    assert outcome.applied == {key("same"): "1", key("stale"): "1", key("old"): "1"}
    assert side.told() == (["stale 2", "new 1"], [])
    side.acks()
    assert side.told() == ([], ["old"])
    assert side.acks() == {key("old"): None}
    assert side.sends() is None


def test_a_reconnecting_router_that_has_all_gets_nothing() -> None:
    side = Side(one("a"))
    side.says(has={"a": "1"})
    assert side.sends() is None


def test_one_response_at_a_time() -> None:
    side = Side(one("a"))
    side.says()
    side.told()
    side.publish(one("b"), one("a", "2"))
    assert side.sends() is None
    assert side.acks() == {key("a"): "1"}
    assert side.told() == (["b 1", "a 2"], [])


def test_an_answer_to_another_response_is_none_to_this() -> None:
    side = Side(one("a"))
    side.says()
    side.told()
    assert side.says(nonce="999").applied == {}
    assert side.sends() is None
    assert side.acks() == {key("a"): "1"}


def test_changes_meanwhile_are_sent_once_in_their_last_shape() -> None:
    side = Side(one("a"))
    side.says()
    side.told()
    side.publish(one("a", "2"))
    side.publish(one("a", "3"), one("b"))
    side.publish(remove=("b",))
    side.acks()
    assert side.told() == (["a 3"], [])
    side.acks()
    assert side.sends() is None


def test_going_back_to_what_the_router_has_while_it_is_told_otherwise() -> None:
    side = Side(one("a"))
    side.says()
    side.told()
    side.acks()
    side.publish(one("a", "2"))
    side.told()
    side.publish(one("a", "1"))
    side.acks()
    assert side.told() == (["a 1"], [])


def test_going_back_before_anything_was_sent_sends_nothing() -> None:
    side = Side(one("a"))
    side.says()
    side.told()
    side.acks()
    side.subscription.next_upserts(lambda *_: False, lambda: "", 0)
    side.publish(one("a", "2"))
    side.publish(one("a", "1"))
    assert side.sends() is None


def test_removals_travel_alone() -> None:
    side = Side(one("a"))
    side.says()
    side.told()
    side.acks()
    side.publish(one("b"), remove=("a",))
    assert side.told() == (["b 1"], [])
    side.acks()
    assert side.told() == ([], ["a"])
    assert side.acks() == {key("a"): None}


def test_what_is_being_sent_when_it_is_removed_is_removed_afterwards() -> None:
    side = Side(one("a"))
    side.says()
    side.told()
    side.publish(remove=("a",))
    side.acks()
    assert side.told() == ([], ["a"])
    side.acks()
    assert side.subscription.in_force == {}


def test_what_was_never_sent_is_not_removed() -> None:
    side = Side()
    side.says()
    side.told()
    side.publish(one("a"))
    side.publish(remove=("a",))
    side.acks()
    assert side.sends() is None


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
    side = Side(*(one(f"n{number}") for number in range(8)))
    side.says()
    side.told()
    assert side.refuses("cluster n5: no address") == []
    added, _ = side.told()
    assert len(added) == 7
    assert "n5 1" not in added
    side.acks()
    assert side.told() == (["n5 1"], [])
    assert side.refuses("cluster n5: no address") == ["n5 1"]


def test_what_was_in_a_refused_response_is_sent_again_marked() -> None:
    side = Side(one("a"), one("b"))
    side.says()
    side.told()
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
    side = Side(one("a"))
    side.says()
    side.told()
    assert side.refuses() == ["a 1"]
    side.publish(one("a", "1"))
    assert side.sends() is None
    side.publish(one("a", "2"))
    assert side.told() == (["a 2"], [])
    side.acks()
    side.publish(one("a", "1"))
    assert side.told() == (["a 1"], [])  # it has changed in between


def test_a_restarted_router_gets_the_last_version_that_it_took() -> None:
    side = Side(one("a"))
    side.says()
    side.told()
    side.acks()
    side.publish(one("a", "2"))
    side.told()
    side.refuses()
    side.reconnect()
    side.says()
    assert side.told() == (["a 1"], [])
    side.acks()
    assert side.sends() is None


def test_a_reconnecting_router_keeps_its_last_good_version() -> None:
    side = Side(one("a"))
    side.says()
    side.told()
    side.acks()
    side.publish(one("a", "2"))
    side.told()
    side.refuses()
    side.reconnect()
    side.says(has={"a": "1"})
    assert side.sends() is None


def test_removing_a_quarantined_resource_removes_its_last_good_version() -> None:
    side = Side(one("a"))
    side.says()
    side.told()
    side.acks()
    side.publish(one("a", "2"))
    side.told()
    side.refuses()
    side.publish(remove=("a",))
    assert side.told() == ([], ["a"])
    side.acks()
    assert side.memory == Memory()


def test_a_fresh_change_does_not_wait_for_the_search_to_end() -> None:
    side = Side(*(one(f"n{number}") for number in range(16)))
    side.says()
    side.told()
    side.refuses()
    side.publish(one("fresh"))
    assert side.told() == (["fresh 1"], [])
    side.acks()
    added, _ = side.told()
    assert len(added) == 8


def test_a_suspect_that_is_replaced_meanwhile_is_dropped() -> None:
    side = Side(one("a"), one("b"))
    side.says()
    side.told()
    side.refuses()
    side.publish(one("a", "2"))
    assert side.told() == (["a 2"], [])
    side.acks()
    assert side.told() == (["b 1"], [])
    side.acks()
    assert side.sends() is None


def test_a_suspect_that_goes_back_to_the_old_version_is_sent_for_certainty() -> None:
    side = Side(one("a"), one("b"), type_url=CLUSTER)
    side.says()
    side.told()
    side.acks()
    side.publish(one("a", "2", CLUSTER), one("b", "2", CLUSTER))
    side.told()
    side.refuses()  # Envoy may have taken one of them
    side.publish(one("a", "1", CLUSTER), one("b", "1", CLUSTER))
    assert side.told() == (["a 1", "b 1"], [])


def test_a_suspect_that_is_removed_meanwhile_is_removed_at_the_router() -> None:
    side = Side(one("a"), one("b"))
    side.says()
    side.told()
    side.refuses()
    side.publish(remove=("a",))
    assert side.told() == (["b 1"], [])
    side.acks()
    assert side.told() == ([], ["a"])


def test_a_late_answer_still_counts() -> None:
    side = Side(one("a"))
    side.says()
    side.told()
    late = side.response
    side.subscription.give_up_waiting()
    side.publish(one("b"))
    assert side.told() == (["b 1"], [])
    assert side.says(nonce=late.nonce).applied == {key("a"): "1"}
    assert side.acks() == {key("b"): "1"}


def test_going_back_while_an_answer_is_late_is_sent() -> None:
    side = Side(one("a"))
    side.says()
    side.told()
    side.acks()
    side.publish(one("a", "2"))
    side.told()
    side.subscription.give_up_waiting()
    side.publish(one("a", "1"))
    assert side.told() == (["a 1"], [])


def test_a_response_is_cut_to_size() -> None:
    side = Side(*(one(f"n{number}") for number in range(5)))  # of 4 bytes each
    side.says()
    sizes = []
    while side.sends is not None and (response := side.sends(limit=9)) is not None:
        sizes.append(len(response.upserts))
        side.response = response
        side.acks()
    assert sizes == [2, 2, 1]


def test_a_resource_larger_than_a_response_goes_alone() -> None:
    side = Side(one("large"), one("b"))
    side.says()
    assert side.told(limit=1) == (["large 1"], [])
