"""A real Envoy calls it for every request: external processing and rate limits."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers.envoy import envoy
from tests.servers.http_backend import HttpBackend, http_backend
from xds.wire.h2 import H2Server, Limits, Stream, serve_stream, serve_unary
from xds.wire.messages import message_class

PREFIX = "type.googleapis.com/envoy.extensions"
REQUESTS = 3_000
AT_ONCE = 32

ProcessingRequest = message_class("envoy.service.ext_proc.v3.ProcessingRequest")
ProcessingResponse = message_class("envoy.service.ext_proc.v3.ProcessingResponse")
RateLimitRequest = message_class("envoy.service.ratelimit.v3.RateLimitRequest")
RateLimitResponse = message_class("envoy.service.ratelimit.v3.RateLimitResponse")


class Processor:
    """Tells the backend the path in a header, and turns bodies round."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def message(self, data: bytes) -> None:
        request = ProcessingRequest.FromString(data)
        response = ProcessingResponse()
        kind = request.WhichOneof("request")
        if kind == "request_headers":
            told = {one.key: one.raw_value for one in request.request_headers.headers.headers}
            mutation = response.request_headers.response.header_mutation
            option = mutation.set_headers.add()
            option.header.key = "x-seen-path"
            option.header.raw_value = told[":path"]
        elif kind == "request_body":
            turned = request.request_body.body[::-1]
            response.request_body.response.body_mutation.body = turned
        elif kind == "response_headers":
            response.response_headers.SetInParent()
        else:
            response.response_body.response.body_mutation.body = request.response_body.body[::-1]
        self.stream.send(response.SerializeToString())

    def half_closed(self) -> None:
        self.stream.finish()

    def lost(self) -> None:
        pass


class Limiter:
    """Refuses whoever is called `over`; answers the calls of one turn together."""

    def __init__(self) -> None:
        self.waiting: list[tuple[asyncio.Future[bytes], bool]] = []
        self.batches = 0
        self.answered = 0

    def __call__(self, data: bytes) -> asyncio.Future[bytes]:
        loop = asyncio.get_running_loop()
        if not self.waiting:
            loop.call_soon(self.answer)
        request = RateLimitRequest.FromString(data)
        over = request.descriptors[0].entries[0].value == "over"
        self.waiting.append((loop.create_future(), over))
        return self.waiting[-1][0]

    def answer(self) -> None:
        waiting, self.waiting = self.waiting, []
        self.batches += 1
        for promise, over in waiting:
            if not promise.done():
                response = RateLimitResponse(overall_code=2 if over else 1)
                self.answered += 1
                promise.set_result(response.SerializeToString())


def cluster(name: str, endpoint: dict[str, Any], *, http2: bool = False) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": endpoint}}]}],
        },
    }
    if http2:
        document["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{PREFIX}.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
    return document


def grpc_service(name: str) -> dict[str, Any]:
    return {"envoy_grpc": {"cluster_name": name}, "timeout": "20s"}


def bootstrap(port: int, ext_proc: Path, ratelimit: Path, bodies: str) -> dict[str, Any]:
    mode = "SKIP" if bodies == "NONE" else "SEND"
    processor = {
        "@type": f"{PREFIX}.filters.http.ext_proc.v3.ExternalProcessor",
        "grpc_service": grpc_service("ext_proc"),
        "processing_mode": {
            "request_header_mode": "SEND",
            "response_header_mode": mode,
            "request_body_mode": bodies,
            "response_body_mode": bodies,
            "request_trailer_mode": "SKIP",
            "response_trailer_mode": "SKIP",
        },
        "message_timeout": "20s",
    }
    limiter = {
        "@type": f"{PREFIX}.filters.http.ratelimit.v3.RateLimit",
        "domain": "test",
        "timeout": "20s",
        "failure_mode_deny": True,
        "rate_limit_service": {
            "grpc_service": grpc_service("ratelimit"),
            "transport_api_version": "V3",
        },
    }
    action = {"request_headers": {"header_name": "x-client", "descriptor_key": "client"}}
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": "up", "rate_limits": [{"actions": [action]}]},
    }
    router = {"@type": f"{PREFIX}.filters.http.router.v3.Router"}
    manager = {
        "@type": f"{PREFIX}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [
            {"name": "limit", "typed_config": limiter},
            {"name": "process", "typed_config": processor},
            {"name": "router", "typed_config": router},
        ],
    }
    listener = {
        "name": "http",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
    }
    backend = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {
        "static_resources": {
            "listeners": [listener],
            "clusters": [
                cluster("up", backend),
                cluster("ext_proc", {"pipe": {"path": str(ext_proc)}}, http2=True),
                cluster("ratelimit", {"pipe": {"path": str(ratelimit)}}, http2=True),
            ],
        }
    }


