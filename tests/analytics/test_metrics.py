"""What Prometheus is told."""

from prometheus_client import REGISTRY, generate_latest

from analytics.metrics import OTHER, UNROUTED, LatencyHistogram, RequestMetrics
from analytics.sketch import LatencySketch
from analytics.totals import fold
from tests.analytics.batches import ORDERS, Call, served


def value(name, **labels):
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_apis_beyond_the_bound_share_a_label():
    before = value("signalbox_requests_total", api=OTHER, status_class="2xx")
    metrics = RequestMetrics(apis_max=2)
    for api in range(5):
        metrics.add(fold(served([Call(route=f"GET|/{api}|*|bounded-{api}")] * 2)))
    assert value("signalbox_requests_total", api="bounded-1", status_class="2xx") == 2
    assert value("signalbox_requests_total", api="bounded-2", status_class="2xx") == 0
    assert value("signalbox_requests_total", api=OTHER, status_class="2xx") == before + 6


def test_refusals_and_the_unrouted_are_told_apart():
    unrouted = value("signalbox_requests_total", api=UNROUTED, status_class="4xx")
    limited = value("signalbox_requests_refused_total", outcome="limited")
    calls = [
        Call(route="", status=404, details="route_not_found"),
        Call(route=ORDERS, status=429, details="local_rate_limited"),
    ]
    RequestMetrics(apis_max=0).add(fold(served(calls)))
    assert value("signalbox_requests_total", api=UNROUTED, status_class="4xx") == unrouted + 1
    assert value("signalbox_requests_refused_total", outcome="limited") == limited + 1


def test_the_histogram_of_sketches_is_cumulative():
    histogram = LatencyHistogram("test_seconds", "of a test")
    sketch = LatencySketch()
    for duration_us in (500, 500, 7_000, 2_000_000, 60_000_000):
        sketch.add(duration_us)
    histogram.add(sketch, 62_008_000)
    (family,) = histogram.collect()
    told = {one.labels.get("le"): one.value for one in family.samples if "bucket" in one.name}
    assert (told["0.001"], told["0.005"], told["0.01"]) == (2, 2, 3)
    assert (told["2.5"], told["30.0"], told["+Inf"]) == (4, 4, 5)
    (whole,) = [one.value for one in family.samples if one.name.endswith("_sum")]
    assert whole == 62.008


def test_everything_is_in_the_text_that_is_scraped():
    text = generate_latest(REGISTRY).decode()
    for name in (
        "signalbox_access_log_entries_received_total",
        "signalbox_access_log_entries_published_total",
        "signalbox_usage_requests_counted_total",
        "signalbox_usage_lag_seconds",
        "signalbox_request_duration_seconds_bucket",
    ):
        assert name in text
