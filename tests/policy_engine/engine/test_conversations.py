"""Calls of Envoy in any order and in great numbers: every message is answered, nothing is kept."""

import asyncio
import contextlib
import gc
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.policy_engine.engine.conversation import (
    body,
    call,
    request_headers,
    response_headers,
    runtime_of,
)
from tests.policy_engine.python_gateway import ref
from xds.wire.h2 import RpcRefused

POLICIES = {
    "stamp": ref("stamp", word="a"),
    "reverse": ref("reverse"),
    "look": ref("look"),
    "upper": ref("upper"),
    "both": ref("both"),
    "publish": ref("publish"),
    "refuse": ref("refuse", phase="response_body"),
    "raises": ref("broken", how="raise", phase="request_body"),
    "passes": ref("broken", how="raise", phase="response_headers", failureMode="open"),
    "shadow": ref("refuse", phase="request_headers", mode="shadow"),
    "condition": ref("stamp", word="b", executionCondition="has(request.Body.n)"),
}
MESSAGES = st.one_of(
    st.builds(lambda ended: ("request_headers", ended), st.booleans()),
    st.builds(lambda ended: ("response_headers", ended), st.booleans()),
    st.tuples(st.just("request_body"), st.binary(max_size=200), st.booleans()),
    st.tuples(st.just("response_body"), st.binary(max_size=200), st.booleans()),
)


def made(message: tuple[Any, ...]) -> bytes:
    match message:
        case ("request_headers", ended):
            return request_headers(ended=ended)
        case ("response_headers", ended):
            return response_headers(ended=ended)
        case (kind, data, ended):
            return body(kind, data, ended=ended)
    raise AssertionError(message)


@settings(max_examples=300, deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(POLICIES)), min_size=1, max_size=4),
    messages=st.lists(MESSAGES, max_size=8),
)
def test_every_message_is_answered_in_any_order(
    names: list[str], messages: list[tuple[Any, ...]]
) -> None:
    async def converse() -> None:
        runtime, hop = runtime_of(*(POLICIES[name] for name in names))
        handler, listener = call(runtime, hop)
        for number, message in enumerate((("request_headers", False), *messages)):
            try:
                handler.message(made(message))
            except RpcRefused:  # Envoy says nothing of that kind
                assert number
                break
            assert len(listener.said) == number + 1, message
            kind = listener.said[-1].WhichOneof("response")
            assert kind in (message[0], "immediate_response")
            if listener.finished:
                return
        handler.lost()
        await runtime.close()

    asyncio.run(converse())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_garbage_raises_what_the_server_answers_and_nothing_is_said(data: bytes) -> None:
    async def converse() -> None:
        runtime, hop = runtime_of(POLICIES["stamp"])
        handler, listener = call(runtime, hop)
        with contextlib.suppress(Exception):  # the server ends the call with an error
            handler.message(data)
        assert len(listener.said) <= 1
        handler.lost()
        await runtime.close()

    asyncio.run(converse())


async def _serve(runtime: Any, hop: str, calls: int) -> None:
    for number in range(calls):
        handler, listener = call(runtime, hop)
        handler.message(request_headers())
        handler.message(body("request_body", b'{"n": %d}' % number))
        if number % 10:
            handler.message(response_headers())
            handler.message(body("response_body", b"answer %d" % number))
            assert listener.finished
        else:
            handler.lost()


async def _kept_blocks(calls: int) -> int:
    runtime, hop = runtime_of(*(POLICIES[name] for name in ("stamp", "look", "publish", "passes")))
    await _serve(runtime, hop, 500)
    gc.collect()
    before = sys.getallocatedblocks()
    await _serve(runtime, hop, calls)
    gc.collect()
    return sys.getallocatedblocks() - before


async def test_memory_is_flat_over_many_calls() -> None:
    assert await _kept_blocks(5_000) < 500


@pytest.mark.slow
async def test_memory_is_flat_over_many_more_calls() -> None:
    assert await _kept_blocks(100_000) < 500
