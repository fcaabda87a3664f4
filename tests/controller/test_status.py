"""The fold over what routers tell, and waiting for it."""

import asyncio
import itertools
import random

import pytest

from bus.events import (
    ConfigurationApplied,
    ConfigurationRejected,
    Event,
    PolicyFaultsFound,
    RouterConnected,
    RouterDisconnected,
)
from controller.status import Deployments, Fleet, Standing


def connected(node: str = "r1") -> RouterConnected:
    return RouterConnected(node=node, version="1.40.0")


def applied(node: str = "r1", *, complete: bool = False, **revisions: int) -> ConfigurationApplied:
    return ConfigurationApplied(node=node, revisions=revisions, complete=complete)


def rejected(revision: int, node: str = "r1", reason: str = "bad") -> ConfigurationRejected:
    return ConfigurationRejected(node=node, api_id="a", revision=revision, reason=reason)


def fleet(*events: Event) -> Fleet:
    found = Fleet()
    for event in events:
        found.apply(event)
    return found


def test_a_revision_is_live_where_it_or_a_later_one_is_in_force() -> None:
    found = fleet(connected("r1"), connected("r2"), applied("r1", a=3), applied("r2", a=2))
    assert found.standing("a", 1) == Standing(2, 2, None)
    assert found.standing("a", 3) == Standing(1, 2, None)
    assert found.standing("b", 1) == Standing(0, 2, None)


def test_with_no_router_nothing_is_live() -> None:
    assert fleet().standing("a", 1).outcome == "pending"


def test_a_router_that_left_does_not_count() -> None:
    found = fleet(connected("r1"), connected("r2"), applied("r1", a=1))
    found.apply(RouterDisconnected(node="r2"))
    assert found.standing("a", 1) == Standing(1, 1, None)
    assert found.standing("a", 1).outcome == "live"
    found.apply(connected("r2"))
    assert found.standing("a", 1).outcome == "pending"


def test_a_router_that_comes_again_tells_anew() -> None:
    found = fleet(connected(), applied(a=5), RouterDisconnected(node="r1"), connected())
    assert found.standing("a", 1).live == 0
    found.apply(connected())  # told twice
    found.apply(applied(a=5))
    found.apply(connected())
    assert found.standing("a", 5).live == 1


def test_a_complete_report_replaces_what_was_known() -> None:
    found = fleet(connected(), applied(a=1, b=1), applied(complete=True, b=2))
    assert found.standing("a", 1).live == 0
    assert found.standing("b", 2).live == 1


def test_a_retired_api_is_gone_where_nothing_of_it_is_left() -> None:
    found = fleet(connected(), applied(a=1))
    assert found.standing("a", 2, retired=True).outcome == "pending"
    found.apply(applied(a=2))
    assert found.standing("a", 2, retired=True).outcome == "live"
    assert fleet(connected()).standing("a", 2, retired=True).outcome == "pending"
    reported = fleet(connected(), applied(complete=True))
    assert reported.standing("a", 2, retired=True).outcome == "live"


@pytest.mark.parametrize("node", ["r1", ""])
def test_a_refusal_is_told_until_a_later_revision_is_in_force(node: str) -> None:
    found = fleet(connected(), applied(a=1), rejected(2, node, "no such field"))
    assert found.standing("a", 2) == Standing(0, 1, "no such field")
    assert found.standing("a", 2).outcome == "rejected"
    assert found.standing("a", 3).outcome == "pending"
    found.apply(rejected(1, node, "older"))
    assert found.standing("a", 2).reason == "no such field"
    found.apply(applied(a=3))
    assert found.standing("a", 3) == Standing(1, 1, None)


def test_a_refusal_by_one_router_is_not_lifted_by_another() -> None:
    found = fleet(connected("r1"), connected("r2"), rejected(2, "r1"), applied("r2", a=2))
    assert found.standing("a", 2) == Standing(1, 2, "bad")


def test_telling_everything_twice_changes_nothing() -> None:
    story: list[Event] = [connected("r1"), applied("r1", a=1), rejected(2), applied("r1", b=4)]
    once = fleet(*story)
    twice = fleet(*itertools.chain.from_iterable((one, one) for one in story))
    assert twice == once


async def test_a_waiter_hears_at_once_whatever_order_things_come_in() -> None:
    events: list[Event] = [connected("r1"), connected("r2"), applied("r1", a=1), applied("r2", a=1)]
    for seed in range(20):
        found = Deployments()
        waiting = asyncio.create_task(found.wait("a", 1, retired=False, wait_s=60))
        await asyncio.sleep(0)
        shuffled = events.copy()
        random.Random(seed).shuffle(shuffled)
        for event in shuffled:
            found.apply(event)
            await asyncio.sleep(0)
        standing = await asyncio.wait_for(waiting, 30)
        assert standing.outcome == "live"


async def test_the_time_from_commit_to_the_last_router_is_told() -> None:
    seen: list[float] = []
    found = Deployments(seen.append)
    found.apply(connected("r1"))
    found.apply(connected("r2"))
    found.committed("a", 1, retired=False)
    found.apply(applied("r1", a=1))
    assert found.elapsed_ms("a", 1) is None
    found.apply(applied("r2", a=1))
    elapsed_ms = found.elapsed_ms("a", 1)
    assert elapsed_ms is not None
    assert seen == [pytest.approx(elapsed_ms / 1000, abs=1e-3)]
    assert found.elapsed_ms("a", 2) is None
    found.apply(applied("r2", a=1))
    assert len(seen) == 1


async def test_a_refused_change_has_no_time() -> None:
    seen: list[float] = []
    found = Deployments(seen.append)
    found.apply(connected())
    found.committed("a", 1, retired=False)
    found.apply(rejected(1))
    assert found.elapsed_ms("a", 1) is None
    assert seen == []


async def test_nobody_is_kept_after_waiting() -> None:
    found = Deployments()
    await asyncio.gather(
        *(found.wait("a", 1, retired=False, wait_s=0.01) for _ in range(5)),
        found.wait("b", 1, retired=False, wait_s=0),
    )
    assert not found._waiting


def test_what_is_wrong_with_policies_is_told_beside_the_outcome_until_it_is_mended() -> None:
    found = fleet(connected(), applied(a=1))
    found.apply(PolicyFaultsFound(faults={"p": "SyntaxError"}, apis={"a": ("p",)}))
    standing = found.standing("a", 1)
    assert (standing.outcome, standing.fault) == ("live", "policy 'p': SyntaxError")
    assert found.standing("b", 1).fault is None
    assert found.standing("a", 2, retired=True).fault is None
    assert found.apply(PolicyFaultsFound(faults={}, apis={})) == {"a"}
    assert found.standing("a", 1).fault is None
