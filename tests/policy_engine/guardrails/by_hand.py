"""Guardrails that are called by hand: messages, verdicts, streams."""

from collections.abc import Iterable
from typing import Any

import orjson

from policy_engine.guardrails.guardrail import Guardrail
from policy_engine.hooks import Answer, Exchange
from tests.policy_engine.attached import policy
from tests.policy_engine.exchanges import answered, exchange

COUNTS = ("word-count-guardrail", "sentence-count-guardrail", "content-length-guardrail")
STREAM = "text/event-stream"
DONE = b"data: [DONE]\n\n"


def guardrail(name: str, **params: Any) -> Guardrail:
    made = policy(name, **params)
    assert isinstance(made, Guardrail)
    return made


def prompt(*texts: str) -> bytes:
    return orjson.dumps({"messages": [{"role": "user", "content": text} for text in texts]})


def completion(text: str) -> bytes:
    return orjson.dumps({"choices": [{"message": {"content": text}}]})


def event(text: str) -> bytes:
    return b"data: " + orjson.dumps({"choices": [{"delta": {"content": text}}]}) + b"\n\n"


def asked(
    made: Guardrail, body: bytes, headers: dict[str, str] | None = None, method: str = "POST"
) -> Answer | None:
    verdict = made.on_request_body(exchange(headers, method=method), body)
    assert verdict is None or isinstance(verdict, Answer)
    return verdict


def told(made: Guardrail, body: bytes, status: int = 200, **headers: str) -> Answer | None:
    one = answered(exchange(), status, **headers)
    made.on_response_headers(one)
    verdict = made.on_response_body(one, body)
    assert verdict is None or isinstance(verdict, Answer)
    return verdict


def document(verdict: Answer | None) -> dict[str, Any]:
    assert verdict is not None
    assert verdict.status == 422
    return dict(orjson.loads(verdict.body))


def streamed(
    made: Guardrail, parts: Iterable[bytes], one: Exchange | None = None
) -> tuple[list[bytes], bytes | None]:
    """What the caller gets for each part, and the intervention that ends it."""
    one = one or answered(exchange(), content_type=STREAM)
    assert made.on_response_headers(one) is None
    got: list[bytes] = []
    every = list(parts)
    for position, part in enumerate(every):
        verdict = made.on_response_chunk(one, part, last=position == len(every) - 1)
        if isinstance(verdict, Answer):
            return got, verdict.body
        assert isinstance(verdict, bytes)
        got.append(verdict)
    return got, None
