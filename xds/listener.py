"""The router's listeners: where requests come in, hardened as Envoy's edge guide says.

Nothing an ordinary change of an API does touches a listener: changing one drains connections.
Source: https://www.envoyproxy.io/docs/envoy/latest/configuration/best_practices/edge
"""

from typing import Any

from policy_engine.policy import typed
from xds.certificates import Certificate
from xds.compile.clusters import CA_SECRET
from xds.compile.durations import duration
from xds.compile.scopes import (
    HEALTH_SEGMENT,
    HOST_PATH_HEADER,
    PATH_HEADER,
    ROOT_SEGMENT,
    SCOPE_HEADER,
)
from xds.compile.slots import slots
from xds.settings import XdsSettings

Document = dict[str, Any]

LISTENER = "envoy.config.listener.v3.Listener"
SECRET = "envoy.extensions.transport_sockets.tls.v3.Secret"  # noqa: S105  (a message's name)
GATEWAY_SECRET = "gateway-certificate"  # noqa: S105  (a resource's name)
CLIENT_SECRET = "client-authorities"  # noqa: S105  (a resource's name)
_HCM = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_EXTENSION = "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"
_PRIVATE_PREFIX = "x-signalbox-"
_ADS: Document = {"ads": {}, "resource_api_version": "V3"}
_SLASHES = {
    "keep": "KEEP_UNCHANGED",
    "reject": "REJECT_REQUEST",
    "redirect": "UNESCAPE_AND_REDIRECT",
    "forward": "UNESCAPE_AND_FORWARD",
}
_UNDERSCORES = {"allow": "ALLOW", "drop": "DROP_HEADER", "reject": "REJECT_REQUEST"}


def listeners(
    settings: XdsSettings,
    *,
    access_log: Document | None,
    local_reply: Document | None,
    root_hosts: str | None = None,
    ask_for_certificates: bool = False,
) -> list[Document]:
    """The HTTP and the HTTPS listener, those with port 0 apart.

    `root_hosts`: RE2 of the hosts whose requests all go to the root scope; None: no host does;
    the empty string: all do. `ask_for_certificates`: callers over HTTPS may show one, which must
    then be of the authorities in the secret `CLIENT_SECRET`.
    """
    made = []
    if settings.http_port:
        manager = _connection_manager(settings, "http", access_log, local_reply, root_hosts)
        made.append(_listener(settings, "http", settings.http_port, {"filters": [manager]}))
    if settings.https_port:
        manager = _connection_manager(settings, "https", access_log, local_reply, root_hosts)
        chain = {"filters": [manager], "transport_socket": _tls(ask=ask_for_certificates)}
        made.append(_listener(settings, "https", settings.https_port, chain))
    return made


def gateway_secret(certificate: Certificate) -> Document:
    """The certificate of the HTTPS listener as an SDS secret."""
    return {
        "name": GATEWAY_SECRET,
        "tls_certificate": {
            "certificate_chain": {"inline_string": certificate.chain},
            "private_key": {"inline_string": certificate.key},
        },
    }


def authorities_secret(bundle: str) -> Document:
    """What HTTPS upstreams are verified with, as an SDS secret that all clusters share."""
    return {
        "name": CA_SECRET,
        "validation_context": {"trusted_ca": {"inline_string": bundle}},
    }


def client_authorities_secret(authorities: str, revocations: str) -> Document:
    """What certificates of callers are verified with, as an SDS secret; both PEM."""
    context: Document = {"trusted_ca": {"inline_string": authorities}}
    if revocations:
        context["crl"] = {"inline_string": revocations}
        context["only_verify_leaf_cert_crl"] = True
    return {"name": CLIENT_SECRET, "validation_context": context}


def _listener(settings: XdsSettings, name: str, port: int, chain: Document) -> Document:
    return {
        "name": name,
        "address": {"socket_address": {"address": settings.http_address, "port_value": port}},
        "filter_chains": [chain],
        "per_connection_buffer_limit_bytes": 32_768,
        "enable_reuse_port": True,
    }


