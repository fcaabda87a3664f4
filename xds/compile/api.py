"""One API as Envoy sees it, before it shares a scope with others.

`compile_api` is pure. Its result holds routes without hosts; `xds.compile.scopes` puts them in
virtual hosts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from bus.resources.rest_api import Operation, PolicyRef, RestApi
from policy_engine.attached import Attached
from policy_engine.chain import Chain, compile_chain
from policy_engine.errors import PolicyError
from policy_engine.policy import Credential, Level, Scope
from policy_engine.subscriptions import Subscriber
from policy_engine.system import SystemParameters
from xds.compile.clusters import Upstreams, service_cluster
from xds.compile.hosts import served_on
from xds.compile.routes import Site
from xds.compile.site import SiteWriter, looked_for_again
from xds.compile.slots import Layout
from xds.errors import NotCompiled
from xds.settings import XdsSettings

Document = dict[str, Any]


class Catalogue(Protocol):
    """Where policies come from."""

    @property
    def system(self) -> SystemParameters:
        """What whoever runs the gateway tells them."""
        ...

    def attach(self, ref: PolicyRef) -> Attached:
        """The policy that `ref` names, as it stands there. Raises PolicyError."""
        ...


@dataclass(frozen=True, slots=True)
class CompiledApi:
    """All that an API is to Envoy."""

    api_id: str
    revision: int
    context: str  # resolved; empty for the root
    sites: tuple[Site, ...]
    chain: Mapping[str, Document]  # typed_per_filter_config of the API level
    clusters: Mapping[str, Document] = field(default_factory=dict)  # name -> Cluster
    secrets: Mapping[str, Document] = field(default_factory=dict)  # name -> Secret

    @property
    def hosts(self) -> frozenset[str]:
        """Every host the API answers on; `*` is any."""
        return frozenset(host for site in self.sites for host in site.hosts)


def compile_api(
    api: RestApi,
    revision: int,
    credentials: tuple[Credential, ...],
    catalogue: Catalogue,
    settings: XdsSettings,
    subscribers: tuple[Subscriber, ...] = (),
) -> CompiledApi:
    """`api` as Envoy routes, chains and clusters. Raises NotCompiled."""
    spec = api.spec
    context = "" if spec.resolved_context == "/" else spec.resolved_context
    if spec.deployment_state == "undeployed":
        return CompiledApi(api.id, revision, context, (), {})
    try:
        return _compile(api, revision, context, credentials, catalogue, settings, subscribers)
    except (PolicyError, ValueError) as error:
        raise NotCompiled(api.id, str(error)) from error


def _compile(
    api: RestApi,
    revision: int,
    context: str,
    credentials: tuple[Credential, ...],
    catalogue: Catalogue,
    settings: XdsSettings,
    subscribers: tuple[Subscriber, ...],
) -> CompiledApi:
    spec = api.spec

    below = frozenset(ref.name for one in spec.operations for ref in one.policies)

    def chain_of(
        refs: Sequence[PolicyRef], level: Level, operation: Operation | None = None
    ) -> Chain:
        scope = Scope(
            level=level,
            api_id=api.id,
            api_name=spec.display_name,
            api_version=spec.version,
            context=context or "/",
            credentials=credentials,
            key_issuer=settings.key_issuer_required or None,
            subscriptions=subscribers,
            system=catalogue.system,
            upstreams=tuple(one.name for one in spec.upstream_definitions),
            below=below if level == "api" else frozenset(),
            operation_method=None if operation is None else operation.matcher.method,
            operation_path=None if operation is None else _pattern(operation),
        )
        return compile_chain((catalogue.attach(ref) for ref in refs), scope)

    api_chain = chain_of(spec.policies, "api")
    operation_chains = [chain_of(one.policies, "operation", one) for one in spec.operations]
    clusters = {
        service.cluster: service_cluster(service, settings.upstream_connect_timeout_s)
        for chain in (api_chain, *operation_chains)
        for service in chain.services
    }
    # where a route may be looked for again, the first slot tells which one it was
    again = any(looked_for_again(spec, chain) for chain in (api_chain, *operation_chains))
    layout = Layout(api_chain.filters, start=1 if again else 0)
    sites: list[Site] = []
    for hosts, upstream in served_on(spec, settings):
        upstreams = Upstreams(spec, upstream, settings.upstream_connect_timeout_s)
        writer = SiteWriter(api, context, upstreams, api_chain, layout, settings)
        sites.append(Site(hosts, writer.routes(operation_chains)))
        clusters |= upstreams.clusters
    secrets = {
        one.name: {"name": one.name, "generic_secret": {"secret": {"inline_string": one.value}}}
        for chain in (api_chain, *operation_chains)
        for one in chain.secrets
    }
    return CompiledApi(api.id, revision, context, tuple(sites), layout.config, clusters, secrets)


def _pattern(operation: Operation) -> str:
    return "/" + "/".join(operation.matcher.path.segments)
