import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from bus.events import ApiKeyIssued, ApiKeyRevoked, ApiPublished, ApiRetired
from bus.memory import MemoryBus
from bus.resources.api_key import ApiKey
from bus.resources.rest_api import RestApi
from policy_engine.catalogue import load
from policy_engine.engine.errors import AddressUnusable
from policy_engine.engine.service import run
from policy_engine.engine.settings import EngineSettings

DEADLINE_S = 20


def api(**spec: Any) -> RestApi:
    base = {
        "displayName": "Orders",
        "version": "v1.0",
        "context": "/orders/$version",
        "upstream": {"main": {"url": "http://upstream.example:8080/base"}},
        "operations": [
            {"method": "GET", "path": "/{id}"},
            {
                "method": "POST",
                "path": "/",
                "policies": [{"name": "respond", "version": "v1", "params": {"statusCode": 204}}],
            },
        ],
        "policies": [
            {
                "name": "api-key-auth",
                "version": "v1",
                "params": {"key": "API-Key", "in": "header"},
                "executionCondition": "request.Method == 'GET'",
            }
        ],
    }
    return RestApi.model_validate(
        {
            "apiVersion": "gateway.api-platform.wso2.com/v1",
            "kind": "RestApi",
            "metadata": {"name": "orders"},
            "spec": base | spec,
        }
    )


def key(name: str = "one") -> ApiKey:
    return ApiKey(api_id="orders", name=name, digest="0" * 64, application="Shop")


