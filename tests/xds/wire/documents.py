"""Real documents, and documents invented from descriptors."""

import base64
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st

from xds.wire.descriptors import envoy_descriptors

EXT = "type.googleapis.com/envoy.extensions"

ROUTES = {
    "name": "weather",
    "vhosts": None,
    "virtual_hosts": [
        {
            "name": "any",
            "domains": ["*"],
            "routes": [
                {
                    "name": "GET|/weather/v1/{city}|*|weather",
                    "match": {
                        "path_match_policy": {
                            "name": "template",
                            "typed_config": {
                                "@type": f"{EXT}.path.match.uri_template.v3.UriTemplateMatchConfig",
                                "path_template": "/weather/v1/{city}",
                            },
                        },
                        "headers": [{"name": ":method", "string_match": {"exact": "GET"}}],
                    },
                    "route": {
                        "weighted_clusters": {
                            "clusters": [
                                {"name": "a", "weight": 80},
                                {"name": "b", "weight": 20},
                            ]
                        },
                        "timeout": "15s",
                        "idle_timeout": "0.250s",
                        "auto_host_rewrite": True,
                        "retry_policy": {
                            "retry_on": "connect-failure",
                            "num_retries": 2,
                            "retry_host_predicate": [{"name": "previous"}],
                        },
                    },
                    "metadata": {
                        "filter_metadata": {
                            "signalbox": {
                                "api": "weather",
                                "list": [1, 2.5, None, True, "x", {"y": []}, []],
                            }
                        }
                    },
                    "typed_per_filter_config": {
                        "chain0": {
                            "@type": f"{EXT}.filters.http.filter_chain.v3"
                            ".FilterChainConfigPerRoute",
                            "filter_chain": {
                                "filters": [
                                    {
                                        "name": "api.key",
                                        "typed_config": {
                                            "@type": f"{EXT}.filters.http.api_key_auth.v3"
                                            ".ApiKeyAuth",
                                            "credentials": [{"key": "d1", "client": "a"}],
                                            "key_sources": [{"header": "x-digest"}],
                                        },
                                    }
                                ]
                            },
                        }
                    },
                },
                {
                    "match": {"prefix": "/"},
                    "direct_response": {
                        "status": 404,
                        "body": {"inline_bytes": base64.b64encode(b"\x00no").decode()},
                    },
                },
            ],
        }
    ],
}
ROUTES.pop("vhosts")

CLUSTER = {
    "name": "up",
    "type": "STRICT_DNS",
    "connect_timeout": "5s",
    "load_assignment": {
        "cluster_name": "up",
        "endpoints": [
            {
                "lb_endpoints": [
                    {
                        "endpoint": {
                            "address": {
                                "socket_address": {"address": "example.org", "port_value": 443}
                            }
                        }
                    }
                ]
            }
        ],
    },
    "transport_socket": {
        "name": "tls",
        "typed_config": {
            "@type": f"{EXT}.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": "example.org",
        },
    },
    "typed_extension_protocol_options": {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{EXT}.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {"max_concurrent_streams": 100}},
        }
    },
    "circuit_breakers": {"thresholds": [{"max_connections": 1024}]},
}

LISTENER = {
    "name": "http",
    "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
    "filter_chains": [
        {
            "filters": [
                {
                    "name": "hcm",
                    "typed_config": {
                        "@type": f"{EXT}.filters.network.http_connection_manager.v3"
                        ".HttpConnectionManager",
                        "stat_prefix": "http",
                        "codec_type": "AUTO",
                        "route_config": ROUTES,
                        "http_filters": [
                            {
                                "name": "router",
                                "typed_config": {"@type": f"{EXT}.filters.http.router.v3.Router"},
                            }
                        ],
                    },
                }
            ]
        }
    ],
}

TYPED_STRUCT = {
    "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
    "type_url": f"{EXT}.filters.http.buffer.v3.Buffer",
    "value": {"max_request_bytes": 5, "fields": {"not": "fields"}},
}

REAL = {
    "envoy.config.route.v3.RouteConfiguration": ROUTES,
    "envoy.config.cluster.v3.Cluster": CLUSTER,
    "envoy.config.listener.v3.Listener": LISTENER,
    "envoy.config.route.v3.ScopedRouteConfiguration": {
        "name": "weather",
        "key": {"fragments": [{"string_key": "weather"}]},
        "route_configuration": ROUTES,
    },
    "google.protobuf.Any": {
        "@type": "type.googleapis.com/google.protobuf.Any",
        # one key: ParseDict does not order the maps inside an Any
        "value": TYPED_STRUCT | {"value": {"max_request_bytes": 5}},
    },
}

