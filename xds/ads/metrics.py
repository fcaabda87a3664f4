"""What happens between the server and its routers, for Prometheus."""

from prometheus_client import Counter, Gauge, Histogram

from xds.ads.protocol import MAKE_BEFORE_BREAK

clients_connected = Gauge("signalbox_xds_clients_connected", "Routers with an open stream")
streams = Counter("signalbox_xds_streams_total", "Streams that routers have opened")
requests = Counter("signalbox_xds_stream_requests_total", "Requests of routers", ["type"])
acks = Counter("signalbox_xds_acks_total", "Responses that a router acknowledged", ["type"])
nacks = Counter("signalbox_xds_nacks_total", "Responses that a router refused", ["type"])
quarantined = Counter(
    "signalbox_xds_quarantined_total", "Versions of resources that a router refused", ["type"]
)
resources = Gauge("signalbox_xds_resources", "Resources that routers are to have", ["type"])
push_seconds = Histogram(
    "signalbox_xds_push_seconds",
    "Time from publication to a router's acknowledgement",
    ["type"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30),
)


_LABELS = {type_url: type_url.rpartition(".")[2] for type_url in MAKE_BEFORE_BREAK}


def label(type_url: str) -> str:
    """The short name of a type, as in `Cluster`; `other` for what we do not serve."""
    return _LABELS.get(type_url, "other")
