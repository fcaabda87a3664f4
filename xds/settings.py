"""Settings of the router and of the service that configures it."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from policy_engine.parameters.headers import editable, holds_secret


def _recordable(name: str) -> str:
    if editable(name) and holds_secret(name):
        raise ValueError(f"{name!r} holds secrets and is never recorded")
    return name.lower()


UsageHeader = Annotated[str, AfterValidator(_recordable)]


class XdsSettings(BaseModel):
    """TOML table `[xds]`; each field is also the environment variable `SIGNALBOX_<FIELD>`."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    http_address: str = "0.0.0.0"  # noqa: S104  (a gateway is there to be reached)
    """Address the router listens on for HTTP and HTTPS; `127.0.0.1` keeps it on this machine."""

    http_port: int = Field(default=8080, ge=0, le=65535)
    """Port of the router for HTTP. 0 switches HTTP off."""

    https_port: int = Field(default=8443, ge=0, le=65535)
    """Port of the router for HTTPS. 0 switches HTTPS off."""

    tls_certificate_file: Path | None = None
    """PEM file of the HTTPS certificate chain. Unset: a development certificate is generated."""

    tls_key_file: Path | None = None
    """PEM file of the private key of `tls_certificate_file`."""

    envoy_admin_port: int = Field(default=9901, ge=0, le=65535)
    """Port of Envoy's own admin interface, always on the loopback address."""

    envoy_concurrency: int = Field(default=2, ge=1)
    """Worker threads of the router. More serve more cores and cost about 1 MB each."""

    xds_address: str = "127.0.0.1"
    """Address of the configuration service (ADS) for routers on other machines. Any but a loopback
    address needs `xds_tls_certificate_file` and `xds_client_ca_file`."""

    xds_port: int = Field(default=0, ge=0, le=65535)
    """TCP port of the configuration service; 18000 is usual. 0: only the Unix socket, for a router
    beside it."""

    xds_tls_certificate_file: Path | None = None
    """PEM file of the certificate chain that the configuration service shows to routers on its TCP
    port; on the machine of a router, the one that the router shows. Unset: no TLS."""

    xds_tls_key_file: Path | None = None
    """PEM file of the private key of `xds_tls_certificate_file`."""

    xds_client_ca_file: Path | None = None
    """PEM file of who signs routers' certificates; routers without one are turned away, for the
    configuration holds what opens APIs. Unset: any router is served."""

    xds_server_ca_file: Path | None = None
    """PEM file of who signed the configuration service's certificate, for `signalbox run router`,
    which then connects by TLS. Unset: no TLS, for a service on the same machine."""

    xds_socket: Path | None = None
    """Unix socket of the configuration service. Unset: a socket in the data folder."""

    gateway_domains: tuple[str, ...] = ("*",)
    """Hosts that APIs without vhosts, or with `_gateway_default_`, answer on."""

    gateway_sandbox_domains: tuple[str, ...] = ("sandbox.*",)
    """Hosts that lead to the sandbox upstream of APIs that name no sandbox vhost."""

    upstream_timeout_s: float = Field(default=60, ge=0)
    """Time for a whole upstream answer, seconds, where an API says nothing. 0 waits for ever."""

    upstream_idle_timeout_s: float = Field(default=300, ge=0)
    """Time without a byte on a request, seconds, where an API says nothing. 0 waits for ever."""

    upstream_connect_timeout_s: float = Field(default=5, gt=0)
    """Time to connect to an upstream, seconds, where an upstream definition says nothing."""

    upstream_retries: int = Field(default=1, ge=0, le=10)
    """Retries of requests that provably did not reach the upstream. 0 switches retries off."""

    upstream_ca_file: Path | None = None
    """PEM bundle that HTTPS upstreams are verified with. Unset: the system's, else Mozilla's."""

    trusted_proxies: int = Field(default=0, ge=0)
    """Proxies in front whose X-Forwarded-For is believed. 0: the peer is the client."""

    underscore_headers: Literal["allow", "drop", "reject"] = "reject"
    """What to do with request headers whose name holds an underscore; upstreams that treat
    `_` and `-` alike can be deceived by them."""

    escaped_slashes: Literal["keep", "reject", "redirect", "forward"] = "redirect"
    """Requests with %2F or %5C in the path: keep as is, answer 400, redirect to the unescaped
    path, or unescape and forward. Keeping them can deceive path matching."""

    max_request_headers_kb: int = Field(default=60, ge=1, le=8192)
    """Size of all request headers together, KiB; above: 431."""

    downstream_idle_timeout_s: float = Field(default=300, gt=0)
    """Time without a byte on a request from a client, seconds, before it ends."""

    max_downstream_connections: int = Field(default=50_000, ge=1)
    """Connections from clients at the same time; more are refused."""

    engine_max_body_bytes: int = Field(default=1 << 20, ge=1 << 10)
    """Longest body of a request that Python policies get as a whole, bytes. Longer requests are
    answered with 413. Routes without such policies are not limited by it. Each request in flight
    may hold as much in memory, in the router and in a worker of the engine."""

    engine_max_answer_bytes: int = Field(default=4 << 20, ge=1 << 10)
    """Longest body of an answer that Python policies get as a whole, bytes: as long as nothing of
    it is on its way, a refusal has a status of its own. Longer answers pass where the policies fail
    open, else the caller gets 502; to policies that take chunks they come in chunks, if they say
    their length. Event streams are never kept back for it. Each answer in flight may hold as much
    in memory, in the router and in a worker of the engine."""

    engine_wake_max_s: float = Field(default=30.0, ge=0)
    """Time that the first Python policy of a gateway waits for the engine's workers to wake up,
    seconds, so that no request has to. What routers have of the API stays in force meanwhile, other
    APIs do not wait. Longer spares requests on busy machines, shorter brings the change to routers
    where workers cannot start. Only where one process makes the routers' configuration and tells
    the workers."""

    max_heap_mb: int = Field(default=1024, ge=64)
    """Memory at which the router stops taking requests, MiB; at 95 % it gives memory back."""

    usage_request_headers: tuple[UsageHeader, ...] = ()
    """Request headers that usage events record, such as `user-agent`; none that hold secrets.
    Each makes events longer. The policy `analytics-header-filter` narrows it for an API."""

    usage_response_headers: tuple[UsageHeader, ...] = ()
    """Response headers that usage events record, such as `content-type`."""

    key_issuer_required: str = ""
    """Issuer whose API keys open APIs; keys of other issuers are refused. Empty: any issuer.

    Set it to the controller's `api_key_issuer` when other systems issue keys of their own.
    """

    matcher_tree_threshold: int = Field(default=16, ge=2)
    """Routes in one virtual host above which they are looked up by a prefix tree."""
