"""What workers count, as Prometheus metrics: the sum over all of them, also those that ended."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from policy_engine.engine.feed import Feed, WorkerState
from policy_engine.engine.figures import BUCKETS_S
from policy_engine.engine.process_memory import resident_bytes

_PREFIX: Final = "policy_engine"
_PLAIN: Final = {
    "requests": ("requests", "Requests that came to the engine, one for each hop"),
    "request_errors": ("request_errors", "Requests refused because a policy or a hop has failed"),
    "body_bytes": ("body_bytes_processed", "Bytes of bodies that policies were given"),
    "lookup_failures": ("route_lookup_failures", "Requests whose hop was not known in time"),
}
_COUNTERS: Final = {
    "streams": ("streams", "Calls of routers"),
    "stream_errors": ("stream_errors", "Calls that ended because a router broke a rule or limit"),
    "handler_errors": ("handler_errors", "Calls that ended because the engine itself failed"),
}
_Numbers = dict[tuple[str, ...], float]


class WorkerMetrics(Collector):
    """Reads the latest reports when it is asked."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._ended: dict[int, dict[str, Any]] = {}  # pid -> last report
        self._sums: _Numbers = defaultdict(float)  # of processes before those
        self.restarts = 0

    def gone(self, worker: WorkerState) -> None:
        """A worker is not connected any more; its process may still come back."""
        if worker.report:
            self._ended[worker.pid] = worker.report

    def collect(self) -> Iterator[Metric]:
        """See `prometheus_client.registry.Collector`."""
        workers = tuple(self._feed.workers.values())
        for worker in workers:
            self._ended.pop(worker.pid, None)
        if len(self._ended) > 100:
            for pid in tuple(self._ended)[:-50]:
                _add(self._sums, self._ended.pop(pid))
        sums: _Numbers = defaultdict(float, self._sums)
        for report in self._ended.values():
            _add(sums, report)
        for worker in workers:
            if worker.report:
                _add(sums, worker.report)
        yield from self._gauges(workers)
        for key, (name, about) in (_PLAIN | _COUNTERS).items():
            yield CounterMetricFamily(f"{_PREFIX}_{name}", about, value=sums["plain", key])
        yield from _histograms(sums)
        yield from _by_policy(sums)

    def _gauges(self, workers: tuple[WorkerState, ...]) -> Iterator[Metric]:
        def gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
            return GaugeMetricFamily(f"{_PREFIX}_{name}", about, value=value)

        counters = [one.report.get("counters", {}) for one in workers]
        yield gauge(
            "active_streams",
            "Calls of routers that are open",
            sum(one.get("streams_open", 0) for one in counters),
        )
        yield gauge(
            "grpc_connections_active",
            "Connections of routers to workers",
            sum(one.get("connections_open", 0) for one in counters),
        )
        yield gauge("hops_loaded", "Hops that routers may call", len(self._feed.book.hops))
        yield gauge("workers", "Worker processes that are connected", len(workers))
        yield gauge(
            "workers_asleep",
            "Of these, those that wait for the first Python policy",
            sum(one.asleep for one in workers),
        )
        memory = GaugeMetricFamily(
            f"{_PREFIX}_worker_memory_bytes", "Resident memory of a worker", labels=["worker"]
        )
        for one in workers:
            memory.add_metric([str(one.number)], one.report.get("memory_bytes", 0))
        yield memory
        total = GaugeMetricFamily(
            f"{_PREFIX}_memory_bytes",
            "Resident memory: of the process that answers here, and of all workers that report",
            labels=["type"],
        )
        total.add_metric(["engine"], resident_bytes())
        total.add_metric(["workers"], sum(one.report.get("memory_bytes", 0) for one in workers))
        yield total


def _add(sums: _Numbers, report: dict[str, Any]) -> None:
    figures, counters = report["figures"], report["counters"]
    for key in _PLAIN:
        sums["plain", key] += figures[key]
    for key in _COUNTERS:
        sums["plain", key] += counters[key]
    _add_durations(sums, ("requests", "", ""), figures["requests_s"])
    _add_durations(sums, ("contexts", "", ""), figures["contexts_s"])
    for one in figures["policies"]:
        labels = one["policy"], one["phase"]
        _add_durations(sums, ("policy", *labels), one["durations"])
        sums["executions", *labels] += one["durations"]["count"] + sum(one["errors"].values())
        sums["skipped", *labels] += one["skipped"]
        sums["answered", *labels] += one["answered"]
        sums["would_have", *labels] += one["would_have"]
        for kind, count in one["errors"].items():
            sums["errors", *labels, kind] += count


def _add_durations(sums: _Numbers, key: tuple[str, ...], told: dict[str, Any]) -> None:
    for position, count in enumerate(told["buckets"]):
        sums["bucket", *key, str(position)] += count
    sums["seconds", *key] += told["total_s"]


def _histograms(sums: _Numbers) -> Iterator[Metric]:
    requests = HistogramMetricFamily(
        f"{_PREFIX}_request_duration_seconds", "Time of the engine for one message of a router"
    )
    contexts = HistogramMetricFamily(
        f"{_PREFIX}_context_build_duration_seconds",
        "Time to make of a request what policies see of it, one for each hop",
    )
    policies = HistogramMetricFamily(
        f"{_PREFIX}_policy_duration_seconds",
        "Time of one hook of a policy, waiting included",
        labels=["policy", "phase"],
    )
    for key in [key for key in sums if key[0] == "seconds"]:
        family = {"requests": requests, "contexts": contexts}.get(key[1], policies)
        labels = list(key[2:]) if family is policies else []
        total, buckets = 0.0, []
        for position, bound in enumerate((*map(str, BUCKETS_S), "+Inf")):
            total += sums.get(("bucket", *key[1:], str(position)), 0)
            buckets.append((bound, total))
        family.add_metric(labels, buckets, sums[key])
    yield requests
    yield contexts
    yield policies


def _by_policy(sums: _Numbers) -> Iterator[Metric]:
    told = {
        "executions": ("policy_executions", "Hooks of policies that ran"),
        "skipped": ("policy_skipped", "Hooks that did not run, for their condition did not hold"),
        "answered": ("short_circuits", "Answers that policies gave instead of the upstream"),
        "would_have": ("shadow_answers", "Answers that policies in shadow mode would have given"),
    }
    for key, (name, about) in told.items():
        family = CounterMetricFamily(f"{_PREFIX}_{name}", about, labels=["policy", "phase"])
        for labels in [one for one in sums if one[0] == key]:
            if sums[labels] or key == "executions":
                family.add_metric(list(labels[1:]), sums[labels])
        yield family
    errors = CounterMetricFamily(
        f"{_PREFIX}_policy_errors", "Hooks that failed", labels=["policy", "phase", "kind"]
    )
    for labels in [one for one in sums if one[0] == "errors"]:
        errors.add_metric(list(labels[1:]), sums[labels])
    yield errors
