"""Workers as processes: asleep, awake, killed, stuck, full; what their routes and others see."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.policy_engine.engine.processes import DEADLINE_S, ProcessGateway, kill, process_gateway
from tests.policy_engine.python_gateway import ref

UNAVAILABLE = {
    "error": "Service Unavailable",
    "message": "A policy of the API cannot be evaluated. Please try again later.",
}
OPERATIONS: dict[str, Any] = {
    "GET /native": [],
    "GET /closed": [ref("stamp", word="a")],
    "GET /open": [ref("stamp", word="a", failureMode="open")],
    "POST /body": [ref("reverse")],
}


async def test_a_worker_sleeps_until_there_is_a_python_policy(tmp_path: Path) -> None:
    async with process_gateway(tmp_path, {"GET /native": []}) as gw:
        (worker,) = gw.workers
        async with asyncio.timeout(DEADLINE_S):
            while not gw.hops.feed.workers:
                await asyncio.sleep(0.02)
        (state,) = gw.hops.feed.workers.values()
        assert state.asleep
        assert worker.resident_mb() < 16
        pid = worker.pid
        gw.hops._put(gw.api.model_copy(update={"spec": _with_policy(gw.api)}))
        await gw.serving()
        assert worker.pid == pid


def _with_policy(api: Any) -> Any:
    return api.spec.model_copy(update={"policies": (ref("stamp", word="a"),)})


async def test_policies_run_in_a_process_of_their_own(tmp_path: Path) -> None:
    async with process_gateway(tmp_path, OPERATIONS, workers=2) as gw:
        await gw.serving(2)
        for _ in range(20):
            answer = await gw.client.get("/closed")
            assert (answer.status_code, answer.headers["x-stamped"]) == (200, "a")
        answer = await gw.client.post("/body", content=b"abc")
        assert gw.backend.last.body == b"cba"


async def load(gw: ProcessGateway, path: str, until: asyncio.Event) -> dict[int, int]:
    """How often each status was answered, eight requests at a time, until told."""
    answers: dict[int, int] = {}

    async def one(client: httpx.AsyncClient) -> None:
        while not until.is_set():
            answer = await client.get(path)
            answers[answer.status_code] = answers.get(answer.status_code, 0) + 1

    async with (
        httpx.AsyncClient(base_url=gw.url, timeout=DEADLINE_S) as client,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(4):
            group.create_task(one(client))
    return answers


async def test_a_worker_killed_under_load_harms_its_own_routes_only(tmp_path: Path) -> None:
    async with process_gateway(tmp_path, OPERATIONS) as gw:
        await gw.serving()
        (worker,) = gw.workers
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            native = group.create_task(load(gw, "/native", over))
            closed = group.create_task(load(gw, "/closed", over))
            open_ = group.create_task(load(gw, "/open", over))
            for kills in (1, 2):
                await asyncio.sleep(0.3)
                kill(worker)
                async with asyncio.timeout(DEADLINE_S):
                    while worker.starts <= kills:
                        await asyncio.sleep(0.02)
                await gw.serving()
                await gw.until("/closed", 200)
            over.set()
        assert set(native.result()) == {200}
        assert set(open_.result()) == {200}
        assert set(closed.result()) <= {200, 503}
        assert closed.result()[200] > 0
        answer = await gw.client.get("/closed")
        assert answer.headers["x-stamped"] == "a"


async def test_a_worker_starts_without_the_engine(tmp_path: Path) -> None:
    async with process_gateway(tmp_path, OPERATIONS) as gw:
        await gw.serving()
        (worker,) = gw.workers
        async with asyncio.timeout(DEADLINE_S):
            while not (tmp_path / "run" / "hops.json").exists():
                await asyncio.sleep(0.02)
        (tmp_path / "run" / "engine.sock").unlink()  # nobody finds the engine any more
        kill(worker)
        await gw.until("/closed", 200)
        assert (await gw.client.get("/closed")).headers["x-stamped"] == "a"


BAD: dict[str, Any] = {
    **OPERATIONS,
    "GET /loop": [ref("broken", how="loop")],
    "GET /loop-open": [ref("broken", how="loop", failureMode="open")],
}


async def test_a_policy_that_never_comes_back_ends_its_worker_and_then_rests(
    tmp_path: Path,
) -> None:
    async with process_gateway(tmp_path, BAD, settings={"engine_stuck_s": 0.5}) as gw:
        await gw.serving()
        (worker,) = gw.workers
        answer = await gw.client.get("/loop")
        assert (answer.status_code, answer.json()) == (503, UNAVAILABLE)
        assert (await gw.client.get("/native")).status_code == 200
        async with asyncio.timeout(DEADLINE_S):
            while worker.starts < 2:
                await asyncio.sleep(0.02)
        await gw.serving()
        await gw.until("/closed", 200)
        # it rests: others are served, its own requests are refused at once
        for _ in range(10):
            assert (await gw.client.get("/loop")).status_code == 503
            assert (await gw.client.get("/closed")).status_code == 200
        assert worker.starts == 2
        assert "on_request_headers" in worker.log.read_text()  # where it was stuck
        events = await failures(gw, 2)
        assert {(one.policy, one.failure) for one in events} == {
            ("broken", "died"),
            ("broken", "benched"),
        }


async def failures(gw: ProcessGateway, count: int) -> list[Any]:
    """The `policy.failed` events, once there are that many."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            found = [one for one in gw.bus.events if one.kind == "policy.failed"]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)