_ANYS: list[dict[str, Any]] = [
    {},
    TYPED_STRUCT | {"value": {"one": 1}},  # a second key would not be in order with ParseDict
    {"@type": f"{EXT}.filters.http.buffer.v3.Buffer", "max_request_bytes": 7},
    {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "-1.5s"},
    {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": "x"},
    {"@type": "type.googleapis.com/google.protobuf.Struct", "value": {"a": [None]}},
    {"@type": "type.googleapis.com/google.protobuf.Value", "value": None},
    {"@type": "type.googleapis.com/google.protobuf.Empty"},
]
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
_DURATIONS = st.sampled_from(["0s", "1s", "1.5s", "-2.000000001s", "0.25s", "315576000000s"])
_SCALARS = {
    FieldDescriptor.TYPE_STRING: st.text(max_size=8),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=8).map(lambda b: base64.b64encode(b).decode()),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_FLOAT: st.floats(width=32, allow_nan=False) | st.integers(-99, 99),
    FieldDescriptor.TYPE_DOUBLE: st.floats(allow_nan=False) | st.just("NaN") | st.integers(0, 9),
}


def _whole(low: int, high: int) -> st.SearchStrategy[Any]:
    numbers = st.integers(low, high)
    return numbers | numbers.map(str) | st.integers(0, 99).map(float)


for _kinds, _low, _high in (
    (("INT32", "SINT32", "SFIXED32"), -(2**31), 2**31 - 1),
    (("INT64", "SINT64", "SFIXED64"), -(2**63), 2**63 - 1),
    (("UINT32", "FIXED32"), 0, 2**32 - 1),
    (("UINT64", "FIXED64"), 0, 2**64 - 1),
):
    for _kind in _kinds:
        _SCALARS[getattr(FieldDescriptor, f"TYPE_{_kind}")] = _whole(_low, _high)

_SPECIAL = {
    "google.protobuf.Any": st.sampled_from(_ANYS),
    "google.protobuf.Duration": _DURATIONS,
    "google.protobuf.Timestamp": st.just("2026-01-02T03:04:05.500Z"),
    "google.protobuf.FieldMask": st.just("fooBar,baz"),
    "google.protobuf.Struct": st.dictionaries(st.text(max_size=3), _JSON, max_size=2),
    "google.protobuf.Value": _JSON,
    "google.protobuf.ListValue": st.lists(_JSON, max_size=2),
}


def _finite(value: object) -> bool:
    return not isinstance(value, float) or abs(value) != float("inf")


def _value(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    kind = field.message_type
    if field.enum_type is not None:
        values = field.enum_type.values
        return st.sampled_from([v.name for v in values] + [v.number for v in values])
    if kind is None:
        return _SCALARS[field.type].filter(_finite)
    if kind.full_name in _SPECIAL:
        return _SPECIAL[kind.full_name]
    if kind.full_name.startswith("google.protobuf.") and kind.full_name.endswith("Value"):
        return _value(kind.fields_by_name["value"], depth)
    return invented(kind, depth - 1)


def _field(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    kind = field.message_type
    if kind is not None and kind.GetOptions().map_entry:
        key, value = kind.fields_by_name["key"], kind.fields_by_name["value"]
        keys = _SCALARS[key.type]
        if key.type == FieldDescriptor.TYPE_BOOL:
            keys = st.sampled_from(["true", "false"])
        elif key.type != FieldDescriptor.TYPE_STRING:
            keys = st.integers(0, 99).map(str)
        return st.dictionaries(keys, _value(value, depth), max_size=2)
    one = _value(field, depth)
    return st.lists(one, max_size=2) if field.is_repeated else one


@st.composite
def invented(draw: st.DrawFn, message: str | Descriptor, depth: int = 3) -> dict[str, Any]:
    """A document that fits `message`, nested at most `depth` deep."""
    if isinstance(message, str):
        message = envoy_descriptors().message(message)
    document: dict[str, Any] = {}
    taken = set()
    chosen = (
        draw(st.lists(st.sampled_from(list(message.fields)), max_size=4)) if message.fields else []
    )
    for field in chosen:
        oneof = field.containing_oneof
        group = oneof.full_name if oneof is not None else field.full_name
        if group in taken or (depth == 0 and field.message_type is not None):
            continue
        taken.add(group)
        value = draw(_field(field, depth))
        document[draw(st.sampled_from([field.name, field.json_name]))] = value
    return document