class Gateway:
    """What runs in a test."""

    backend: HttpBackend
    url: str
    processing: H2Server
    limiting: H2Server
    limiter: Limiter


@asynccontextmanager
async def gateway(folder: Path, *, bodies: str = "NONE") -> AsyncIterator[Gateway]:
    running = Gateway()
    running.limiter = Limiter()
    limits = Limits(handler_timeout_s=20)
    ext_proc, ratelimit = folder / "p.sock", folder / "r.sock"
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        running.processing = await enter(serve_stream(Processor, path=ext_proc))
        running.limiting = await enter(serve_unary(running.limiter, path=ratelimit, limits=limits))
        running.backend = await enter(http_backend())
        config = bootstrap(running.backend.port, ext_proc, ratelimit, bodies)
        router = await enter(envoy(config))
        running.url = f"http://127.0.0.1:{await router.port('http')}"
        yield running


async def load(url: str, requests: int) -> list[str]:
    """What went wrong in that many requests, `AT_ONCE` at a time."""
    numbers = iter(range(requests))
    wrong: list[str] = []

    async def one_after_the_other() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60, verify=False) as client:
            for number in numbers:
                over = number % 10 == 0
                headers = {"x-client": "over" if over else "within"}
                answer = await client.get(f"/at/{number}", headers=headers)
                if answer.status_code != (429 if over else 200):
                    wrong.append(f"{number}: {answer.status_code} {answer.text}")
                elif not over:
                    told = dict(answer.json()["headers"])
                    if told.get("x-seen-path") != f"/at/{number}":
                        wrong.append(f"{number}: {told}")

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(one_after_the_other())
    return wrong


async def test_every_request_is_processed_and_limited_under_load(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        assert await load(running.url, REQUESTS) == []
        assert running.limiter.answered == REQUESTS
        assert running.limiting.counters.messages_sent == REQUESTS
        assert running.processing.counters.messages_sent == REQUESTS * 9 // 10
        for server in (running.processing, running.limiting):
            assert server.counters.connection_errors == server.counters.stream_errors == 0
            assert server.counters.handler_errors == server.counters.handler_timeouts == 0
            assert server.counters.connections == 1


@pytest.mark.parametrize("size", [0, 1_000, 100_000, 900_000])
async def test_bodies_go_through_it_both_ways(tmp_path: Path, size: int) -> None:
    async with gateway(tmp_path, bodies="BUFFERED") as running:
        body = (b"0123456789" * (size // 10 + 1))[:size]
        async with httpx.AsyncClient(timeout=60) as client:
            headers = {"x-client": "within"}
            answer = await client.post(f"{running.url}/b", content=body, headers=headers)
        assert answer.status_code == 200
        assert running.backend.last.body == body[::-1]
        assert json.loads(answer.text[::-1])["body"] == body[::-1].decode()


async def test_a_successor_takes_over_without_a_failed_request(tmp_path: Path) -> None:
    async with gateway(tmp_path) as running:
        under_load = asyncio.ensure_future(load(running.url, REQUESTS))
        async with asyncio.timeout(60):
            while running.processing.counters.messages_sent < 200:
                await asyncio.sleep(0.01)
        async with serve_stream(Processor, path=tmp_path / "p.sock") as successor:
            await running.processing.drain(30)
            assert await under_load == []
            assert successor.counters.messages_sent > 200
            assert running.processing.counters.connections_open == 0
            sent = running.processing.counters.messages_sent + successor.counters.messages_sent
            assert sent == REQUESTS * 9 // 10
