"""Changes that wait for the engine's workers."""

import asyncio

import pytest

from policy_engine.catalogue import load
from policy_engine.engine.awake import Awake
from policy_engine.engine.feed import WorkerState
from tests.xds.routing import api
from xds.inbox import Inbox, WorkersAwake
from xds.waiting import Waiting

PLAIN = api("""
context: /plain
upstream: {main: {url: "http://127.0.0.1:9"}}
policies: [{name: cors, params: {allowedOrigins: ["*"]}}]
operations: [{method: GET, path: /}]
""")
GUARDED = api("""
context: /guarded
upstream: {main: {url: "http://127.0.0.1:9"}}
operations:
  - method: POST
    path: /
    policies: [{name: word-count-guardrail, params: {request: {min: 1, max: 3}}}]
""")
ASKED = api("""
context: /asked
upstream: {main: {url: "http://127.0.0.1:9"}}
policies:
  - {name: respond, params: {statusCode: 200}, executionCondition: "request.Body.x == 1"}
operations: [{method: POST, path: /}]
""")
QUIET = api("""
context: /quiet
upstream: {main: {url: "http://127.0.0.1:9"}}
policies: [{name: word-count-guardrail, params: {request: {enabled: false, min: 1, max: 3}}}]
operations: [{method: POST, path: /}]
""")
UNDEPLOYED = GUARDED.model_copy(
    update={"spec": GUARDED.spec.model_copy(update={"deployment_state": "undeployed"})}
)


def waiting(awake: Awake, max_s: float = 30) -> tuple[Waiting, Inbox]:
    inbox = Inbox()
    return Waiting(awake, inbox, load(()), max_s), inbox


async def test_only_what_calls_the_engine_waits() -> None:
    held, _ = waiting(Awake(1))
    for one, waits in ((PLAIN, False), (GUARDED, True), (ASKED, True), (QUIET, False)):
        assert held.holds(one.spec.context, one) is waits, one.spec.context
    assert held.taken() == {"/guarded": None, "/asked": None}
    assert held.taken() == {}


async def test_a_later_change_takes_the_place_of_the_one_that_waits() -> None:
    held, _ = waiting(Awake(1))
    assert held.holds("a", GUARDED)
    assert held.holds("b", GUARDED)
    assert not held.holds("a", PLAIN)
    assert not held.holds("b", UNDEPLOYED)
    assert held.holds("c", GUARDED)
    assert not held.holds("c", None)
    assert held.taken() == {}


@pytest.mark.parametrize(("workers", "max_s"), [(2, 30.0), (3, 0.05)], ids=["awake", "too long"])
async def test_the_loop_goes_on_when_workers_are_awake_or_do_not_wake_up(
    workers: int, max_s: float
) -> None:
    awake = Awake(workers)
    held, inbox = waiting(awake, max_s)
    assert held.holds("a", GUARDED)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(held.run())
        awake.update([WorkerState(0, 1), WorkerState(1, 2, asleep=True)])
        assert held.holds("b", GUARDED)
        awake.update([WorkerState(0, 1), WorkerState(1, 3)])
        async with asyncio.timeout(30):
            (item,) = await inbox.batch()
        task.cancel()
    assert isinstance(item, WorkersAwake)
    assert held.taken() == {"a": None, "b": None}


async def test_workers_that_were_awake_are_not_waited_for_again() -> None:
    awake = Awake(1)
    awake.update([WorkerState(0, 1)])
    awake.update([])
    held, _ = waiting(awake)
    assert not held.holds("a", GUARDED)
    assert Awake(0).now
