"""What the rate limiter counts, for Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

DECISIONS = Counter(
    "signalbox_ratelimit_decisions_total",
    "Calls decided, by answer and by who knew: the store, the over-limit cache, the local share.",
    ["answer", "by"],
)
MALFORMED = Counter(
    "signalbox_ratelimit_malformed_calls_total", "Calls whose descriptors could not be read."
)
BATCH = Histogram(
    "signalbox_ratelimit_batch_calls",
    "Calls decided in one batch.",
    buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)
STORE_SECONDS = Histogram(
    "signalbox_ratelimit_store_duration_seconds",
    "Time for one batch to be decided by the store.",
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5),
)
STORE_FAILURES = Counter(
    "signalbox_ratelimit_store_failures_total", "Batches that the store did not decide.", ["cause"]
)
DEGRADED = Gauge(
    "signalbox_ratelimit_degraded", "Places of the store that are away: 0 when all is well."
)
LOCAL_COUNTERS = Gauge(
    "signalbox_ratelimit_local_counters", "Counters kept here while the store is away."
)
MERGED = Counter(
    "signalbox_ratelimit_merged_counters_total", "Counters merged into the store when it was back."
)
LIMITERS = Gauge("signalbox_ratelimit_limiters", "Rate limiters alive, this one included.")
EVENTS = Counter(
    "signalbox_ratelimit_events_total", "Events about limits that were published.", ["kind"]
)
EVENTS_DROPPED = Counter(
    "signalbox_ratelimit_events_dropped_total",
    "Events about limits that were not published.",
    ["reason"],
)
QUOTA_ROUTERS = Gauge("signalbox_quota_routers", "Routers that get shares of limits from here.")
QUOTA_BUCKETS = Gauge("signalbox_quota_buckets", "Limits by key that are given out in shares.")
QUOTA_SHARES = Gauge("signalbox_quota_shares", "Shares that routers have of them.")
QUOTA_REPORTS = Counter("signalbox_quota_reports_total", "Reports of routers.")
QUOTA_ASSIGNMENTS = Counter(
    "signalbox_quota_assignments_total", "Shares given to routers, other than the one before."
)
QUOTA_PULSES = Counter(
    "signalbox_quota_pulses_total", "Requests that were seen to feel how many there are."
)
QUOTA_MOVES = Counter(
    "signalbox_quota_moves_total", "Times that demand was found to have moved, between reports."
)
