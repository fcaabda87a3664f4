"""Guardrails on long answers: refused with a status of their own while they can be kept."""

from collections.abc import Callable

import orjson
import pytest

from tests.policy_engine.guardrails.by_hand import completion
from tests.policy_engine.python_gateway import python_gateway, ref
from tests.servers.http_backend import Answer, Received

MIB = 1 << 20
WANTED = ref(
    "regex-guardrail",
    response={"enabled": True, "regex": "secret", "invert": True, "jsonPath": "$"},
)
STAMP = ref("log-message", response={"payload": True})


def answering(size: int, end: bytes, *, told: bool) -> Callable[[Received], Answer]:
    body = b"x" * (size - len(end)) + end
    headers = (("content-type", "text/plain"),)
    parts = tuple(body[at : at + 100_000] for at in range(0, size, 100_000))
    made = Answer(headers=headers, body=body) if told else Answer(headers=headers, chunks=parts)
    return lambda _: made


@pytest.mark.parametrize("told", [True, False], ids=["content-length", "chunked"])
@pytest.mark.parametrize("size", [MIB + 1, 3 * MIB, 4 * MIB])
@pytest.mark.parametrize("beside", [(), (STAMP,)], ids=["alone", "beside-one-of-chunks"])
async def test_what_can_be_kept_is_refused_with_a_status(
    size: int, told: bool, beside: tuple[object, ...]
) -> None:
    async with python_gateway([*beside, WANTED]) as running:  # type: ignore[list-item]
        running.backend.answer = answering(size, b" a secret", told=told)
        refused = await running.client.get("/long")
        assert refused.status_code == 422
        assert refused.json()["type"] == "REGEX_GUARDRAIL"
        running.backend.answer = answering(size, b" fine", told=told)
        answer = await running.client.get("/long")
        assert (answer.status_code, len(answer.content)) == (200, size)
        assert answer.content.endswith(b" fine")


async def test_what_is_too_long_to_be_kept_does_not_pass_unseen() -> None:
    async with python_gateway([WANTED]) as running:
        running.backend.answer = answering(5 * MIB, b" fine", told=False)
        refused = await running.client.get("/long")
        assert refused.status_code == 502
        assert "too long for a policy" in refused.json()["message"]
        running.backend.answer = answering(5 * MIB, b" fine", told=True)
        begun = await running.client.get("/long")
        assert begun.status_code == 200  # it is on its way before the policy can know
        assert orjson.loads(begun.content)["message"]["direction"] == "RESPONSE"


async def test_how_much_is_kept_is_a_setting() -> None:
    async with python_gateway([WANTED], settings={"engine_max_answer_bytes": 8 * MIB}) as running:
        running.backend.answer = answering(6 * MIB, b" a secret", told=True)
        assert (await running.client.get("/long")).status_code == 422
        running.backend.answer = lambda _: Answer(body=completion("short"))
        assert (await running.client.get("/long")).status_code == 200
