from collections import deque
from typing import Any

import pytest

from tests.policy_engine.attached import limit, policy
from tests.policy_engine.gateway import Api, Gateway, gateway
from tests.servers.http_backend import Answer, Received

QUICK = {"base": "1ms", "max": "5ms"}


def statuses(running: Gateway, *wanted: int) -> None:
    """The backend answers these, the last one for ever."""
    left = deque(wanted)

    def answer(_: Received) -> Answer:
        return Answer(status=left.popleft() if len(left) > 1 else left[0])

    running.backend.answer = answer


@pytest.mark.parametrize("level", ["api", "operation"])
@pytest.mark.parametrize(
    ("params", "answers", "expected", "asked"),
    [
        ({"retryOn": ["5xx"], "attempts": 2}, (500, 500, 200), 200, 3),
        ({"retryOn": ["5xx"], "attempts": 1}, (500, 500, 200), 500, 2),
        ({"retryOn": ["gateway-error"]}, (503, 200), 200, 2),
        ({"retryOn": ["gateway-error"]}, (500, 200), 500, 1),
        ({"retryOn": ["connect-failure"]}, (503, 200), 503, 1),
        ({"retryOn": [], "statuses": [429]}, (429, 200), 200, 2),
        ({"retryOn": [], "statuses": [429]}, (404, 200), 404, 1),
    ],
)
async def test_what_counts_as_a_failure_is_tried_again(
    level: str, params: dict[str, Any], answers: tuple[int, ...], expected: int, asked: int
) -> None:
    again = policy("retry", backOff=QUICK, **params)
    api = Api((again,)) if level == "api" else Api((), {"/": (again,)})
    async with gateway(api) as running:
        statuses(running, *answers)
        answer = await running.client.post("/", content=b"body")
        assert (answer.status_code, len(running.backend.requests)) == (expected, asked)
        assert {one.body for one in running.backend.requests} == {b"body"}


async def test_an_attempt_that_takes_too_long_is_given_up() -> None:
    again = policy("retry", retryOn=["5xx"], perTryTimeout="300ms", attempts=1, backOff=QUICK)
    async with gateway(Api((again,))) as running:
        delays = deque([5.0, 0.0])
        running.backend.answer = lambda _: Answer(delay_s=delays.popleft())
        assert (await running.client.get("/")).status_code == 200
        assert not delays


async def test_that_of_the_operation_goes_before_that_of_the_api() -> None:
    above, below = policy("retry", retryOn=["5xx"]), policy("retry", retryOn=["connect-failure"])
    async with gateway(Api((above,), {"/": (below,)})) as running:
        statuses(running, 500, 200)
        assert (await running.client.get("/")).status_code == 500


async def test_a_limit_counts_a_request_once_however_often_it_is_tried() -> None:
    again = policy("retry", retryOn=["5xx"], attempts=3, backOff=QUICK)
    async with gateway(Api((limit(2), again))) as running:
        statuses(running, 500, 500, 200)
        found = [(await running.client.get("/")).status_code for _ in range(3)]
        assert found == [200, 200, 429]