async def test_a_policy_that_eats_memory_fails_alone(tmp_path: Path) -> None:
    operations = {**OPERATIONS, "GET /eats": [ref("glutton")]}
    settings = {"engine_worker_memory_mb": 256}
    async with process_gateway(tmp_path, operations, settings=settings) as gw:
        await gw.serving()
        (worker,) = gw.workers
        async with asyncio.timeout(DEADLINE_S):
            while worker.starts < 2:
                assert (await gw.client.get("/native")).status_code == 200
                with contextlib.suppress(httpx.HTTPError):
                    assert (await gw.client.get("/eats")).status_code in (200, 503)
        await gw.serving()
        await gw.until("/closed", 200)
        assert worker.resident_mb() < 200
        assert (await gw.client.get("/eats")).status_code == 503  # it rests
        assert worker.starts == 2


async def test_failures_become_events_that_are_told_together(tmp_path: Path) -> None:
    operations = {"GET /raises": [ref("broken", how="raise")]}
    async with process_gateway(tmp_path, operations) as gw:
        await gw.serving()
        for _ in range(20):
            assert (await gw.client.get("/raises")).status_code == 503
        (event, *_) = await failures(gw, 1)
        assert (event.api, event.policy, event.phase) == ("tried", "broken", "request_headers")
        assert (event.failure, event.outcome) == ("raised", "closed")
        assert event.reason == "RuntimeError: of its own"
        assert "in _fail" in event.traceback
        assert 1 <= event.count <= 20


@pytest.mark.parametrize("signal_name", ["SIGTERM"])
async def test_a_worker_that_is_told_to_end_finishes_what_is_in_flight(
    tmp_path: Path, signal_name: str
) -> None:
    operations = {"GET /later": [ref("later", waitS=0.7, timeout="5s")]}
    async with process_gateway(tmp_path, operations) as gw:
        await gw.serving()
        (worker,) = gw.workers
        await gw.client.get("/later")
        asked = [asyncio.ensure_future(gw.client.get("/later")) for _ in range(10)]
        await asyncio.sleep(0.4)  # all have come to the worker, on a busy machine too
        assert worker.process is not None
        worker.process.terminate()
        answers = [await one for one in asked]
        assert [one.status_code for one in answers] == [200] * 10
        assert [one.headers["x-later"] for one in answers] == ["response"] * 10
