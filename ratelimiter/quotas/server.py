"""Envoy's quota service on grpcio: few messages, each about many requests.

https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/rate_limit_quota/v3/rlqs.proto
"""
# ruff: noqa: ANN401 - neither grpcio nor upb messages have types

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError

from ratelimiter import metrics
from ratelimiter.errors import CannotListen
from ratelimiter.quotas.assignment import Assignment, Entries
from ratelimiter.quotas.balancer import TTL_S, Balancer, Usage
from xds.wire.messages import message_class

log = structlog.get_logger()

_SERVICE = "envoy.service.rate_limit_quota.v3.RateLimitQuotaService"
_METHOD = "StreamRateLimitQuotas"
_OPTIONS = (
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),  # routers ping, too
    ("grpc.max_receive_message_length", -1),  # one report names all buckets of a router
    ("grpc.max_send_message_length", -1),
    ("grpc.so_reuseport", 0),
)
_GRACE_S = 0.5
_PIECE = 500  # buckets: about 4 ms
_DENY_ALL = 1  # BlanketRule

Reports = message_class(f"{_SERVICE.rpartition('.')[0]}.RateLimitQuotaUsageReports")
Response = message_class(f"{_SERVICE.rpartition('.')[0]}.RateLimitQuotaResponse")


class Stream:
    """One router; what it is to be told is joined until it can be sent."""

    def __init__(self) -> None:
        self._next: Any = Response()
        self._filled = asyncio.Event()

    def assign(self, entries: Entries, made: Assignment) -> None:
        """See `Router`."""
        if made.anew or made.size == 0:  # Envoy begins a full bucket only where there was none
            self._quota(entries).rate_limit_strategy.blanket_rule = _DENY_ALL
        if made.size:
            bucket = self._quota(entries).rate_limit_strategy.token_bucket
            bucket.max_tokens = made.size
            bucket.tokens_per_fill.value = made.tokens
            bucket.fill_interval.seconds = made.interval_s
        self._filled.set()

    def abandon(self, entries: Entries) -> None:
        """See `Router`."""
        self._action(entries).abandon_action.SetInParent()
        self._filled.set()

    async def outgoing(self) -> AsyncIterator[bytes]:
        """What is to be sent, as it comes."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            full, self._next = self._next, Response()
            yield full.SerializeToString()

    def _quota(self, entries: Entries) -> Any:
        quota = self._action(entries).quota_assignment_action
        quota.assignment_time_to_live.seconds = TTL_S
        return quota

    def _action(self, entries: Entries) -> Any:
        action = self._next.bucket_action.add()
        for key, value in entries:
            action.bucket_id.bucket[key] = value
        return action


def usages(data: bytes) -> Iterator[list[Usage]]:
    """A router's report, in pieces. Raises DecodeError."""
    told = Reports.FromString(data).bucket_quota_usages
    alone = len(told) == 1
    for start in range(0, len(told), _PIECE):
        yield [_usage(one, alone=alone) for one in told[start : start + _PIECE]]


def _usage(one: Any, *, alone: bool) -> Usage:
    return Usage(
        tuple(sorted(one.bucket_id.bucket.items())),
        one.num_requests_allowed,
        one.num_requests_denied,
        first=alone
        and one.time_elapsed.seconds == 0
        and one.num_requests_allowed + one.num_requests_denied == 1,
    )


class _Service:
    def __init__(self, balancer: Balancer) -> None:
        self._balancer = balancer

    async def serve(self, _: object, context: Any) -> None:
        """One stream, for as long as its router keeps it."""
        stream = Stream()
        self._balancer.joined(stream)
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(self._write(stream, context), name="quotas: write")
                while (data := await context.read()) is not grpc.aio.EOF:
                    for piece in usages(data):
                        self._balancer.reported(stream, piece)
                        await asyncio.sleep(0)  # others have their turn
                writer.cancel()
        except* DecodeError:
            metrics.MALFORMED.inc()
            log.warning("a router's report cannot be read")
        finally:
            self._balancer.left(stream)

    @staticmethod
    async def _write(stream: Stream, context: Any) -> None:
        async for data in stream.outgoing():
            try:
                await context.write(data)
            except (grpc.aio.UsageError, grpc.RpcError, asyncio.InvalidStateError):
                return  # the stream is over; its reader knows, too


@asynccontextmanager
async def quota_server(
    balancer: Balancer, *, socket: Path | None = None, address: tuple[str, int] | None = None
) -> AsyncIterator[tuple[str, ...]]:
    """The service on a Unix socket, on TCP, or both; its addresses. Raises CannotListen."""
    server = grpc.aio.server(options=_OPTIONS)
    behaviour = grpc.stream_stream_rpc_method_handler(_Service(balancer).serve)  # raw bytes
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_SERVICE, {_METHOD: behaviour}),)
    )
    addresses = []
    if socket is not None:
        _bind(server, f"unix:{socket}")
        addresses.append(f"unix:{socket}")
    if address is not None:
        host, port = address
        addresses.append(f"{host}:{_bind(server, f'{host}:{port}')}")
    await server.start()
    if socket is not None:
        _only_ours(socket)
    try:
        yield tuple(addresses)
    finally:
        await server.stop(grace=_GRACE_S)
        if socket is not None:
            _remove(socket)


def _bind(server: Any, where: str) -> int:
    try:
        return int(server.add_insecure_port(where))
    except RuntimeError as error:
        raise CannotListen(where, "the address is taken or cannot be used") from error


def _only_ours(socket: Path) -> None:
    socket.chmod(0o600)


def _remove(socket: Path) -> None:
    socket.unlink(missing_ok=True)
