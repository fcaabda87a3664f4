"""The kit for tests of policies: it does with a policy what the engine and Envoy do."""

import asyncio
import time
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr

from policy_engine.catalogue import load
from policy_engine.hooks import Exchange, PythonPolicy, json_answer
from policy_engine.policy import Routing, Version
from policy_engine.testing import Answer, Asked, Fetched, Servers, simulate, simulated, written


class Named(PythonPolicy):
    """Takes part under several names."""

    name = "named"
    version = Version(1, 0, 0)
    example: ClassVar[dict[str, Any]] = {}


class Mark(Named):
    """Marks both messages."""

    name = "mark"
    word: str = "x"

    def on_request_headers(self, exchange: Exchange) -> None:
        exchange.request.headers.append("x-way", self.word)
        exchange.published[self.word] = "seen"

    def on_response_headers(self, exchange: Exchange) -> None:
        assert exchange.response is not None
        exchange.response.headers.append("x-way-back", self.word)


class Refuse(Named):
    """Refuses."""

    name = "refuse"

    def on_request_headers(self, exchange: Exchange) -> Answer:
        return json_answer(403, {"error": "no"}, reason="never")


class ToBeta(Named):
    """Sends requests to an upstream definition that is called beta."""

    name = "to-beta"

    def routing(self) -> Routing:
        return Routing(choosable=True)

    def on_request_headers(self, exchange: Exchange) -> None:
        exchange.send_to("beta")


class Upper(Named):
    """Upper case, whole bodies."""

    name = "upper"

    def on_request_body(self, exchange: Exchange, body: bytes) -> bytes:
        return body.upper()

    def on_response_body(self, exchange: Exchange, body: bytes) -> bytes:
        return body.upper()


class Chunky(Named):
    """Counts chunks, joins pairs."""

    name = "chunky"

    def on_request_chunk(self, exchange: Exchange, chunk: bytes, *, last: bool) -> bytes:
        return b"[" + chunk + (b"]." if last else b"]")

    def on_response_chunk(self, exchange: Exchange, chunk: bytes, *, last: bool) -> bytes:
        held = exchange.notes.get(self, b"") + chunk
        if len(held) < 4 and not last:
            exchange.notes[self] = held
            return b""
        exchange.notes[self] = b""
        return held + b"|"


class Fails(Named):
    """Raises."""

    name = "fails"

    def on_request_headers(self, exchange: Exchange) -> None:
        raise RuntimeError("boom")


class Slow(Named):
    """Waits."""

    name = "slow"

    async def on_request_headers(self, exchange: Exchange) -> None:
        await asyncio.sleep(30)


class Asks(Named):
    """Asks a server, with a secret."""

    name = "asks"
    key: SecretStr

    async def on_request_headers(self, exchange: Exchange) -> Answer | None:
        said = await exchange.outside.fetch(
            "GET", "https://auth.example/ok", headers={"x-key": self.key.get_secret_value()}
        )
        exchange.request.headers.set("x-said", said.body.decode() + self.key.get_secret_value())
        return None


def test_policies_run_in_order_and_backwards() -> None:
    outcome = simulate(Mark(word="a"), Mark(word="b"), request=Asked(path="/x"))
    assert outcome.upstream is not None
    assert outcome.upstream.path == "/x"
    assert outcome.upstream.header("X-Way") == "a, b"
    assert outcome.header("x-way-back") == "b, a"
    assert outcome.published == {"a": "seen", "b": "seen"}


def test_hops_that_fail_differently_are_passed_in_order_too() -> None:
    outcome = simulate(Mark(word="a"), written(Mark(word="b"), failure_mode="open"), Mark(word="c"))
    assert outcome.upstream is not None
    assert outcome.upstream.header("x-way") == "a, b, c"
    assert outcome.header("x-way-back") == "c, b, a"


