"""What the compiler did, for Prometheus."""

from prometheus_client import Counter, Histogram

compiled_apis = Counter("signalbox_xds_compiled_apis_total", "APIs compiled to Envoy resources")
compile_seconds = Histogram(
    "signalbox_xds_compile_seconds",
    "Time to compile and publish one batch of changed APIs",
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5),
)
refusals = Counter("signalbox_xds_refused_apis_total", "API revisions that are not served")


def compiled(apis: int, seconds: float) -> None:
    """Count a batch."""
    compiled_apis.inc(apis)
    compile_seconds.observe(seconds)
