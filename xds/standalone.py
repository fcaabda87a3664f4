"""APIs as a whole configuration of one router, which asks nobody for more: for a trial of it.

Secrets and certificates are named, not contained.
"""

from collections.abc import Sequence
from typing import Any

from xds.compile.api import CompiledApi
from xds.compile.scopes import (
    ROOT_SEGMENT,
    host_pattern,
    member,
    overlap,
    scope_document,
    segments_of,
    takes_hosts_whole,
)
from xds.listener import listeners
from xds.settings import XdsSettings

Document = dict[str, Any]


def standalone(
    apis: Sequence[CompiledApi], settings: XdsSettings, local_reply: Document | None
) -> Document:
    """A bootstrap with a listener, the scopes and the clusters of `apis`."""
    here = settings.model_copy(
        update={"http_address": "127.0.0.1", "http_port": 1, "https_port": 0}
    )
    hosts = [host for one in apis if takes_hosts_whole(one) for host in one.hosts]
    root_hosts = (host_pattern(hosts) or "") if hosts else None
    (listener,) = listeners(here, access_log=None, local_reply=local_reply, root_hosts=root_hosts)
    listener["address"]["socket_address"]["port_value"] = 0
    scoped = listener["filter_chains"][0]["filters"][0]["typed_config"]["scoped_routes"]
    del scoped["scoped_rds"]
    scoped["scoped_route_configurations_list"] = {
        "scoped_route_configurations": scopes(apis, settings.matcher_tree_threshold)
    }
    clusters = {name: document for one in apis for name, document in one.clusters.items()}
    return {"static_resources": {"listeners": [listener], "clusters": list(clusters.values())}}


def scopes(apis: Sequence[CompiledApi], tree_threshold: int) -> list[Document]:
    """The scopes of `apis`, as they would be published, by segment."""
    root_hosts = frozenset(host for one in apis if takes_hosts_whole(one) for host in one.hosts)
    inside: dict[str, list[CompiledApi]] = {}
    for one in apis:
        for segment in segments_of(one):
            inside.setdefault(segment, []).append(one)
        if root_hosts and overlap(one.hosts, root_hosts):
            inside.setdefault(ROOT_SEGMENT, []).append(one)
    made = []
    for segment, those in sorted(inside.items()):
        members = [one for one in (member(api, segment) for api in those) if one.routes]
        if members:
            made.append(scope_document(segment, members, tree_threshold))
    return made
