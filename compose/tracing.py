"""Traces to an OTLP endpoint, when one is set. Nothing is imported when none is."""

from collections.abc import Iterator
from contextlib import contextmanager

from compose.errors import TracingNotInstalled
from compose.gateway_settings import GatewaySettings


@contextmanager
def tracing(settings: GatewaySettings, component: str) -> Iterator[None]:
    """Send spans for as long as the context lasts. Raises TracingNotInstalled."""
    if not settings.otlp_endpoint:
        yield
        return
    try:
        from opentelemetry import trace  # noqa: PLC0415 - an extra
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise TracingNotInstalled from error
    provider = TracerProvider(
        resource=Resource.create(
            {
                "service.name": f"signalbox-{component}",
                "service.namespace": settings.org,
                "deployment.environment.name": settings.gateway,
            }
        )
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(settings.otlp_endpoint)))
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()
