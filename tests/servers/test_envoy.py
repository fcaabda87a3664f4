from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.servers.envoy import EnvoyFailed, envoy
from tests.servers.http_backend import http_backend


def plain_routing(port: int) -> dict[str, Any]:
    router = {
        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
    }
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network"
        ".http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "http",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "up"}}],
                }
            ]
        },
        "http_filters": [{"name": "router", "typed_config": router}],
    }

    def address(port: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    return {
        "static_resources": {
            "listeners": [
                {
                    "name": "http",
                    "address": address(0),
                    "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
                }
            ],
            "clusters": [
                {
                    "name": "up",
                    "type": "STATIC",
                    "load_assignment": {
                        "cluster_name": "up",
                        "endpoints": [
                            {"lb_endpoints": [{"endpoint": {"address": address(port)}}]},
                        ],
                    },
                }
            ],
        }
    }


async def test_a_request_passes_through_envoy_to_the_backend() -> None:
    async with http_backend() as backend, envoy(plain_routing(backend.port)) as router:
        url = f"http://127.0.0.1:{await router.port('http')}/orders?size=2"
        async with httpx.AsyncClient() as client:
            answer = await client.post(url, content=b"hello", headers={"x-a": "1"})

        assert answer.json()["path"] == "/orders?size=2"
        assert backend.last.method == "POST"
        assert backend.last.body == b"hello"
        assert backend.last.header("x-a") == "1"
        assert (await router.stats("http.http.downstream_rq_2xx"))[
            "http.http.downstream_rq_2xx"
        ] == 1


async def test_a_bootstrap_that_envoy_refuses_is_told_in_its_own_words() -> None:
    with pytest.raises(EnvoyFailed, match="'nonsense'"):
        async with envoy({"nonsense": 1}):
            pass


async def test_envoy_is_gone_when_the_context_ends() -> None:
    async with envoy({}) as router:
        pid = router.pid
    assert not Path(f"/proc/{pid}/cmdline").exists()


def test_a_golden_file_that_differs_fails(
    tmp_path: Path, golden: Callable[[Path, object], None], accept: bool
) -> None:
    if accept:
        pytest.skip("everything is accepted")
    kept = tmp_path / "kept.json"
    kept.write_text('{\n  "a": 1\n}\n')
    golden(kept, {"a": 1})
    with pytest.raises(AssertionError):
        golden(kept, {"a": 2})
    with pytest.raises(AssertionError, match="is missing"):
        golden(tmp_path / "none.json", {})
