import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from policy_engine.catalogue import load
from policy_engine.errors import InvalidParameters
from tests.policy_engine.attached import CATALOGUE, LOCAL_REPLY, policy
from tests.servers.http_backend import Answer, HttpBackend, Received, http_backend
from tests.xds.routing import NoPolicies, Router, api, router
from xds.compile.api import compile_api
from xds.settings import XdsSettings

OVERLOADED = {
    "error": "Service Unavailable",
    "message": "The upstream has too much to do. Please try again later.",
}
AWAY = {
    "error": "Service Unavailable",
    "message": "The upstream is not available. Please try again later.",
}


def spec(url: str, *, api_level: Any = None, operation: Any = None, name: str = "shop") -> str:
    def attached(params: Any) -> list[dict[str, Any]]:
        return [] if params is None else [{"name": "circuit-breaker", "params": params}]

    return f"""
    name: {name}
    context: /{name}
    upstream: {{main: {{url: "{url}"}}}}
    policies: {attached(api_level)}
    operations:
      - {{method: GET, path: /plain}}
      - {{method: GET, path: /guarded, policies: {attached(operation)}}}
    """


@asynccontextmanager
async def guarded(
    params: dict[str, Any], *, operation: bool = False
) -> AsyncIterator[tuple[Router, HttpBackend]]:
    async with http_backend() as backend:
        written = spec(backend.url, **{"operation" if operation else "api_level": params})
        settings = {"upstream_retries": 0}
        async with router(
            api(written), catalogue=load(()), settings=settings, local_reply=LOCAL_REPLY
        ) as running:
            yield running, backend


class Stuck:
    """A backend that answers when it is told to."""

    def __init__(self) -> None:
        self.delay_s = 2.0

    def __call__(self, request: Received) -> Answer:
        return Answer(body=b"late", delay_s=self.delay_s)


async def statuses(running: Router, path: str, count: int) -> list[int]:
    answers = await asyncio.gather(*(running.get(path, timeout=30) for _ in range(count)))
    return sorted(one.status_code for one in answers)


async def test_what_is_over_the_limits_is_answered_at_once() -> None:
    async with guarded({"maxConnections": 1, "maxPendingRequests": 1}) as (running, backend):
        backend.answer = Stuck()
        answers = await asyncio.gather(*(running.get("/shop/plain", timeout=30) for _ in range(8)))
        refused = [one for one in answers if one.status_code != 200]
        assert 5 <= len(refused) <= 7  # one is served, at most one waits
        for one in refused:
            assert (one.status_code, one.json()) == (503, OVERLOADED)
            assert one.headers["retry-after"] == "1"
            assert "x-envoy-overloaded" not in one.headers
            assert one.elapsed.total_seconds() < 1.9
        backend.answer = lambda request: Answer(body=b"quick")
        assert (await running.get("/shop/plain")).status_code == 200


async def test_only_the_operation_that_has_the_policy_is_limited() -> None:
    async with guarded({"maxConnections": 1, "maxPendingRequests": 1}, operation=True) as (
        running,
        backend,
    ):
        stuck = Stuck()
        stuck.delay_s = 0.5
        backend.answer = stuck
        assert await statuses(running, "/shop/plain", 8) == [200] * 8
        assert 503 in await statuses(running, "/shop/guarded", 8)


@pytest.mark.parametrize("kind", ["consecutive5xx", "consecutiveGatewayErrors"])
async def test_an_upstream_that_fails_is_left_alone_and_comes_back(kind: str) -> None:
    detection = {kind: 3, "interval": "100ms", "baseEjectionTime": "1s", "maxEjectionTime": "1s"}
    async with guarded({"outlierDetection": detection}) as (running, backend):
        backend.answer = lambda request: Answer(503, (), b"broken")
        for _ in range(3):
            assert (await running.get("/shop/plain")).text == "broken"
        answer = await running.get("/shop/plain")
        assert (answer.status_code, answer.json()) == (503, AWAY)
        assert answer.headers["retry-after"] == "1"
        asked = len(backend.requests)
        assert asked == 3
        backend.answer = lambda request: Answer(body=b"well")
        async with asyncio.timeout(30):
            while (await running.get("/shop/plain")).status_code != 200:
                await asyncio.sleep(0.02)


