import time

from tests.policy_engine.attached import credential, key_policy, limit, policy
from tests.policy_engine.gateway import Api, gateway


async def test_all_or_none_fail_as_written() -> None:
    fails = policy("fault-injection", abort={"statusCode": 503})
    async with gateway(Api((), {"/fails": (fails,), "/": ()})) as running:
        answer = await running.client.get("/fails")
        assert (answer.status_code, answer.json()["error"]) == (503, "Service Unavailable")
        assert not running.backend.requests
        assert (await running.client.get("/")).status_code == 200


async def test_a_part_of_the_requests_fails() -> None:
    half = policy("fault-injection", abort={"statusCode": 500, "percentage": 50.0})
    async with gateway(Api((half,))) as running:
        statuses = [(await running.client.get("/")).status_code for _ in range(200)]
        assert set(statuses) == {200, 500}
        assert 40 < statuses.count(500) < 160  # never, by chance, in 10^16 runs


async def test_a_delay_lets_requests_wait_and_pass() -> None:
    waits = policy("fault-injection", delay={"duration": "300ms"})
    async with gateway(Api((waits,))) as running:
        started = time.monotonic()
        assert (await running.client.get("/")).status_code == 200
        assert time.monotonic() - started >= 0.3


async def test_what_stands_before_it_decides_first_and_what_stands_behind_does_not_run() -> None:
    fails = policy("fault-injection", abort={"statusCode": 500})
    known = (credential("k"),)
    async with gateway(Api((key_policy(), fails), {"/": (limit(1),)}, known)) as running:
        assert (await running.client.get("/")).status_code == 401
        for _ in range(3):
            assert (await running.client.get("/", headers={"API-Key": "k"})).status_code == 500
