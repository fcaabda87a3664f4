from typing import Any

import pytest

from tests.policy_engine.attached import key_policy, policy
from tests.policy_engine.gateway import Api, gateway

CLOSED = {"error": "Service Unavailable", "message": 'Back "soon" é 100%'}


def closed(**params: Any) -> Any:
    return policy("maintenance-mode", message=CLOSED["message"], retryAfter="90500ms", **params)


@pytest.mark.parametrize("level", ["api", "operation"])
@pytest.mark.parametrize("allow", [[], ["10.0.0.0/8", "2001:db8::/32"]])
async def test_everybody_else_is_told_when_to_come_again(level: str, allow: list[str]) -> None:
    one = closed(allow=allow)
    async with gateway(Api((one,)) if level == "api" else Api((), {"/": (one,)})) as running:
        answer = await running.client.post("/", content=b"body")
        assert (answer.status_code, answer.json()) == (503, CLOSED)
        assert answer.headers["retry-after"] == "91"
        assert answer.headers["content-type"] == "application/json"
        assert not running.backend.requests


@pytest.mark.parametrize("allow", [["127.0.0.1"], ["10.0.0.0/8", "127.0.0.0/8"], ["0.0.0.0/0"]])
async def test_who_is_allowed_passes(allow: list[str]) -> None:
    async with gateway(Api((closed(allow=allow),))) as running:
        assert (await running.client.get("/")).status_code == 200


async def test_of_both_levels_each_decides_for_itself() -> None:
    open_, shut = closed(allow=["127.0.0.1"]), closed(allow=["10.0.0.1"])
    for above, below in ((open_, shut), (shut, open_)):
        async with gateway(Api((above,), {"/": (below,)})) as running:
            assert (await running.client.get("/")).status_code == 503
    async with gateway(Api((open_,), {"/": (open_,)})) as running:
        assert (await running.client.get("/")).status_code == 200


async def test_policies_run_in_written_order() -> None:
    for allow in ([], ["10.0.0.1"]):
        for policies, status in (
            ((key_policy(), closed(allow=allow)), 401),
            ((closed(allow=allow), key_policy()), 503),
        ):
            async with gateway(Api(policies)) as running:
                assert (await running.client.get("/")).status_code == status
