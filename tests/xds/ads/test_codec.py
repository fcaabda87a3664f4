"""Where a router says that it listens instead."""

from typing import Any

import pytest

from xds.ads.codec import PORTS, decode, encode
from xds.ads.protocol import CLUSTER, LISTENER, Resource, Response
from xds.wire.messages import message_class

REQUEST = message_class("envoy.service.discovery.v3.DeltaDiscoveryRequest")
RESPONSE = message_class("envoy.service.discovery.v3.DeltaDiscoveryResponse")
LISTENER_MESSAGE = message_class("envoy.config.listener.v3.Listener")


@pytest.mark.parametrize(
    ("metadata", "ports"),
    [
        ({}, {}),
        ({PORTS: {"http": 8081, "https": 8444}}, {"http": 8081, "https": 8444}),
        ({PORTS: {"http": 0, "https": 70_000, "x": "8081", "y": None}}, {}),
        ({PORTS: "8081"}, {}),
    ],
)
def test_what_is_no_port_is_left_out(metadata: dict[str, Any], ports: dict[str, int]) -> None:
    request = REQUEST(node={"id": "second"})
    request.node.metadata.update(metadata)
    _, router = decode(request.SerializeToString())
    assert router is not None
    assert (router.node, router.ports) == ("second", ports)


def test_only_the_listeners_that_it_names_are_moved() -> None:
    def listener(name: str) -> Resource:
        message = LISTENER_MESSAGE(name=name)
        message.address.socket_address.address = "0.0.0.0"
        message.address.socket_address.port_value = 8080
        return Resource(LISTENER, name, "v", message.SerializeToString())

    upserts = (listener("http"), listener("https"), Resource(CLUSTER, "http", "v", b""))
    response = Response(LISTENER, "1", upserts)
    sent = RESPONSE.FromString(encode(response, {"http": 8081}))
    found = [LISTENER_MESSAGE.FromString(one.resource.value) for one in sent.resources[:2]]
    assert [one.address.socket_address.port_value for one in found] == [8081, 8080]
    assert sent.resources[2].resource.value == b""
