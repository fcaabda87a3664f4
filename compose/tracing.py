"""Traces to an OTLP endpoint, when one is set. Nothing is imported when none is."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from compose.errors import TracingNotInstalled
from compose.gateway_settings import GatewaySettings

_EXPORTER = "opentelemetry.exporter.otlp.proto.grpc.trace_exporter"


def check(settings: GatewaySettings) -> None:
    """Whether what is asked for can be done. Raises TracingNotInstalled."""
    if settings.otlp_endpoint and not (_there("opentelemetry.sdk") and _there(_EXPORTER)):
        raise TracingNotInstalled


def _there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even its parent
        return False


@contextmanager
def tracing(settings: GatewaySettings, component: str) -> Iterator[None]:
    """Send spans for as long as the context lasts. Raises TracingNotInstalled."""
    if not settings.otlp_endpoint:
        yield
        return
    check(settings)
    from opentelemetry import trace  # noqa: PLC0415 - an extra
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

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
