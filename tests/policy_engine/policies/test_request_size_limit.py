from collections.abc import AsyncIterator

import pytest

from tests.policy_engine.attached import key_policy, policy
from tests.policy_engine.gateway import Api, gateway


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize("level", ["api", "operation"])
async def test_a_body_of_the_largest_size_passes_and_one_more_byte_does_not(level: str) -> None:
    most = policy("request-size-limit", maxBytes=1000)
    api = Api((most,)) if level == "api" else Api((), {"/": (most,)})
    async with gateway(api) as running:
        assert (await running.client.post("/", content=b"x" * 1000)).status_code == 200
        refused = await running.client.post("/", content=b"x" * 1001)
        assert refused.status_code == 413
        assert refused.json()["error"] == "Content Too Large"
        assert len(running.backend.requests) == 1
        assert (await running.client.get("/")).status_code == 200


async def test_a_body_of_unknown_length_is_counted_as_it_arrives() -> None:
    async with gateway(Api((policy("request-size-limit", maxBytes=1000),))) as running:
        parts = (b"x" * 500, b"x" * 500)
        assert (await running.client.post("/", content=chunks(*parts))).status_code == 200
        refused = await running.client.post("/", content=chunks(*parts, b"x"))
        assert (refused.status_code, refused.json()["error"]) == (413, "Content Too Large")
        assert len(running.backend.requests) == 1  # the upstream never got the whole


async def test_of_both_levels_the_smaller_holds() -> None:
    small, large = (policy("request-size-limit", maxBytes=most) for most in (10, 1000))
    for above, below in ((small, large), (large, small)):
        async with gateway(Api((above,), {"/": (below,)})) as running:
            assert (await running.client.post("/", content=b"x" * 10)).status_code == 200
            assert (await running.client.post("/", content=b"x" * 11)).status_code == 413


async def test_who_may_not_pass_is_told_so_first() -> None:
    most = policy("request-size-limit", maxBytes=1)
    for order, expected in (((key_policy(), most), 401), ((most, key_policy()), 413)):
        async with gateway(Api(order)) as running:
            assert (await running.client.post("/", content=b"xx")).status_code == expected
