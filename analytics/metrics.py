"""What analytics counts, for Prometheus."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from prometheus_client import REGISTRY, Counter, Gauge
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from analytics.sketch import LatencySketch, middle_of
from analytics.totals import Total, Totals

RECEIVED = Counter(
    "signalbox_access_log_entries_received_total", "Access-log entries that routers delivered."
)
PUBLISHED = Counter(
    "signalbox_access_log_entries_published_total", "Access-log entries that the bus has stored."
)
DROPPED = Counter(
    "signalbox_access_log_entries_dropped_total",
    "Access-log entries that were received and could not be kept.",
    ["reason"],
)
STREAMS = Gauge("signalbox_access_log_streams", "Open access-log streams of routers.")
BUFFERED = Gauge(
    "signalbox_usage_buffered_bytes", "Usage events that wait for the bus, estimated size."
)
COUNTED = Counter("signalbox_usage_requests_counted_total", "Requests added to the totals.")
REPEATED = Counter(
    "signalbox_usage_repeated_batches_total", "Usage events that came again and were not counted."
)
REFUSED = Counter(
    "signalbox_usage_refused_batches_total", "Usage events that could not be stored, put aside."
)
LAG = Gauge(
    "signalbox_usage_lag_seconds",
    "Age of the newest request of the last usage event when it was added to the totals.",
)
REQUESTS = Counter(
    "signalbox_requests_total",
    "Requests served, by API (later ones than the first so many: `(other)`) and status class.",
    ["api", "status_class"],
)
REFUSED_REQUESTS = Counter(
    "signalbox_requests_refused_total",
    "Requests that the gateway answered instead of the upstream, by reason.",
    ["outcome"],
)

SHADOW_REQUESTS = Counter(
    "signalbox_requests_shadow_total",
    "Requests that a policy in shadow mode would have refused, by policy.",
    ["policy"],
)

OTHER = "(other)"
UNROUTED = "(unrouted)"


class LatencyHistogram(Collector):
    """A histogram that is fed sketches: a request costs nothing here, a total does."""

    _BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

    def __init__(self, name: str, documentation: str) -> None:
        self._name = name
        self._documentation = documentation
        self._counts = [0] * (len(self._BOUNDS_S) + 1)  # the last: beyond the last bound
        self._sum_s = 0.0

    def add(self, sketch: LatencySketch, sum_us: int) -> None:
        """Count all durations of `sketch`, to its accuracy."""
        for bucket, count in sketch.buckets.items():
            self._counts[bisect_left(self._BOUNDS_S, middle_of(bucket) / 1e6)] += count
        self._sum_s += sum_us / 1e6

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The histogram as of now."""
        buckets, seen = [], 0
        for bound, count in zip((*self._BOUNDS_S, "+Inf"), self._counts, strict=True):
            seen += count
            buckets.append((str(bound), float(seen)))
        family = HistogramMetricFamily(self._name, self._documentation)
        family.add_metric([], buckets, self._sum_s)
        yield family

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """Name and kind, for the registry's check of duplicates."""
        yield HistogramMetricFamily(self._name, self._documentation)


LATENCY = LatencyHistogram(
    "signalbox_request_duration_seconds", "First byte received to last byte sent, all requests."
)
REGISTRY.register(LATENCY)


class RequestMetrics:
    """Feeds the metrics from totals; at most `apis_max` APIs get a label of their own."""

    def __init__(self, apis_max: int) -> None:
        self._apis_max = apis_max
        self._labelled: set[str] = set()

    def add(self, totals: Totals) -> None:
        """Count newly counted totals."""
        for (_, series), total in totals.items():
            self._count(series.api, series.status_class, total)
            LATENCY.add(total.latency, total.duration_us)
            if series.outcome != "served":
                REFUSED_REQUESTS.labels(series.outcome).inc(total.requests)
            for policy in filter(None, series.shadow.split(",")):
                SHADOW_REQUESTS.labels(policy).inc(total.requests)
            COUNTED.inc(total.requests)

    def _count(self, api: str, status_class: int, total: Total) -> None:
        label = self._label(api)
        answered = f"{status_class}xx" if status_class else "none"
        REQUESTS.labels(label, answered).inc(total.requests)

    def _label(self, api: str) -> str:
        if not api:
            return UNROUTED
        if api not in self._labelled and len(self._labelled) < self._apis_max:
            self._labelled.add(api)
        return api if api in self._labelled else OTHER
