import time

import pytest

from tests.policy_engine.attached import policy
from tests.policy_engine.gateway import Api, gateway
from tests.servers.http_backend import Answer

BODY = b"x" * (96 << 10)


@pytest.mark.parametrize(
    ("direction", "slow_request", "slow_response"),
    [("request", True, False), ("response", False, True), ("both", True, True)],
)
async def test_bodies_take_the_time_they_need(
    direction: str, slow_request: bool, slow_response: bool
) -> None:
    slow = policy("bandwidth-limit", kibibytesPerSecond=64, direction=direction)
    async with gateway(Api((), {"/slow": (slow,), "/": ()})) as running:
        running.backend.answer = lambda request: Answer(body=b"" if request.body else BODY)
        for body, expected in ((BODY, slow_request), (b"", slow_response)):
            started = time.monotonic()
            answer = await running.client.post("/slow", content=body)
            took_s = time.monotonic() - started
            assert answer.status_code == 200
            if expected:  # 96 KiB, of which the first second's 64 KiB may come at once
                assert took_s >= 0.4
                assert len(answer.content) + len(body) == len(BODY)


async def test_it_is_shared_by_all_operations_of_an_api() -> None:
    slow = policy("bandwidth-limit", kibibytesPerSecond=64, direction="response")
    async with gateway(Api((slow,), {"/a": (), "/b": ()})) as running:
        running.backend.answer = lambda _: Answer(body=b"x" * (64 << 10))
        started = time.monotonic()
        for path in ("/a", "/b"):
            assert len((await running.client.get(path)).content) == 64 << 10
        assert time.monotonic() - started >= 0.9
