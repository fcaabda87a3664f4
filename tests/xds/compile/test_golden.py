"""What APIs compile to, in files: `pytest --accept` rewrites them, a human reads the diff."""

from collections.abc import Callable
from pathlib import Path

import betterproto2
import pytest
import yaml
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.route.v3 import ScopedRouteConfiguration

from policy_engine.catalogue import load
from policy_engine.policy import Credential
from tests.xds.routing import api, scopes
from xds.compile.api import compile_api
from xds.compile.clusters import CLUSTER
from xds.compile.scopes import SCOPE
from xds.settings import XdsSettings
from xds.wire.messages import encode

CASES = sorted((Path(__file__).parent / "golden").glob("*.in.yaml"))
SETTINGS = XdsSettings(matcher_tree_threshold=4)
KEYS = (Credential("ab" * 32, "billing"), Credential("cd" * 32, "portal"))


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name.removesuffix(".in.yaml"))
def test_golden(case: Path, golden: Callable[[Path, object], None]) -> None:
    catalogue = load()
    compiled = [
        compile_api(api(yaml.safe_dump(document)), 1, KEYS, catalogue, SETTINGS)
        for document in yaml.safe_load_all(case.read_text())
    ]
    clusters = {name: one for api in compiled for name, one in sorted(api.clusters.items())}
    routes = scopes(compiled, SETTINGS)[1:]  # the first is the gateway's own

    golden(
        case.with_name(case.name.replace(".in.yaml", ".out.json")),
        {"scopes": routes, "clusters": list(clusters.values())},
    )
    readers: list[tuple[str, type[betterproto2.Message], list[dict[str, object]]]] = [
        (SCOPE, ScopedRouteConfiguration, routes),
        (CLUSTER, Cluster, list(clusters.values())),
    ]
    for message, reader, documents in readers:
        for document in documents:
            body = encode(message, document)
            assert reader.parse(body).name == document["name"]  # an independent reading agrees
