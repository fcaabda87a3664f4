"""How fast documents become bytes: `python -m tests.bench.encode`.

The same 5,000 routes, as one document and as one document per API, with `xds.wire.messages.encode`
and with `json_format.ParseDict` of the same protobuf library. Bytes are compared, too.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

from google.protobuf import json_format

from xds.wire.descriptors import envoy_descriptors
from xds.wire.messages import encode, message_class

ROUTES = 5_000
ROUNDS = 5
TABLE = "envoy.config.route.v3.RouteConfiguration"
EXTENSIONS = "type.googleapis.com/envoy.extensions.filters.http"


def route(number: int) -> dict[str, Any]:
    """One operation with CORS and a limit."""
    return {
        "name": f"GET|/api{number}/v1/x|*|api{number}",
        "match": {
            "path_separated_prefix": f"/api{number}/v1",
            "headers": [{"name": ":method", "string_match": {"exact": "GET"}}],
        },
        "route": {
            "cluster": "up",
            "timeout": "15s",
            "idle_timeout": "60.5s",
            "prefix_rewrite": "/",
            "retry_policy": {"retry_on": "connect-failure", "num_retries": 2},
        },
        "metadata": {"filter_metadata": {"signalbox": {"api": f"api{number}"}}},
        "typed_per_filter_config": {
            "envoy.filters.http.cors": {
                "@type": f"{EXTENSIONS}.cors.v3.CorsPolicy",
                "allow_origin_string_match": [{"exact": "https://a.example"}],
                "allow_methods": "GET, POST",
                "max_age": "60",
            },
            "limit": {
                "@type": f"{EXTENSIONS}.local_ratelimit.v3.LocalRateLimit",
                "stat_prefix": "limit",
                "token_bucket": {
                    "max_tokens": 100,
                    "tokens_per_fill": 100,
                    "fill_interval": "1s",
                },
                "filter_enabled": {"default_value": {"numerator": 100, "denominator": "HUNDRED"}},
            },
        },
    }


def table(numbers: range) -> dict[str, Any]:
    routes = [route(number) for number in numbers]
    return {"name": "t", "virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]}


def parse_dict(document: dict[str, Any]) -> bytes:
    message = message_class(TABLE)()
    json_format.ParseDict(document, message, descriptor_pool=envoy_descriptors().pool)
    body: bytes = message.SerializeToString(deterministic=True)
    return body


def plans(document: dict[str, Any]) -> bytes:
    return encode(TABLE, document)


def seconds(encoder: Callable[[dict[str, Any]], bytes], documents: list[dict[str, Any]]) -> float:
    begin = time.perf_counter()
    for document in documents:
        encoder(document)
    return time.perf_counter() - begin


def main() -> None:
    one = table(range(ROUTES))
    many = [table(range(number, number + 1)) for number in range(ROUTES)]
    assert plans(one) == parse_dict(one)
    for title, documents in (("one document", [one]), ("one document per API", many)):
        taken: dict[str, list[float]] = {"plans": [], "ParseDict": []}
        for _ in range(ROUNDS):  # in turn, so that both meet the same machine
            for name, encoder in (("plans", plans), ("ParseDict", parse_dict)):
                taken[name].append(seconds(encoder, documents))
        ours, theirs = (statistics.median(times) for times in taken.values())
        print(
            f"{ROUTES} routes, {title}: plans {ours * 1e6 / ROUTES:.0f} us a route, "
            f"ParseDict {theirs * 1e6 / ROUTES:.0f} us, ratio {theirs / ours:.1f}"
        )


if __name__ == "__main__":
    main()
