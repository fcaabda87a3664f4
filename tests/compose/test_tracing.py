import asyncio
import sys
from pathlib import Path

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as collector
from opentelemetry.sdk.trace import TracerProvider

from bus.events import ApiRetired
from bus.memory import MemoryBus
from compose import tracing
from compose.addressed_bus import AddressedBus
from compose.errors import TracingNotInstalled
from compose.gateway_settings import GatewaySettings
from tests.compose.cli import Cli


@pytest.fixture
def without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)


async def test_what_is_published_arrives_as_a_span_at_the_endpoint() -> None:
    received: asyncio.Queue[collector.ExportTraceServiceRequest] = asyncio.Queue()

    async def export(raw: bytes, _: object) -> bytes:
        received.put_nowait(collector.ExportTraceServiceRequest.FromString(raw))
        return collector.ExportTraceServiceResponse().SerializeToString()

    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "opentelemetry.proto.collector.trace.v1.TraceService",
                {"Export": grpc.unary_unary_rpc_method_handler(export)},
            ),
        )
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    settings = GatewaySettings(otlp_endpoint=f"http://127.0.0.1:{port}", org="acme")
    try:
        with tracing.tracing(settings, "all"):
            bus = AddressedBus(MemoryBus(), org="acme", gateway="edge")
            await bus.publish(ApiRetired(revision=1, api_id="weather"))
            provider = trace.get_tracer_provider()
            assert isinstance(provider, TracerProvider)
            await asyncio.to_thread(provider.force_flush)
            async with asyncio.timeout(30):
                (spans,) = (await received.get()).resource_spans
    finally:
        await server.stop(0)
    names = {one.key: one.value.string_value for one in spans.resource.attributes}
    assert names["service.name"] == "signalbox-all"
    assert names["service.namespace"] == "acme"
    assert [span.name for span in spans.scope_spans[0].spans] == ["publish rest-api.retired"]


def test_traces_without_the_extra_are_refused_with_what_to_install(
    without_the_extra: None,
) -> None:
    tracing.check(GatewaySettings())
    with pytest.raises(TracingNotInstalled, match=r"pip install 'signalbox\[tracing\]'"):
        tracing.check(GatewaySettings(otlp_endpoint="http://127.0.0.1:4317"))


def test_up_refuses_traces_that_it_cannot_send(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys; sys.modules['opentelemetry.sdk'] = None\n"
    )
    said = Cli(tmp_path / "data").refused(
        "up", SIGNALBOX_OTLP_ENDPOINT="http://127.0.0.1:4317", PYTHONPATH=str(tmp_path)
    )
    assert "SIGNALBOX_OTLP_ENDPOINT is set, but tracing is not installed" in said
