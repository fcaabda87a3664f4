"""The kit with a real Envoy: what it does is what the simulation says."""

import asyncio

import pytest

from compose.policy_kit import Asked, with_envoy
from policy_engine.hooks import PythonPolicy
from policy_engine.testing import Answer, Outcome, simulate
from tests.policy_engine.test_testing import Chunky, Mark, Refuse, Upper
from xds.errors import NotCompiled

CASES: dict[str, tuple[tuple[PythonPolicy, ...], bytes]] = {
    "order": ((Mark(word="a"), Mark(word="b")), b""),
    "refused": ((Mark(word="a"), Refuse(), Mark(word="z")), b""),
    "bodies": ((Upper(), Mark(word="a")), b"abc"),
    "chunks": ((Chunky(),), b"abcdef"),
}


def upstream(asked: Asked) -> Answer:
    return Answer(200, b"answer " + asked.body, (("x-upstream", "yes"),))


@pytest.mark.parametrize("case", CASES)
async def test_envoy_does_what_the_simulation_says(case: str) -> None:
    policies, body = CASES[case]
    written = [{"name": one.name, "params": one.masked()} for one in policies]
    classes = {type(one) for one in policies}
    async with with_envoy(written, classes=classes, upstream=upstream) as gateway:
        answer = await gateway.client.post("/a?b=c", content=body)
    outcome = await simulated_in_thread(policies, body)
    assert answer.status_code == outcome.status
    assert answer.content == outcome.body
    for name in ("x-way-back", "x-upstream", "content-type"):
        assert answer.headers.get(name) == outcome.header(name)
    assert len(gateway.seen) == (outcome.upstream is not None)
    if outcome.upstream is not None:
        (seen,) = gateway.seen
        assert (seen.method, seen.path, seen.body) == ("POST", "/a?b=c", outcome.upstream.body)
        assert seen.header("x-way") == outcome.upstream.header("x-way")


async def simulated_in_thread(policies: tuple[PythonPolicy, ...], body: bytes) -> Outcome:
    request = Asked("POST", "/a?b=c")
    return await asyncio.to_thread(simulate, *policies, request=request, body=body, answer=upstream)


async def test_policies_of_envoy_stand_beside_those_of_python() -> None:
    headers = {"headers": [{"name": "x-native", "value": "1"}]}
    policies = [
        {"name": "set-headers", "params": {"request": headers}},
        {"name": "mark", "params": {"word": "a"}},
    ]
    async with with_envoy(policies, classes=[Mark]) as gateway:
        assert (await gateway.client.get("/")).status_code == 200
        assert gateway.seen[0].header("x-native") == "1"
        assert gateway.seen[0].header("x-way") == "a"


async def test_parameters_that_do_not_fit_are_an_error_of_the_test() -> None:
    with pytest.raises(NotCompiled, match="'nowhere' not found"):
        async with with_envoy([{"name": "nowhere"}]):
            pass


async def test_what_a_test_raises_comes_out_as_it_is() -> None:
    with pytest.raises(AssertionError, match="mine"):
        async with with_envoy([]):
            raise AssertionError("mine")