@pytest.mark.parametrize("failure_mode", ["open", "closed"])
def test_an_answer_goes_back_through_the_policies_before_it(failure_mode: Any) -> None:
    first = written(Mark(word="a"), failure_mode=failure_mode)
    outcome = simulate(first, Refuse(), Mark(word="z"))
    assert (outcome.status, outcome.body) == (403, b'{"error":"no"}')
    assert (outcome.upstream, outcome.answered_by) == (None, "refuse")
    assert outcome.header("x-way-back") == "a"


def test_shadow_mode_only_tells() -> None:
    outcome = simulate(written(Refuse(), mode="shadow"))
    assert outcome.status == 200
    assert outcome.would_have == {"refuse": "never"}


def test_bodies_are_replaced_with_their_length() -> None:
    outcome = simulate(
        Upper(),
        request=Asked("POST"),
        body=[b"ab", b"c"],
        answer=lambda asked: Answer(200, asked.body + b"d"),
    )
    assert outcome.upstream is not None
    assert (outcome.upstream.body, outcome.upstream.header("content-length")) == (b"ABC", "3")
    assert (outcome.body, outcome.header("content-length")) == (b"ABCD", "4")


def test_chunks_pass_one_by_one_and_may_be_held_back() -> None:
    outcome = simulate(
        Chunky(),
        request=Asked("POST"),
        body=[b"ab", b"c"],
        answer_chunks=[b"12", b"3", b"456", b"7"],
    )
    assert outcome.upstream is not None
    assert outcome.upstream.body == b"[ab][c]."
    assert outcome.upstream.header("content-length") is None
    assert outcome.chunks == (b"123456|", b"7|")


def test_a_body_that_is_too_long_is_refused() -> None:
    outcome = simulate(Upper(), request=Asked("POST"), body=b"x" * 200, max_body_bytes=100)
    assert (outcome.status, outcome.upstream) == (413, None)


def test_a_condition_decides() -> None:
    only_get = written(Refuse(), condition='request.Method == "GET"')
    assert simulate(only_get).status == 403
    assert simulate(only_get, request=Asked("POST")).status == 200


@pytest.mark.parametrize(
    ("policy", "kind"), [(Fails(), "raised: RuntimeError: boom"), (Slow(), "too-slow")]
)
def test_failures_have_their_mode_and_are_told(policy: PythonPolicy, kind: str) -> None:
    started = time.monotonic()
    closed = simulate(written(policy, timeout_s=0.1))
    opened = simulate(written(policy, timeout_s=0.1, failure_mode="open"))
    assert (closed.status, closed.upstream) == (503, None)
    assert opened.status == 200
    for outcome in (closed, opened):
        assert f"{policy.name} request_headers {kind}" in outcome.failures[0]
    assert time.monotonic() - started < 20


async def test_servers_are_those_of_the_test_and_secrets_are_in_clear() -> None:
    servers = Servers({"GET https://auth.example/ok": Fetched(200, {}, b"yes ")})
    outcome = await simulated(Asks(key=SecretStr("k1")), outside=servers)
    assert outcome.upstream is not None
    assert outcome.upstream.header("x-said") == "yes k1"
    assert [(method, url) for method, url, _ in servers.asked] == [
        ("GET", "https://auth.example/ok")
    ]
    assert (await simulated(Asks(key=SecretStr("k1")))).status == 503


def test_policies_of_envoy_are_not_simulated() -> None:
    native = load(()).resolve("set-headers")
    with pytest.raises(TypeError, match="set-headers runs in Envoy"):
        simulate(native.model_validate(native.example))  # type: ignore[arg-type]


def test_the_upstream_that_a_policy_chooses_is_told() -> None:
    assert simulate(Mark()).sent_to is None
    assert simulate(ToBeta(), upstreams=["beta", "gamma"]).sent_to == "beta"
    for one in (ToBeta(), written(ToBeta(), failure_mode="open")):
        outcome = simulate(one, upstreams=["gamma"])
        assert (outcome.status, outcome.sent_to) == (502, None)
        assert "no upstream definition 'beta'; it has gamma" in outcome.failures[0]
