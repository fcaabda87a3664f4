"""gRPC on one connection: messages cut out of frames, statuses, limits."""

import asyncio

import pytest

from tests.xds.wire.h2.peer import (
    Answer,
    Echo,
    Kept,
    call,
    data,
    greeted,
    headers,
    prefixed,
)
from xds.wire.h2 import Limits, RpcRefused, Status, Stream
from xds.wire.h2 import frames as wire
from xds.wire.h2.frames import ErrorCode
from xds.wire.h2.limits import Counters
from xds.wire.h2.unary import UnaryHandler, UnaryService


@pytest.mark.parametrize("size", [1, 3, 5, 6, 1_000])
async def test_messages_may_be_cut_anywhere(size: int) -> None:
    peer = greeted().send(headers(1))
    told = [b"", b"a", b"bc" * 300, b"", b"d" * 70_000]
    sent = b"".join(map(prefixed, told))
    for at in range(0, len(sent), size):
        peer.send(data(1, sent[at : at + size]))
    peer.send(data(1, b"", wire.END_STREAM), wire.window_update(0, 2**20))
    peer.send(wire.window_update(1, 2**20))
    assert peer.answer(1).messages == told
    assert peer.answer(1).status == Status.OK
    assert peer.connection._held_bytes == 0


async def test_compressed_messages_are_refused_and_the_client_is_told_what_is_taken() -> None:
    services = Kept()
    peer = greeted(services).send(headers(1), data(1, prefixed(b"x", compressed=1)))
    answer = peer.answer(1)
    assert answer.status == Status.UNIMPLEMENTED
    assert answer.fields["grpc-accept-encoding"] == "identity"
    assert answer.reset == ErrorCode.NO_ERROR  # the rest of the request is not wanted
    assert services.handlers[0].was_lost == 1


async def test_a_message_above_the_limit_is_refused_before_it_is_there() -> None:
    peer = greeted(limits=Limits(message_max_bytes=100)).send(headers(1))
    peer.send(data(1, prefixed(b"x" * 100)), data(1, prefixed(b"x" * 101)[:5]))
    answer = peer.answer(1)
    assert answer.messages == [b"x" * 100]
    assert answer.status == Status.RESOURCE_EXHAUSTED
    assert "101 bytes" in answer.fields["grpc-message"]


async def test_what_calls_may_hold_together_is_limited() -> None:
    peer = greeted(limits=Limits(held_max_bytes=1_000))
    for number in (1, 3):
        peer.send(headers(number), data(number, prefixed(b"x" * 2_000)[:600]))
    assert peer.answer(3).status == Status.RESOURCE_EXHAUSTED
    peer.send(wire.rst_stream(1, ErrorCode.CANCEL))
    peer.send(headers(5), data(5, prefixed(b"y" * 700)[:600]))
    peer.send(data(5, prefixed(b"y" * 700)[600:], wire.END_STREAM))
    assert peer.answer(5).messages == [b"y" * 700]


async def test_a_request_that_ends_within_a_message_is_an_internal_error() -> None:
    peer = greeted().send(headers(1), data(1, prefixed(b"abc")[:6], wire.END_STREAM))
    assert peer.answer(1).status == Status.INTERNAL


class Raises(Echo):
    """Fails on every message, in the way it says."""

    def message(self, data: bytes) -> None:
        if data == b"refuse":
            raise RpcRefused(Status.NOT_FOUND, "no such thing: 100 % gone, ümläut")
        self.stream.send(b"before")
        raise ZeroDivisionError("secret")


async def test_handlers_that_raise_end_their_call_without_details() -> None:
    services = Kept(Raises)
    peer = greeted(services).send(call(1, b"x"), call(3, b"refuse"))
    answer = peer.answer(1)
    assert answer.messages == [b"before"]
    assert answer.status == Status.INTERNAL
    assert "secret" not in str(answer.fields)
    refused = peer.answers[3]
    assert refused.status == Status.NOT_FOUND
    assert refused.fields["grpc-message"] == "no such thing: 100 %25 gone, %C3%BCml%C3%A4ut"
    assert [one.was_lost for one in services.handlers] == [1, 1]
    assert peer.counters.handler_errors == 1


async def test_a_service_that_cannot_make_a_handler_answers_internal() -> None:
    def fails(_: Stream) -> Echo:
        raise KeyError("secret")

    peer = greeted(fails).send(call(1, b"x"))
    assert peer.answer(1).status == Status.INTERNAL


class RaisesWhenLost(Echo):
    """Fails when it is told that all is over."""

    def lost(self) -> None:
        super().lost()
        raise ZeroDivisionError


async def test_a_handler_that_raises_when_it_is_lost_does_not_harm_the_others() -> None:
    services = Kept(RaisesWhenLost)
    peer = greeted(services).send(headers(1), headers(3), headers(5))
    peer.send(wire.rst_stream(3, ErrorCode.CANCEL), call(7, b"x"))
    assert peer.answer(7).messages == [b"x"]
    peer.connection.connection_lost(None)
    assert [one.was_lost for one in services.handlers] == [1, 1, 1, 0]
    assert peer.counters.handler_errors == 3
    assert peer.gone


class FinishesFirst(Echo):
    """Says all it has to say after the first message."""

    def message(self, data: bytes) -> None:
        self.stream.send(data)
        self.stream.finish(Status.ABORTED, "enough")
        self.stream.send(b"too late")
        self.stream.finish()


