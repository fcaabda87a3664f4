"""The whole controller on real ports and a real broker."""

import asyncio
import socket
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from bus.events import (
    ConfigurationApplied,
    RouterConnected,
    RouterReportRequested,
)
from bus.jetstream import JetStreamBus
from bus.memory import MemoryBus
from bus.ports import Bus
from bus.settings import BusSettings
from bus.subjects import Family, pattern
from controller.errors import AddressUnusable, InvalidPasswordHash, PortTaken
from controller.memory import MemoryRecord
from controller.ports import Record
from controller.service import Ports, run
from controller.settings import ControllerSettings
from controller.sql import SqlRecord
from policy_engine import catalogue
from tests.controller.samples import (
    PATIENCE_S,
    api,
    document,
    eventually,
    put,
    revisions,
    state_on,
)
from tests.servers.nats import NatsServer, nats_server

CATALOGUE = catalogue.load()
SETTINGS = {"management_port": 0, "admin_port": 0, "metrics_port": 0, "admin_password": "admin"}


class Running:
    """A controller that serves."""

    def __init__(self, ports: Ports) -> None:
        self.ports = ports
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{ports.management}/api/management/v1",
            auth=("admin", "admin"),
            timeout=PATIENCE_S,
        )

    async def put(self, name: str = "weather", **spec: object) -> httpx.Response:
        path = f"/rest-apis/{name}"
        answer = await self.client.put(path, json=document(name, **spec))
        if answer.status_code == 404:
            answer = await self.client.post("/rest-apis", json=document(name, **spec))
        assert answer.is_success, answer.text
        return answer

    async def get(self, port: int, path: str, **options: object) -> httpx.Response:
        return await self.client.get(f"http://127.0.0.1:{port}{path}", **options)  # type: ignore[arg-type]


@asynccontextmanager
async def controller(bus: Bus, record: Record, **settings: object) -> AsyncIterator[Running]:
    ready: asyncio.Future[Ports] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        run(
            ControllerSettings.model_validate({**SETTINGS, **settings}),
            bus,
            record,
            CATALOGUE,
            ready=ready.set_result,
        )
    )
    await asyncio.wait([task, ready], timeout=PATIENCE_S, return_when=asyncio.FIRST_COMPLETED)
    try:
        if not ready.done():
            await task
        running = Running(ready.result())
        async with running.client:
            yield running
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


@pytest.fixture
async def nats() -> AsyncIterator[NatsServer]:
    async with nats_server() as server:
        yield server


def connected_to(server: NatsServer, name: str = "controller", **settings: object):
    found = BusSettings.model_validate({"nats_url": server.url, **settings})
    return JetStreamBus.connect(found, name=name)


async def told(bus: Bus, **expected: int) -> None:
    async def holds() -> bool:
        return revisions(await state_on(bus)) == expected  # type: ignore[arg-type]

    await eventually(holds, f"{expected} on the bus")


async def test_three_ports_answer(record: Record) -> None:
    async with controller(MemoryBus(), record) as running:
        await running.put()
        management, admin, metrics = (
            running.ports.management,
            running.ports.admin,
            running.ports.metrics,
        )
        health = await running.get(admin, "/api/admin/v1/health", auth=None)
        assert health.json()["status"] == "healthy"
        assert health.json()["timestamp"].endswith("Z")
        sync = await running.get(admin, "/api/admin/v1/xds_sync_status")
        assert sync.json() == sync.json() | {
            "component": "gateway-controller",
            "policy_chain_version": "1",
        }
        assert (await running.get(admin, "/api/admin/v1/config_dump")).status_code == 404
        text = (await running.get(metrics, "/metrics")).text
        for line in (
            "gateway_controller_up 1.0",
            'gateway_controller_apis_total{kind="RestApi",state="deployed"} 1.0',
            'gateway_controller_api_operations_total{operation="create",status="success"} 1.0',
            "gateway_controller_control_plane_connection_state 1.0",
        ):
            assert line in text
        docs = await running.get(management, "/docs")
        assert docs.headers["content-type"].startswith("text/html")
        assert "://" not in docs.text  # nothing from elsewhere
        for asset in ("docs.js", "docs.css"):
            found = await running.get(management, f"/api/management/v1/docs/{asset}")
            assert found.status_code == 200
        other = await running.get(management, "/api/management/v1/docs/app.py")
        assert other.status_code == 404