class Engine:
    """A running engine and clients of its two ports."""

    def __init__(self, bus: MemoryBus, admin: httpx.AsyncClient, metrics: httpx.AsyncClient):
        self.bus, self.admin, self.metrics = bus, admin, metrics

    async def version(self, wanted: str) -> None:
        """Wait until it has folded the state of that version."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                status = (await self.admin.get("/xds_sync_status")).json()
                if status["policy_chain_version"] == wanted:
                    return
                await asyncio.sleep(0.01)

    async def dump(self) -> dict[str, Any]:
        answer = await self.admin.get("/config_dump")
        assert answer.status_code == 200
        return dict(answer.json())


@asynccontextmanager
async def engine(bus: MemoryBus, **settings: Any) -> AsyncIterator[Engine]:
    ports: asyncio.Future[tuple[int, int]] = asyncio.get_running_loop().create_future()
    ready = asyncio.Event()
    chosen = EngineSettings(engine_admin_port=0, engine_metrics_port=0, **settings)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(
            run(
                chosen,
                bus,
                load(()),
                ready.set,
                listening=lambda admin, metrics: ports.set_result((admin, metrics)),
            )
        )
        async with asyncio.timeout(DEADLINE_S):
            admin, metrics = await ports
            await ready.wait()
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{admin}") as admin_client,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{metrics}") as metrics_client,
        ):
            yield Engine(bus, admin_client, metrics_client)
        task.cancel()


async def test_health_says_healthy_and_may_only_be_asked() -> None:
    async with engine(MemoryBus()) as running:
        assert (await running.admin.get("/health")).json()["status"] == "healthy"
        for path in ("/health", "/xds_sync_status", "/config_dump"):
            refused = await running.admin.post(path)
            assert refused.status_code == 405
            assert refused.json()["status"] == "error"
        assert (await running.admin.get("/nothing")).status_code == 404


async def test_what_was_there_before_the_start_is_known_when_it_is_ready() -> None:
    bus = MemoryBus()
    await bus.publish(ApiPublished(revision=3, api=api()))
    async with engine(bus) as running:
        status = (await running.admin.get("/xds_sync_status")).json()
        assert status["policy_chain_version"] == "3"
        assert status["component"] == "policy-engine"
        assert status["timestamp"].endswith("Z")


async def test_the_version_is_the_sum_of_all_revisions_whatever_is_repeated_or_stale() -> None:
    bus = MemoryBus()
    async with engine(bus) as running:
        await bus.publish(ApiPublished(revision=1, api=api()))
        await bus.publish(ApiKeyIssued(revision=1, api_key=key()))
        await bus.publish(ApiKeyIssued(revision=1, api_key=key("two")))
        await running.version("3")
        await bus.publish(ApiPublished(revision=1, api=api()))
        await bus.publish(
            ApiKeyRevoked(revision=2, api_kind="RestApi", api_id="orders", name="one")
        )
        await running.version("4")
        await bus.publish(ApiRetired(revision=2, api_id="orders"))
        await bus.publish(ApiPublished(revision=1, api=api()))
        await running.version("5")
        assert (await running.dump())["policy_chains"]["total_policy_chains"] == 0


async def test_the_dump_shows_each_routes_chain_in_order() -> None:
    bus = MemoryBus()
    async with engine(bus) as running:
        await bus.publish(ApiPublished(revision=1, api=api()))
        await running.version("1")
        dump = await running.dump()

    chains = {one["route_key"]: one for one in dump["policy_chains"]["policy_chains"]}
    assert set(chains) == {"GET|/orders/v1.0/{id}|*", "POST|/orders/v1.0/|*"}
    assert chains["POST|/orders/v1.0/|*"] == {
        "route_key": "POST|/orders/v1.0/|*",
        "policies": [
            {
                "name": "api-key-auth",
                "version": "v1.2.1",
                "enabled": True,
                "execution_condition": "request.Method == 'GET'",
                "parameters": {"key": "API-Key", "in": "header"},
            },
            {
                "name": "respond",
                "version": "v1.0.1",
                "enabled": True,
                "execution_condition": None,
                "parameters": {"statusCode": 204},
            },
        ],
        "requires_request_body": False,
        "requires_response_body": False,
    }
    assert dump["route_metadata"]["total_routes"] == 2
    assert dump["route_metadata"]["routes"][0] == {
        "route_key": "GET|/orders/v1.0/{id}|*",
        "api_id": "orders",
        "api_name": "Orders",
        "api_version": "v1.0",
        "api_kind": "RestApi",
        "context": "/orders/v1.0",
        "operation_path": "/{id}",
        "vhost": "*",
        "provider_name": "",
        "template_handle": "",
        "default_upstream_cluster": "http://upstream.example:8080/base",
    }
    names = [one["name"] for one in dump["policy_registry"]["policies"]]
    assert dump["policy_registry"]["total_policies"] == len(names) == len(set(names))
    assert "api-key-auth" in names
    assert dump["lazy_resources"] == {"total_resources": 0, "resources_by_type": {}}
    assert dump["xds_sync"]["policy_chain_version"] == "1"


async def test_hosts_sandbox_and_header_matches_have_route_keys_of_their_own() -> None:
    operation = {
        "match": {
            "method": "GET",
            "path": {"value": "/a"},
            "headers": [{"name": "x-tenant", "value": "acme"}],
        }
    }
    shape = api(
        operations=[operation],
        vhosts={"main": "one.example; two.example", "sandbox": "try.example"},
        upstream={"main": {"url": "http://a"}, "sandbox": {"url": "http://b"}},
    )
    bus = MemoryBus()
    async with engine(bus) as running:
        await bus.publish(ApiPublished(revision=1, api=shape))
        await running.version("1")
        routes = (await running.dump())["route_metadata"]["routes"]
    assert [(one["route_key"], one["default_upstream_cluster"]) for one in routes] == [
        ("GET|/orders/v1.0/a|one.example|x-tenant=acme", "http://a"),
        ("GET|/orders/v1.0/a|two.example|x-tenant=acme", "http://a"),
        ("GET|/orders/v1.0/a|try.example|x-tenant=acme", "http://b"),
    ]


async def test_an_undeployed_api_has_no_routes() -> None:
    bus = MemoryBus()
    async with engine(bus) as running:
        await bus.publish(ApiPublished(revision=1, api=api()))
        await bus.publish(ApiPublished(revision=2, api=api(deploymentState="undeployed")))
        await running.version("2")
        assert (await running.dump())["route_metadata"]["total_routes"] == 0


async def test_a_policy_that_is_not_loaded_is_shown_as_such() -> None:
    bus = MemoryBus()
    async with engine(bus) as running:
        shape = api(policies=[{"name": "nonsense", "version": "v9"}])
        await bus.publish(ApiPublished(revision=1, api=shape))
        await running.version("1")
        chain = (await running.dump())["policy_chains"]["policy_chains"][0]["policies"]
        assert chain[0]["enabled"] is False
        assert "not found in loaded policy definitions" in chain[0]["error"]
        text = (await running.metrics.get("/metrics")).text
        assert "policy_engine_resolution_failures_total 1.0" in text


async def test_metrics_count_chains_and_updates() -> None:
    bus = MemoryBus()
    async with engine(bus) as running:
        await bus.publish(ApiPublished(revision=1, api=api()))
        await bus.publish(ApiPublished(revision=1, api=api()))
        await bus.publish(ApiKeyIssued(revision=1, api_key=key()))
        await running.version("2")
        text = (await running.metrics.get("/metrics")).text
        for line in (
            "policy_engine_up 1.0",
            "policy_engine_xds_connection_state 1.0",
            "policy_engine_snapshot_size 1.0",
            "policy_engine_policy_chains_loaded 2.0",
            'policy_engine_xds_updates_total{status="changed"} 2.0',
            'policy_engine_xds_updates_total{status="unchanged"} 1.0',
        ):
            assert line in text.splitlines()
        await bus.publish(ApiRetired(revision=2, api_id="orders"))
        await running.version("3")
        text = (await running.metrics.get("/metrics")).text
        assert "policy_engine_policy_chains_loaded 0.0" in text.splitlines()
        assert "policy_engine_snapshot_size 0.0" in text.splitlines()


async def test_the_dump_says_on_which_routes_the_engine_gets_bodies() -> None:
    def guarded(direction: str) -> list[dict[str, Any]]:
        params = {direction: {"enabled": True, "min": 1, "max": 3}}
        return [{"name": "word-count-guardrail", "version": "v1", "params": params}]

    operations = [
        {"method": "GET", "path": "/plain"},
        {"method": "POST", "path": "/asked", "policies": guarded("request")},
        {"method": "POST", "path": "/told", "policies": guarded("response")},
    ]
    bus = MemoryBus()
    async with engine(bus) as running:
        await bus.publish(ApiPublished(revision=1, api=api(operations=operations, policies=[])))
        await running.version("1")
        chains = (await running.dump())["policy_chains"]["policy_chains"]
        text = (await running.metrics.get("/metrics")).text
    assert {
        one["route_key"].split("|")[1]: (
            one["requires_request_body"],
            one["requires_response_body"],
        )
        for one in chains
    } == {
        "/orders/v1.0/plain": (False, False),
        "/orders/v1.0/asked": (True, False),
        "/orders/v1.0/told": (False, True),
    }
    assert "policy_engine_policy_chain_length_count 2.0" in text.splitlines()
    assert 'policy_engine_memory_bytes{type="workers"} 0.0' in text.splitlines()
    (engines,) = re.findall(
        r'^policy_engine_memory_bytes{type="engine"} (\S+)$', text, re.MULTILINE
    )
    assert 10 << 20 < float(engines) < 10 << 30


async def test_an_api_that_needs_bodies_at_its_own_level_needs_them_on_every_route() -> None:
    params = {"response": {"enabled": True, "min": 1, "max": 3}}
    policies = [{"name": "word-count-guardrail", "version": "v1", "params": params}]
    bus = MemoryBus()
    async with engine(bus) as running:
        await bus.publish(ApiPublished(revision=1, api=api(policies=policies)))
        await running.version("1")
        chains = (await running.dump())["policy_chains"]["policy_chains"]
    assert [one["requires_response_body"] for one in chains] == [True, True]
    assert [one["requires_request_body"] for one in chains] == [False, False]


async def test_addresses_that_are_not_allowed_are_refused() -> None:
    async with engine(MemoryBus(), engine_admin_allowed_networks=("10.0.0.0/8",)) as running:
        refused = await running.admin.get("/config_dump", headers={"X-Forwarded-For": "10.0.0.1"})
        assert refused.status_code == 403
        assert (await running.metrics.get("/metrics")).status_code == 200


def test_a_network_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="'nonsense'"):
        EngineSettings(engine_admin_allowed_networks=("nonsense",))


async def test_a_port_that_is_taken_is_told_with_its_setting() -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        with pytest.raises(AddressUnusable, match="engine_admin_port"):
            await run(EngineSettings(engine_admin_port=port), MemoryBus(), load(()))
    finally:
        server.close()
