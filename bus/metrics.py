"""What the bus counts, for Prometheus."""

from prometheus_client import Counter, Gauge

PUBLISHED = Counter("signalbox_bus_published_total", "Events that the broker has stored.", ["kind"])
PUBLISH_FAILURES = Counter(
    "signalbox_bus_publish_failures_total", "Events that could not be published.", ["kind"]
)
SKIPPED = Counter(
    "signalbox_bus_skipped_total", "Received events of a kind that is not known here.", ["kind"]
)
DEAD_LETTERED = Counter(
    "signalbox_bus_dead_lettered_total", "Messages put on the dead letter.", ["consumer"]
)
DEAD_LETTER_FAILURES = Counter(
    "signalbox_bus_dead_letter_failures_total",
    "Messages that should be on the dead letter and could not be put there.",
    ["consumer"],
)
RECONNECTS = Counter(
    "signalbox_bus_reconnects_total", "Connections to the broker after the first.", ["component"]
)
LOST_STATE = Counter(
    "signalbox_bus_lost_state_total", "Times the broker came back without its data.", ["component"]
)
CONNECTED = Gauge(
    "signalbox_bus_connected", "1 while the broker is reachable, otherwise 0.", ["component"]
)
FEED_RESTARTS = Counter(
    "signalbox_bus_feed_restarts_total", "Feeds that began again with current state.", ["component"]
)
FOLLOWER_PENDING = Gauge(
    "signalbox_bus_follower_pending_events",
    "Events the broker still had for a follower when it delivered the last one.",
    ["component", "stream"],
)

_KNOWN_STRANGERS: set[str] = set()


def skipped(kind: str) -> None:
    """Count one event of unknown `kind`; after 64 different ones the rest share a label."""
    if len(_KNOWN_STRANGERS) < 64:
        _KNOWN_STRANGERS.add(kind)
    SKIPPED.labels(kind if kind in _KNOWN_STRANGERS else "other").inc()