async def test_the_admin_api_has_its_own_errors_and_wants_an_admin() -> None:
    users = [{"name": "dev", "password": "dev", "roles": ["developer"]}]
    async with controller(
        MemoryBus(), MemoryRecord(), users=users, config_dump_enabled=True
    ) as running:
        await running.put(policies=[{"name": "respond", "version": "v1", "params": {}}])
        await running.client.post("/rest-apis/weather/api-keys")
        admin = running.ports.admin
        dump = "/api/admin/v1/config_dump"
        for path in (dump, "/api/admin/v1/xds_sync_status"):
            refused = await running.get(admin, path, auth=("dev", "dev"))
            assert refused.status_code == 403
            assert set(refused.json()) == {"code", "message"}
            assert (await running.get(admin, path, auth=("x", "y"))).status_code == 401
        found = (await running.get(admin, dump)).json()
        assert found["statistics"]["totalApis"] == 1
        assert found["policies"] == [{"name": "respond", "version": "v1"}]
        assert found["apis"][0]["configuration"]["metadata"]["name"] == "weather"
        assert "apip_" not in str(found)
        assert "digest" not in str(found)
        missing = await running.get(admin, "/nothing")
        assert missing.json() == {"code": 404, "message": "Not Found"}


async def test_a_dump_shows_what_policies_are_given_but_no_secrets(record: Record) -> None:
    guard = {"name": "basic-auth", "params": {"username": "shop", "password": "swordfish"}}
    forgotten = {"name": "forgotten", "params": {"password": "swordfish"}}
    async with controller(MemoryBus(), record, config_dump_enabled=True) as running:
        operation = {"method": "GET", "path": "/x", "policies": [guard]}
        await running.put(policies=[guard], operations=[operation])
        await put(record, api("old", policies=[forgotten]))
        answer = await running.get(running.ports.admin, "/api/admin/v1/config_dump")
        assert "swordfish" not in answer.text
        specs = {one["id"]: one["configuration"]["spec"] for one in answer.json()["apis"]}
        for holder in (specs["weather"], specs["weather"]["operations"][0]):
            (shown,) = holder["policies"]
            assert shown["params"] == {"username": "shop", "password": "**********"}
        assert specs["old"]["policies"] == [{"name": "forgotten", "params": {}}]
        row = await record.api("weather")
        assert row is not None
        assert row.document()["spec"]["policies"] == [guard]


@pytest.mark.parametrize("taken", ["management_port", "admin_port", "metrics_port"])
async def test_a_taken_port_is_one_clear_sentence(taken: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} on 127.0.0.1 is taken .*set {taken}"):
            async with controller(MemoryBus(), MemoryRecord(), **{taken: port}):
                pass


async def test_an_address_that_is_not_ours_is_one_clear_sentence() -> None:
    with pytest.raises(AddressUnusable, match=r"192\.0\.2\.1 cannot be opened"):
        async with controller(MemoryBus(), MemoryRecord(), management_address="192.0.2.1"):
            pass


async def test_a_password_hash_that_cannot_be_read_stops_the_start() -> None:
    with pytest.raises(InvalidPasswordHash, match="'admin'"):
        async with controller(MemoryBus(), MemoryRecord(), admin_password="scrypt$1$2"):
            pass


async def test_a_request_in_flight_is_answered_when_the_controller_ends() -> None:
    async def wait_for_routers(running: Running) -> httpx.Response:
        query = "/rest-apis/weather/status?waitSeconds=1"
        async with httpx.AsyncClient(
            base_url=running.client.base_url, auth=("admin", "admin")
        ) as c:
            return await c.get(query)

    async with controller(MemoryBus(), MemoryRecord()) as running:
        await running.put()
        waiting = asyncio.create_task(wait_for_routers(running))

        async def in_flight() -> bool:
            text = (await running.get(running.ports.metrics, "/metrics")).text
            return "gateway_controller_concurrent_requests 1.0" in text

        await eventually(in_flight, "the request is in flight")
    assert (await waiting).status_code == 200