async def test_an_answer_before_the_end_of_the_request_ends_the_stream() -> None:
    services = Kept(FinishesFirst)
    peer = greeted(services).send(headers(1), data(1, prefixed(b"a") + prefixed(b"b")))
    peer.send(data(1, prefixed(b"c"), wire.END_STREAM))
    answer = peer.answer(1)
    assert answer.messages == [b"a"]
    assert answer.status == Status.ABORTED
    assert answer.reset is None or answer.reset == ErrorCode.NO_ERROR
    assert services.handlers[0].was_lost == 0
    assert peer.counters.replies_dropped == 1


async def unary(handler: UnaryHandler, *sent: bytes, timeout_s: float = 5.0) -> Answer:
    """The answer to the first call of `sent`, waited for."""
    counters = Counters()
    async with UnaryService(handler, timeout_s, counters) as service:
        peer = greeted(service.open).send(*sent)
        async with asyncio.timeout(20):
            while not (peer.answer(1).ended or peer.answer(1).reset):
                await asyncio.sleep(0)
    return peer.answer(1)


@pytest.mark.parametrize("frames", [[b""], [prefixed(b"a"), prefixed(b"b")]])
async def test_a_unary_call_has_exactly_one_message(frames: list[bytes]) -> None:
    sent = [data(1, one) for one in frames]
    answer = await unary(lambda message: message, headers(1), *sent, data(1, b"", wire.END_STREAM))
    assert answer.status == Status.UNIMPLEMENTED
    assert answer.messages == []


async def test_unary_answers_may_come_from_a_coroutine_or_a_future() -> None:
    async def coroutine(message: bytes) -> bytes:
        await asyncio.sleep(0)
        return message + b"!"

    def future(message: bytes) -> asyncio.Future[bytes]:
        promise = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(promise.set_result, message + b"?")
        return promise

    assert (await unary(coroutine, call(1, b"a"))).messages == [b"a!"]
    assert (await unary(future, call(1, b"a"))).messages == [b"a?"]


async def test_unary_answers_that_fail_end_with_their_status() -> None:
    async def refuses(message: bytes) -> bytes:
        await asyncio.sleep(0)
        raise RpcRefused(Status.UNAVAILABLE, "later")

    async def fails(message: bytes) -> bytes:
        raise ValueError("secret")

    async def gives_up(message: bytes) -> bytes:
        raise asyncio.CancelledError

    def future(message: bytes) -> asyncio.Future[bytes]:
        promise: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        promise.set_exception(ValueError("secret"))
        return promise

    def cancelled(message: bytes) -> asyncio.Future[bytes]:
        promise: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        promise.cancel()
        return promise

    async def text(message: bytes) -> bytes:
        return "text"  # type: ignore[return-value]

    statuses = {
        refuses: Status.UNAVAILABLE,
        fails: Status.INTERNAL,
        future: Status.INTERNAL,
        gives_up: Status.CANCELLED,
        cancelled: Status.CANCELLED,
        text: Status.INTERNAL,
        lambda message: None: Status.INTERNAL,  # type: ignore[dict-item]
    }
    for handler, status in statuses.items():
        answer = await unary(handler, call(1, b"a"))
        assert answer.status == status
        assert "secret" not in str(answer.fields)


async def test_an_answer_that_takes_too_long_is_given_up_and_cancelled() -> None:
    ends: list[str] = []

    async def hangs(message: bytes) -> bytes:
        try:
            await asyncio.Event().wait()
        finally:
            ends.append("cancelled")
        return b""

    answer = await unary(hangs, call(1, b"a"), timeout_s=0.02)
    assert answer.status == Status.DEADLINE_EXCEEDED
    assert ends == ["cancelled"]


async def test_one_timer_ends_every_call_that_is_late_and_only_those() -> None:
    promises: list[asyncio.Future[bytes]] = []

    def hangs(message: bytes) -> asyncio.Future[bytes]:
        promises.append(asyncio.get_running_loop().create_future())
        return promises[-1]

    counters = Counters()
    async with UnaryService(hangs, 0.05, counters) as service:
        peer = greeted(service.open).send(call(1, b""), call(3, b""))
        promises[1].set_result(b"in time")
        service._timeout_s = 60
        peer.send(call(5, b""))
        async with asyncio.timeout(20):
            while not peer.answer(1).ended:
                await asyncio.sleep(0.005)
        promises[2].set_result(b"also in time")
        async with asyncio.timeout(20):
            while not peer.answer(5).ended:
                await asyncio.sleep(0)
    assert peer.answer(1).status == Status.DEADLINE_EXCEEDED
    assert promises[0].cancelled()
    assert peer.answer(3).messages == [b"in time"]
    assert peer.answer(5).messages == [b"also in time"]
    assert counters.handler_timeouts == 1


async def test_a_call_that_is_reset_cancels_its_answer() -> None:
    promise: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    async with UnaryService(lambda message: promise, 5, Counters()) as service:
        peer = greeted(service.open).send(call(1, b"x"), wire.rst_stream(1, ErrorCode.CANCEL))
        assert promise.cancelled()
        await asyncio.sleep(0)
        assert peer.read() == []
        assert peer.connection._held_bytes == 0


async def test_answers_that_come_together_are_one_write() -> None:
    promises: list[asyncio.Future[bytes]] = []

    def batched(message: bytes) -> asyncio.Future[bytes]:
        promises.append(asyncio.get_running_loop().create_future())
        return promises[-1]

    async with UnaryService(batched, 5, Counters()) as service:
        peer = greeted(service.open).send(*(call(number, b"x") for number in range(1, 101, 2)))
        peer.read()
        peer.writes = 0
        for promise in promises:
            promise.set_result(b"y")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        peer.read()
        assert len(peer.answers) == 50
        assert all(answer.messages == [b"y"] for answer in peer.answers.values())
        assert peer.writes == 1
