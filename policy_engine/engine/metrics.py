"""Prometheus metrics of the policy engine, in a registry of their own."""

from collections.abc import Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
)

_PREFIX = "policy_engine"
_LENGTHS = (0, 1, 2, 3, 5, 8, 13, 21)


class EngineMetrics:
    """All of them; names as in the public contract."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)

        def gauge(name: str, about: str) -> Gauge:
            return Gauge(f"{_PREFIX}_{name}", about, registry=registry)

        self.up = gauge("up", "1 while the engine serves")
        self.xds_connection_state = gauge(
            "xds_connection_state", "1 while the broker that brings the state is reachable"
        )
        self.xds_updates = Counter(
            f"{_PREFIX}_xds_updates_total",
            "Events of state that changed something, and that did not",
            ["status"],
            registry=registry,
        )
        self.config_reload_timestamp = gauge(
            "config_reload_timestamp", "When the state last changed, Unix time in seconds"
        )
        self._snapshot_size = gauge("snapshot_size", "APIs that are deployed")
        self._chains_loaded = gauge("policy_chains_loaded", "Routes that have policies")
        self._chains: dict[str, int] = {}  # of each deployed API
        self._policies_per_chain = Histogram(
            f"{_PREFIX}_policies_per_chain",
            "Policies on each route of an API, counted when the API changes",
            buckets=_LENGTHS,
            registry=registry,
        )
        self.policy_chain_length = Histogram(
            f"{_PREFIX}_policy_chain_length",
            "Python policies of each hop, which run in one call, counted when the hop is new",
            buckets=_LENGTHS,
            registry=registry,
        )
        self.resolution_failures = Counter(
            f"{_PREFIX}_resolution_failures_total",
            "Policies of changed APIs that are not loaded, or whose parameters do not fit",
            registry=registry,
        )

    def api_loaded(self, api_id: str, lengths: Sequence[int]) -> None:
        """An API is deployed; `lengths`: how many policies stand on each of its routes."""
        for length in lengths:
            self._policies_per_chain.observe(length)
        chains = sum(length > 0 for length in lengths)
        self._chains_loaded.inc(chains - self._chains.get(api_id, 0))
        self._chains[api_id] = chains
        self._snapshot_size.set(len(self._chains))

    def api_unloaded(self, api_id: str) -> None:
        """An API is not deployed any more."""
        self._chains_loaded.dec(self._chains.pop(api_id, 0))
        self._snapshot_size.set(len(self._chains))
