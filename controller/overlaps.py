"""Which APIs would take each other's requests: one context, one host, one operation."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from bus.resources.rest_api import GATEWAY_DEFAULT_VHOST, RestApi
from controller.errors import Conflict
from controller.model import StoredApi

_DEFAULT_SANDBOX = "the gateway's sandbox"  # no host can be called so
_PORT = re.compile(r":[0-9]+$")


def refuse_overlap(api: RestApi, document: Mapping[str, Any], others: Iterable[StoredApi]) -> None:
    """Raise Conflict if one of `others`, deployed on the context of `api`, serves one of its
    operations on one of its hosts. `document` is what `api` was read from.
    """
    hosts = _hosts(document["spec"])
    shapes = {one.matcher.shape for one in api.spec.operations}
    for other in others:
        if other.handle == api.id:
            continue
        theirs = other.document()
        if hosts.isdisjoint(_hosts(theirs["spec"])):
            continue
        for operation in RestApi.model_validate(theirs, by_name=False).spec.operations:
            matcher = operation.matcher
            if matcher.shape in shapes:
                context = "" if other.context == "/" else other.context
                raise Conflict(
                    f"Operation {matcher.method} {context}{matcher.path.value} is already served "
                    f"by API '{other.handle}' on the same context and host"
                )


def _hosts(spec: Mapping[str, Any]) -> frozenset[str]:
    """The hosts of the production and of the sandbox upstream, without ports, in lower case.

    A wildcard and a host under it do not meet: the more specific host goes first at the router.
    """
    vhosts = spec.get("vhosts") or {}
    hosts = set(vhosts.get("main", GATEWAY_DEFAULT_VHOST).split(";"))
    if spec["upstream"].get("sandbox"):
        sandbox = vhosts.get("sandbox", GATEWAY_DEFAULT_VHOST)
        hosts.add(_DEFAULT_SANDBOX if sandbox == GATEWAY_DEFAULT_VHOST else sandbox)
    names = (_PORT.sub("", host.strip().lower()) for host in hosts)
    return frozenset(GATEWAY_DEFAULT_VHOST if name == "*" else name for name in names)
