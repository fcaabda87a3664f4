"""Upstreams as Envoy clusters: one per distinct identity, shared by all APIs that use it."""

import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

from bus.resources.document import duration_s
from bus.resources.rest_api import RestApiSpec
from bus.resources.upstream import Upstream
from policy_engine.policy import Connections, Service
from xds.compile.durations import duration

Document = dict[str, Any]

CLUSTER = "envoy.config.cluster.v3.Cluster"
CA_SECRET = "upstream-ca"  # noqa: S105  (the name of a public bundle)
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_CODEC = "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec"
_DEFAULT_PORT = {"http": 80, "https": 443}
_PLAIN = Connections()  # policies ask for nothing


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address behind a cluster."""

    scheme: str  # http or https
    host: str
    port: int
    weight: int | None = None

    @property
    def authority(self) -> str:
        """The Host header the endpoint expects."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORT[self.scheme] else f"{host}:{self.port}"

    @property
    def is_ip(self) -> bool:
        """Whether no name has to be resolved."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Target:
    """Where the requests of a site go."""

    cluster: str  # the cluster's name
    base_path: str  # put before the path below the context; empty or `/x`, no trailing slash
    authority: str | None  # the Host header, when all endpoints share one; None: by endpoint
    rewrite_host: bool
    several: bool = False  # whether another endpoint can be tried when one fails


def _endpoint(url: str, weight: int | None = None) -> Endpoint:
    parts = urlsplit(url)
    assert parts.hostname is not None
    return Endpoint(parts.scheme, parts.hostname, parts.port or _DEFAULT_PORT[parts.scheme], weight)


def _tls_context(endpoint: Endpoint) -> Document:
    san = {
        "san_type": "IP_ADDRESS" if endpoint.is_ip else "DNS",
        "matcher": {"exact": endpoint.host},
    }
    context: Document = {
        "@type": _TLS,
        "common_tls_context": {
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": [san]},
                "validation_context_sds_secret_config": {
                    "name": CA_SECRET,
                    "sds_config": {"ads": {}, "resource_api_version": "V3"},
                },
            },
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        },
    }
    if not endpoint.is_ip:
        context["sni"] = endpoint.host
    return {"name": "envoy.transport_sockets.tls", "typed_config": context}


def _lb_endpoint(endpoint: Endpoint, *, several: bool) -> Document:
    document: Document = {
        "endpoint": {
            "address": {"socket_address": {"address": endpoint.host, "port_value": endpoint.port}},
            "hostname": endpoint.authority,
        }
    }
    if endpoint.weight is not None:
        document["load_balancing_weight"] = endpoint.weight
    if several and endpoint.scheme == "https":
        document["metadata"] = {
            "filter_metadata": {"envoy.transport_socket_match": {"tls": endpoint.host}}
        }
    return document


def _transport(endpoints: Sequence[Endpoint]) -> Document:
    """How to speak to the endpoints: TLS names differ by host, so several hosts are told apart."""
    secure = {one.host: one for one in endpoints if one.scheme == "https"}
    if not secure:
        return {}
    if len(endpoints) == 1:
        return {"transport_socket": _tls_context(endpoints[0])}
    return {
        "transport_socket_matches": [
            {"name": host, "match": {"tls": host}, "transport_socket": _tls_context(one)}
            for host, one in secure.items()
        ]
    }


def cluster_document(
    endpoints: Sequence[Endpoint], connect_timeout_s: float, asked: Connections = _PLAIN
) -> Document:
    """The Envoy cluster of `endpoints`; its name is a digest of all that it is.

    `asked`: what the policies of its routes ask for.
    """
    several = len(endpoints) > 1
    resolved = all(one.is_ip for one in endpoints)
    secure = any(one.scheme == "https" for one in endpoints)
    protocol: Document = (
        {"auto_config": {"http_protocol_options": {}, "http2_protocol_options": {}}}
        if secure
        else {"explicit_http_config": {"http_protocol_options": {}}}
    )
    document: Document = {
        "type": "STATIC" if resolved else "STRICT_DNS",
        "connect_timeout": duration(connect_timeout_s),
        "load_assignment": {
            "endpoints": [
                {"lb_endpoints": [_lb_endpoint(one, several=several) for one in endpoints]}
            ]
        },
        "typed_extension_protocol_options": {
            _HTTP_OPTIONS: {
                "@type": f"type.googleapis.com/{_HTTP_OPTIONS}",
                # below the keep-alive of common servers, so that Envoy closes first
                "common_http_protocol_options": {"idle_timeout": "55s"},
                **protocol,
                **_upstream_filters(asked),
            }
        },
        "circuit_breakers": {"thresholds": [_thresholds(asked)]},
        **_transport(endpoints),
    }
    if not resolved:
        # a name that does not resolve must not hold back the configuration of the others
        document |= {
            "dns_lookup_family": "V4_PREFERRED",
            "wait_for_warm_on_init": False,
        }
    if several:
        document["lb_policy"] = "LEAST_REQUEST"
        document["outlier_detection"] = {
            "consecutive_5xx": 0,
            "enforcing_consecutive_5xx": 0,
            "consecutive_gateway_failure": 5,
            "enforcing_consecutive_gateway_failure": 100,
            "enforcing_success_rate": 0,
            "split_external_local_origin_errors": True,
            "consecutive_local_origin_failure": 3,
            "enforcing_consecutive_local_origin_failure": 100,
            "enforcing_local_origin_success_rate": 0,
            "interval": "2s",
            "base_ejection_time": "10s",
            "max_ejection_percent": 50,
        }
    if asked.outliers is not None:
        document["outlier_detection"] = asked.outliers
        # what has failed stays out, even if nothing else is left
        document["common_lb_config"] = {"healthy_panic_threshold": {"value": 0}}
    digest = hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
    name = f"{endpoints[0].host}-{digest}"
    document["name"] = document["load_assignment"]["cluster_name"] = name
    return document


def _thresholds(asked: Connections) -> Document:
    retries: Document = {
        "retry_budget": {"budget_percent": {"value": 20}, "min_retry_concurrency": 3}
    }
    return {
        "max_connections": 10_000,
        "max_pending_requests": 10_000,
        "max_requests": 20_000,
        **({} if "max_retries" in asked.limits else retries),  # a budget would overrule the number
        **asked.limits,
    }


def _upstream_filters(asked: Connections) -> Document:
    if not asked.filters:
        return {}
    filters = [{"name": one.name, "typed_config": one.config} for one in asked.filters]
    last = {"name": "upstream-codec", "typed_config": {"@type": _CODEC}}
    return {"http_filters": [*filters, last]}


def service_cluster(service: Service, connect_timeout_s: float) -> Document:
    """The Envoy cluster of a server that policies call."""
    endpoint = _endpoint(service.url)
    document = cluster_document([endpoint], connect_timeout_s)
    if endpoint.scheme == "https" and (service.authorities or not service.verify):
        tls = document["transport_socket"]["typed_config"]["common_tls_context"]
        combined = tls.pop("combined_validation_context")["default_validation_context"]
        if service.verify:
            authorities = {"trusted_ca": {"inline_string": service.authorities}}
            tls["validation_context"] = combined | authorities
    document["name"] = document["load_assignment"]["cluster_name"] = service.cluster
    return document


class Upstreams:
    """Where one site of an API leads, and the clusters that its routes need."""

    def __init__(self, spec: RestApiSpec, upstream: Upstream, connect_timeout_s: float) -> None:
        self._spec = spec
        self._upstream = upstream
        self._connect_timeout_s = connect_timeout_s
        self._targets: dict[tuple[str | None, str], Target] = {}
        self.clusters: dict[str, Document] = {}

    def target(self, name: str | None = None, asked: Connections = _PLAIN) -> Target:
        """The upstream definition `name`, None: the site's own. Raises ValueError without one."""
        key = (name, "" if asked == _PLAIN else repr(asked))
        if key not in self._targets:
            upstream = (
                self._upstream
                if name is None
                else Upstream(ref=name, host_rewrite=self._upstream.host_rewrite)
            )
            target, document = resolve(self._spec, upstream, self._connect_timeout_s, asked)
            self.clusters[target.cluster] = document
            self._targets[key] = target
        return self._targets[key]


def resolve(
    spec: RestApiSpec, upstream: Upstream, connect_timeout_s: float, asked: Connections = _PLAIN
) -> tuple[Target, Document]:
    """Where `upstream` leads, and the cluster that it needs. Raises ValueError for a bad `ref`."""
    base_path = ""
    if upstream.url is not None:
        endpoints = [_endpoint(upstream.url)]
        base_path = urlsplit(upstream.url).path
    else:
        definition = spec.definition(upstream.ref or "")
        if definition is None:
            raise ValueError(f"Referenced upstream definition {upstream.ref!r} not found")
        endpoints = [
            _endpoint(one.url, one.weight) for one in definition.upstreams if one.weight != 0
        ]
        base_path = definition.base_path or ""
        if definition.timeout is not None and definition.timeout.connect is not None:
            connect_timeout_s = duration_s(definition.timeout.connect)
    document = cluster_document(endpoints, connect_timeout_s, asked)
    authorities = {one.authority for one in endpoints}
    target = Target(
        cluster=document["name"],
        base_path=base_path.rstrip("/"),
        authority=authorities.pop() if len(authorities) == 1 else None,
        rewrite_host=upstream.host_rewrite == "auto",
        several=len(endpoints) > 1,
    )
    return target, document