async def test_errors_of_callers_do_not_open_the_circuit() -> None:
    detection = {"consecutive5xx": 2, "interval": "100ms", "baseEjectionTime": "60s"}
    async with guarded({"outlierDetection": detection}) as (running, backend):
        for status in (404, 500, 404, 500, 429, 500, 200):
            backend.answer = lambda request, status=status: Answer(status, (), b"told")
            answer = await running.get("/shop/plain")
            assert (answer.status_code, answer.text) == (status, "told")


async def test_an_upstream_that_cannot_be_reached_is_left_alone() -> None:
    detection = {"consecutiveGatewayErrors": 2, "interval": "100ms", "baseEjectionTime": "60s"}
    params = {"outlierDetection": detection}
    async with http_backend() as gone:
        url = gone.url
    settings = {"upstream_retries": 0}
    async with router(
        api(spec(url, api_level=params)),
        catalogue=load(()),
        settings=settings,
        local_reply=LOCAL_REPLY,
    ) as running:
        messages = [(await running.get("/shop/plain")).json()["message"] for _ in range(3)]
        assert messages[0] != AWAY["message"]
        assert messages[2] == AWAY["message"]


def test_apis_that_ask_for_nothing_share_connections_as_before() -> None:
    settings = XdsSettings()

    def clusters(**params: Any) -> set[str]:
        written = api(spec("http://127.0.0.1:9", **params))
        return set(compile_api(written, 1, (), CATALOGUE, settings).clusters)

    (plain,) = compile_api(api(spec("http://127.0.0.1:9")), 1, (), NoPolicies(), settings).clusters
    asked = {"maxConnections": 5}
    assert clusters() == {plain}
    assert len(clusters(operation=asked) - {plain}) == 1
    assert clusters(operation=asked) & clusters(api_level=asked) == clusters(api_level=asked)
    assert plain in clusters(operation=asked)
    assert plain not in clusters(api_level=asked)
    assert clusters(api_level={"maxConnections": 6}) != clusters(api_level=asked)


def test_the_policy_that_runs_last_decides_limit_by_limit() -> None:
    settings = XdsSettings()
    written = spec(
        "http://127.0.0.1:9",
        api_level={"maxConnections": 5, "maxRequests": 7, "maxRetries": 2},
        operation={"maxConnections": 9},
    )
    made = compile_api(api(written), 1, (), CATALOGUE, settings).clusters.values()
    found = [one["circuit_breakers"]["thresholds"] for one in made]
    whole = {"max_pending_requests": 10_000, "max_requests": 7, "max_retries": 2}
    assert [{"max_connections": 5, **whole}] in found
    assert [{"max_connections": 9, **whole}] in found


async def test_the_example_is_served() -> None:
    async with guarded(CATALOGUE.resolve("circuit-breaker").example) as (running, _):
        assert (await running.get("/shop/plain")).status_code == 200


@pytest.mark.parametrize(
    ("params", "field", "told"),
    [
        ({}, "", "is required"),
        ({"maxConnections": 0}, "maxConnections", "must be at least 1"),
        ({"outlierDetection": {}}, "outlierDetection", "needs consecutive5xx or"),
        (
            {"outlierDetection": {"consecutive5xx": 1, "maxEjectionPercent": 101}},
            "outlierDetection.maxEjectionPercent",
            "must be at most 100",
        ),
        (
            {"outlierDetection": {"consecutive5xx": 1, "baseEjectionTime": "1h"}},
            "outlierDetection",
            "maxEjectionTime must not be shorter",
        ),
        ({"maxConnection": 1}, "maxConnection", "Unknown parameter 'maxConnection'"),
    ],
)
def test_wrong_parameters_are_named(params: dict[str, Any], field: str, told: str) -> None:
    with pytest.raises(InvalidParameters) as caught:
        policy("circuit-breaker", **params)
    (fault,) = caught.value.faults
    assert fault.path == field
    assert told in fault.message