def _tls(*, ask: bool) -> Document:
    common: Document = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [{"name": GATEWAY_SECRET, "sds_config": _ADS}],
    }
    context: Document = {"common_tls_context": common}
    if ask:
        common["validation_context_sds_secret_config"] = {
            "name": CLIENT_SECRET,
            "sds_config": _ADS,
        }
        # who was let in once is looked at again: a certificate may have been revoked meanwhile
        context["disable_stateless_session_resumption"] = True
        context["disable_stateful_session_resumption"] = True
    message = "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"
    return {"name": "envoy.transport_sockets.tls", "typed_config": typed(message, context)}


def _set(header: str, value: str) -> Document:
    return {
        "append": {
            "header": {"key": header, "value": value},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    }


def _early_mutations(root_hosts: str | None) -> list[Document]:
    """Our private headers: whatever a client sent of them is gone, the true ones are written."""
    mutations = [
        {"remove_on_match": {"key_matcher": {"prefix": _PRIVATE_PREFIX}}},
        _set(PATH_HEADER, "%PATH(NQ)%"),
        _set(HOST_PATH_HEADER, "%REQ(:AUTHORITY)%%PATH(NQ)%"),
    ]
    if root_hosts is not None:
        whole = f"!request.url_path.startsWith('/{HEALTH_SEGMENT}/')"
        if root_hosts:
            pattern = root_hosts.replace("\\", "\\\\").replace("'", "\\'")
            whole += f" && request.host.matches('{pattern}')"
        value = f"%CEL({whole} ? '/{ROOT_SEGMENT}' : request.url_path)%"
        mutations.append(_set(SCOPE_HEADER, value))
    return mutations


def _connection_manager(
    settings: XdsSettings,
    name: str,
    access_log: Document | None,
    local_reply: Document | None,
    root_hosts: str | None,
) -> Document:
    scope_header = PATH_HEADER if root_hosts is None else SCOPE_HEADER
    idle = duration(settings.downstream_idle_timeout_s)
    manager: Document = {
        "stat_prefix": name,
        "codec_type": "AUTO",
        "scoped_routes": {
            "name": "apis",
            "scope_key_builder": {
                "fragments": [
                    {
                        "header_value_extractor": {
                            "name": scope_header,
                            "element_separator": "/",
                            "index": 1,
                        }
                    }
                ]
            },
            "rds_config_source": _ADS,
            "scoped_rds": {"scoped_rds_config_source": _ADS},
        },
        "early_header_mutation_extensions": [
            {
                "name": "private-headers",
                "typed_config": typed(_EXTENSION, {"mutations": _early_mutations(root_hosts)}),
            }
        ],
        "use_remote_address": True,
        "xff_num_trusted_hops": settings.trusted_proxies,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": _SLASHES[settings.escaped_slashes],
        "strip_any_host_port": True,
        "forward_client_cert_details": "SANITIZE",
        "server_name": "signalbox",
        "max_request_headers_kb": settings.max_request_headers_kb,
        "common_http_protocol_options": {
            "idle_timeout": "3600s",
            "headers_with_underscores_action": _UNDERSCORES[settings.underscore_headers],
            "max_headers_count": 100,
        },
        "http2_protocol_options": {
            "max_concurrent_streams": 100,
            "initial_stream_window_size": 65_536,
            "initial_connection_window_size": 1_048_576,
        },
        "stream_idle_timeout": idle,
        "request_timeout": idle,
        "request_headers_timeout": "10s",
        "delayed_close_timeout": "1s",
        "drain_timeout": "5s",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "http_filters": [
            *slots(),
            {
                "name": "router",
                "typed_config": typed(
                    "envoy.extensions.filters.http.router.v3.Router",
                    {"suppress_envoy_headers": True},
                ),
            },
        ],
    }
    if access_log is not None:
        manager["access_log"] = [access_log]
    if local_reply is not None:
        manager["local_reply_config"] = local_reply
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": typed(_HCM, manager),
    }
