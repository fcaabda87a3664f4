"""Requests and responses of delta ADS as bytes.

Source: https://www.envoyproxy.io/docs/envoy/latest/api-v3/service/discovery/v3/discovery.proto
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from xds.ads.protocol import LISTENER, SCOPE, Request, Response
from xds.wire.messages import message_class

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHOD = "DeltaAggregatedResources"
PORTS = "ports"
"""The key of a node's metadata that holds Router.ports."""
_REQUEST = "envoy.service.discovery.v3.DeltaDiscoveryRequest"
_RESPONSE = "envoy.service.discovery.v3.DeltaDiscoveryResponse"


class Router(NamedTuple):
    """Who opened the stream."""

    node: str
    version: str  # Envoy's, as in 1.40.0; empty when it does not say
    ports: Mapping[str, int] = MappingProxyType({})
    """Where it listens instead, by the listener's name: two routers of one machine differ in it."""


class NotARequest(ValueError):
    """The bytes are no DeltaDiscoveryRequest."""


def decode(body: bytes) -> tuple[Request, Router | None]:
    """A request, and who sent it: only the first of a stream says. Raises NotARequest."""
    try:
        message = message_class(_REQUEST).FromString(body)
    except DecodeError as error:
        raise NotARequest(str(error)) from error
    refused = message.HasField("error_detail")
    request = Request(
        type_url=message.type_url,
        subscribe=tuple(message.resource_names_subscribe),
        unsubscribe=tuple(message.resource_names_unsubscribe),
        initial_versions=dict(message.initial_resource_versions),
        nonce=message.response_nonce,
        error=(message.error_detail.message or "no reason given") if refused else None,
    )
    if not message.HasField("node"):
        return request, None
    version = message.node.user_agent_build_version.version
    said = (version.major_number, version.minor_number, version.patch)
    version_text = ".".join(map(str, said)) if any(said) else ""
    return request, Router(message.node.id, version_text, _ports(message.node.metadata))


def _ports(metadata: Mapping[str, Any]) -> Mapping[str, int]:
    given = dict(metadata.items()).get(PORTS)
    if not isinstance(given, Mapping):
        return {}
    return {
        name: int(port)
        for name, port in given.items()
        if isinstance(port, float) and 0 < port < 65_536
    }


def encode(response: Response, ports: Mapping[str, int] = MappingProxyType({})) -> bytes:
    """A response to a router that listens at `ports`."""
    message = message_class(_RESPONSE)(
        type_url=response.type_url,
        nonce=response.nonce,
        removed_resources=response.removals,
        system_version_info=str(response.change.sequence),
    )
    for one in response.upserts:
        entry = message.resources.add(name=one.name, version=one.version)
        entry.resource.type_url = one.type_url
        again = one.type_url == SCOPE and one.name in response.again
        entry.resource.value = _retouched(one.body, response.nonce) if again else one.body
        if one.type_url == LISTENER and one.name in ports:
            entry.resource.value = _moved(one.body, ports[one.name])
    body: bytes = message.SerializeToString()
    return body


def _moved(listener: bytes, port: int) -> bytes:
    message = message_class(LISTENER.rpartition("/")[2]).FromString(listener)
    message.address.socket_address.port_value = port
    body: bytes = message.SerializeToString(deterministic=True)
    return body


def _retouched(scope: bytes, nonce: str) -> bytes:
    """A scope that Envoy takes for a new one, though it says the same.

    When Envoy 1.40.0 refuses a response it has already put the scopes before the culprit into its
    own table, but gives none of them to its workers; sent again as they were, they would be
    acknowledged as known and never be served.
    """
    message = message_class(SCOPE.rpartition("/")[2]).FromString(scope)
    if message.HasField("route_configuration"):
        metadata = message.route_configuration.metadata.filter_metadata
        metadata["signalbox.sent-again"].update({"nonce": nonce})
    body: bytes = message.SerializeToString(deterministic=True)
    return body
