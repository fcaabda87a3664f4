"""One router, one type: what is sent, when, and what an answer means."""

from tests.xds.ads.side import Side, key, one, served, told


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
    side = told(one("a"))
    side.publish(one("b"), one("a", "2"))
    assert side.sends() is None
    assert side.acks() == {key("a"): "1"}
    assert side.told() == (["b 1", "a 2"], [])


def test_an_answer_to_another_response_is_none_to_this() -> None:
    side = told(one("a"))
    assert side.says(nonce="999").applied == {}
    assert side.sends() is None
    assert side.acks() == {key("a"): "1"}


def test_changes_meanwhile_are_sent_once_in_their_last_shape() -> None:
    side = told(one("a"))
    side.publish(one("a", "2"))
    side.publish(one("a", "3"), one("b"))
    side.publish(remove=("b",))
    side.acks()
    assert side.told() == (["a 3"], [])
    side.acks()
    assert side.sends() is None


def test_going_back_to_what_the_router_has_while_it_is_told_otherwise() -> None:
    side = served(one("a"))
    side.publish(one("a", "2"))
    side.told()
    side.publish(one("a", "1"))
    side.acks()
    assert side.told() == (["a 1"], [])


def test_going_back_before_anything_was_sent_sends_nothing() -> None:
    side = served(one("a"))
    side.subscription.next_upserts(lambda *_: False, lambda: "", 0)
    side.publish(one("a", "2"))
    side.publish(one("a", "1"))
    assert side.sends() is None


def test_removals_travel_alone() -> None:
    side = served(one("a"))
    side.publish(one("b"), remove=("a",))
    assert side.told() == (["b 1"], [])
    side.acks()
    assert side.told() == ([], ["a"])
    assert side.acks() == {key("a"): None}


def test_what_is_being_sent_when_it_is_removed_is_removed_afterwards() -> None:
    side = told(one("a"))
    side.publish(remove=("a",))
    side.acks()
    assert side.told() == ([], ["a"])
    side.acks()
    assert side.subscription.in_force == {}


def test_what_was_never_sent_is_not_removed() -> None:
    side = told()
    side.publish(one("a"))
    side.publish(remove=("a",))
    side.acks()
    assert side.sends() is None


def test_a_late_answer_still_counts() -> None:
    side = told(one("a"))
    late = side.response
    side.subscription.give_up_waiting()
    side.publish(one("b"))
    assert side.told() == (["b 1"], [])
    assert side.says(nonce=late.nonce).applied == {key("a"): "1"}
    assert side.acks() == {key("b"): "1"}


def test_going_back_while_an_answer_is_late_is_sent() -> None:
    side = served(one("a"))
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