async def test_when_routers_report_the_status_follows() -> None:
    bus = MemoryBus()
    await bus.publish(RouterConnected(node="of yesterday"))
    async with controller(bus, MemoryRecord()) as running:

        async def asked() -> bool:
            async with bus.follow(pattern(Family.COMMAND)) as feed:
                return feed.backlog == 1 and isinstance(
                    await anext(aiter(feed)), RouterReportRequested
                )

        await eventually(asked, "the routers were asked")
        await bus.publish(RouterConnected(node="r1", version="1.40.0"))
        await running.put()
        waiting = asyncio.create_task(
            running.client.get("/rest-apis/weather/status?revision=1&waitSeconds=60")
        )
        await bus.publish(ConfigurationApplied(node="r1", revisions={"weather": 1}))
        live = (await waiting).json()
        assert (live["outcome"], live["live"], live["total"]) == ("live", 1, 1)
        assert live["elapsedMs"] > 0
        text = (await running.get(running.ports.metrics, "/metrics")).text
        assert "gateway_controller_deployment_latency_seconds_count 1.0" in text
        assert "gateway_controller_routers_connected 1.0" in text


async def test_a_record_that_fails_is_unavailable_and_says_so(tmp_path: Path) -> None:
    record = await SqlRecord.open(f"sqlite:///{tmp_path}/record.db")
    async with controller(MemoryBus(), record) as running:
        await running.put()
        with sqlite3.connect(tmp_path / "record.db") as other:
            other.execute("DROP TABLE rest_apis")
        other.close()
        answer = await running.client.get("/rest-apis")
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert "no such table" in answer.json()["message"]
        health = await running.get(running.ports.admin, "/api/admin/v1/health")
        assert health.status_code == 503
        text = (await running.get(running.ports.metrics, "/metrics")).text
        assert 'gateway_controller_storage_errors_total{operation="apis"' in text
    await record.close()


async def test_basic_gets_apis_and_keys_back_from_the_broker(nats: NatsServer) -> None:
    async with connected_to(nats) as bus:
        async with controller(bus, MemoryRecord()) as running:
            await running.put("a")
            await running.put("a", context="/new")
            await running.put("gone")
            key = (await running.client.post("/rest-apis/a/api-keys", json={"name": "mine"})).json()
            await running.client.delete("/rest-apis/gone")
            await told(bus, **{"a": 2, "gone": -2, "a/mine": 1})
        async with controller(bus, MemoryRecord()) as running:  # a process that starts again
            (found,) = (await running.client.get("/rest-apis")).json()["apis"]
            assert found["spec"]["context"] == "/new"
            assert found["status"]["revision"] == 2
            (shown,) = (await running.client.get("/rest-apis/a/api-keys")).json()["apiKeys"]
            assert shown["apiKey"][-5:] == key["apiKey"]["apiKey"][-5:]
            assert shown["createdBy"] == "admin"
            assert (await running.put("a")).json()["status"]["revision"] == 3
            assert (await running.put("gone")).json()["status"]["revision"] == 3
            await told(bus, **{"a": 3, "gone": 3, "a/mine": 1})


async def test_writes_are_accepted_while_the_broker_is_dead_and_told_when_it_is_back(
    nats: NatsServer, record: Record
) -> None:
    settings = {"nats_storage": "file", "publish_timeout_s": 0.5, "publish_attempt_timeout_s": 0.2}
    async with connected_to(nats, **settings) as bus, controller(bus, record) as running:
        await running.put("a")
        await told(bus, a=1)
        await nats.kill()
        for turn in range(5):
            assert (await running.put("a", context=f"/c{turn}")).status_code == 200
        assert (await running.put("b")).status_code == 201
        await nats.start()
        await told(bus, a=6, b=1)


async def test_a_broker_that_comes_back_empty_is_told_everything(
    nats: NatsServer, record: Record
) -> None:
    async with connected_to(nats, nats_storage="memory") as bus, controller(bus, record) as running:
        await running.put("a")
        await running.put("b")
        await running.client.delete("/rest-apis/b")
        await running.client.post("/rest-apis/a/api-keys", json={"name": "mine"})
        await told(bus, **{"a": 1, "b": -2, "a/mine": 1})
        await nats.restart()
        await told(bus, **{"a": 1, "b": -2, "a/mine": 1})
        assert (await running.put("a", context="/after")).status_code == 200
        await told(bus, **{"a": 2, "b": -2, "a/mine": 1})
