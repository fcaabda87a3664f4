"""Prometheus metrics of the controller, in a registry of their own."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from controller.errors import Raced, StorageError
from controller.model import Counts
from controller.resources import KINDS

_FAST_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_SIZES_BYTES = (256, 1024, 4096, 16384, 65536, 262144, 1048576)
_PREFIX = "gateway_controller"
_OURS = "signalbox_"


def program_version() -> str:
    """The version that is installed."""
    try:
        return version("signalbox")
    except PackageNotFoundError:
        return "unknown"


class _Neighbours(Collector):
    """What the components in the same process count: they have no port of their own."""

    def describe(self) -> Iterable[Metric]:
        """Nothing: names that start so are nobody else's."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The metrics of this product; those of the process are there already."""
        return (one for one in REGISTRY.collect() if one.name.startswith(_OURS))


class ControllerMetrics:
    """All of them; names as in the public contract."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        registry.register(_Neighbours())

        def counter(name: str, about: str, labels: Sequence[str] = ()) -> Counter:
            return Counter(f"{_PREFIX}_{name}", about, labels, registry=registry)

        def histogram(
            name: str, about: str, labels: Sequence[str] = (), buckets: Sequence[float] = _FAST_S
        ) -> Histogram:
            return Histogram(f"{_PREFIX}_{name}", about, labels, registry=registry, buckets=buckets)

        def gauge(name: str, about: str, labels: Sequence[str] = ()) -> Gauge:
            return Gauge(f"{_PREFIX}_{name}", about, labels, registry=registry)

        self.up = gauge("up", "1 while the controller serves")
        self.info = gauge("info", "Version of the controller; always 1", ["version"])
        self.info.labels(program_version()).set(1)

        self.api_operations = counter(
            "api_operations_total", "Changes and reads of APIs", ["operation", "status"]
        )
        self.api_operation_s = histogram(
            "api_operation_duration_seconds", "How long they took", ["operation"]
        )
        self.apis = gauge("apis_total", "APIs on record", ["kind", "state"])
        self.store_size = gauge("config_store_size", "Live rows on record", ["kind"])
        self.validation_errors = counter(
            "validation_errors_total", "Faults found in documents", ["kind"]
        )
        self.errors = counter("errors_total", "Requests that failed here", ["component", "type"])

        self.http_requests = counter(
            "http_requests_total", "Requests answered", ["method", "endpoint", "status"]
        )
        self.http_request_s = histogram(
            "http_request_duration_seconds", "How long answers took", ["method", "endpoint"]
        )
        self.http_request_bytes = histogram(
            "http_request_size_bytes", "Bodies of requests", ["endpoint"], _SIZES_BYTES
        )
        self.http_response_bytes = histogram(
            "http_response_size_bytes", "Bodies of answers", ["endpoint"], _SIZES_BYTES
        )
        self.concurrent_requests = gauge("concurrent_requests", "Requests being answered")

        self.deployment_s = histogram(
            "deployment_latency_seconds", "From commit to live on all routers"
        )
        self.database_operations = counter(
            "database_operations_total", "Units and reads of the record", ["operation", "status"]
        )
        self.database_operation_s = histogram(
            "database_operation_duration_seconds", "How long they took", ["operation"]
        )
        self.storage_errors = counter(
            "storage_errors_total", "What the record refused", ["operation", "type"]
        )
        self.connection_state = gauge(
            "control_plane_connection_state", "1 while the bus is reachable"
        )
        self.events_sent = counter(
            "control_plane_events_sent_total", "Events relayed from the outbox", ["kind"]
        )
        self.routers = gauge("routers_connected", "Routers with an open configuration stream")

    def event_sent(self, kind: str) -> None:
        """An event of the outbox is on the bus."""
        self.events_sent.labels(kind).inc()

    def follow(self, connected: Callable[[], float], routers: Callable[[], float]) -> None:
        """Read these when the metrics are collected."""
        self.connection_state.set_function(connected)
        self.routers.set_function(routers)

    def counted(self, counts: Counts) -> None:
        """What is on record right now."""
        self.apis.labels("RestApi", "deployed").set(counts.deployed)
        self.apis.labels("RestApi", "undeployed").set(counts.undeployed)
        self.store_size.labels("RestApi").set(counts.deployed + counts.undeployed)
        self.store_size.labels("ApiKey").set(counts.keys)
        for model, kind in KINDS.items():
            self.store_size.labels(model.__name__).set(counts.resources.get(kind, 0))

    @contextmanager
    def api_operation(self, operation: str) -> Iterator[None]:
        """Count and time one operation on APIs."""
        began = perf_counter()
        status = "error"
        try:
            yield
            status = "success"
        finally:
            self.api_operations.labels(operation, status).inc()
            self.api_operation_s.labels(operation).observe(perf_counter() - began)

    @contextmanager
    def storage(self, operation: str) -> Iterator[None]:
        """Count and time one use of the record."""
        began = perf_counter()
        status = "success"
        try:
            yield
        except StorageError as error:
            status = "retried" if isinstance(error, Raced) else "error"
            self.storage_errors.labels(operation, type(error).__name__).inc()
            raise
        finally:
            self.database_operations.labels(operation, status).inc()
            self.database_operation_s.labels(operation).observe(perf_counter() - began)
