"""Each component in a process of its own, over one broker, for an organization of its own."""

import contextlib
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from bus.events import ApiRetired
from bus.memory import MemoryBus
from bus.subjects import Family, pattern
from compose.addressed_bus import AddressedBus
from tests.compose.cli import DEADLINE_S, SIGNALBOX, Cli
from tests.e2e.waiting import create, until
from tests.servers.gateway import free_ports, rest_api
from tests.servers.http_backend import http_backend
from tests.servers.nats import nats_server
from tests.xds.ads.certificates import authority_and_pairs

WORDS = {"request": {"min": 1, "max": 2, "jsonPath": "$.text"}}


@contextlib.contextmanager
def alone(cli: Cli, component: str, **environment: str) -> Iterator[Path]:
    """`signalbox run COMPONENT`, and its output."""
    cli.data.mkdir(parents=True, exist_ok=True)
    log = cli.data / f"{component}.out"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [SIGNALBOX, "run", component],
            env=cli.environment(**environment),
            stdout=stream,
            stderr=stream,
            stdin=subprocess.DEVNULL,
        )
    try:
        yield log
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE_S) == 0, log.read_text()
    except BaseException:
        print(f"-- {component}, exit status {process.poll()}:\n{log.read_text()}")
        raise
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


async def told(log: Path, words: str) -> None:
    """Wait until `words` are in the log."""

    async def text() -> str:
        return log.read_text()

    await until(text, lambda now: words in now, seconds=DEADLINE_S)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short: Unix sockets lie deep in it, and have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="sbx-") as made:
        yield Path(made)


async def test_a_gateway_that_is_spread_over_processes_serves_an_api(folder: Path) -> None:
    async with nats_server() as broker, http_backend() as backend:
        xds_port, access_log_port, worker_port = free_ports(3)
        ports = Cli(folder).ports
        shared = {
            "SIGNALBOX_NATS_URL": broker.url,
            "SIGNALBOX_TIER": "basic",
            "SIGNALBOX_ORG": "acme",
            "SIGNALBOX_GATEWAY": "edge",
        }
        keys = authority_and_pairs(folder)
        with contextlib.ExitStack() as running:

            def start(component: str, *, beside: str = "", **more: str) -> Path:
                own = Cli(folder / (beside or component), ports=ports)
                return running.enter_context(alone(own, component, **{**shared, **more}))

            start("controller", SIGNALBOX_ADMIN_PASSWORD="swordfish")
            xds = start(
                "xds",
                SIGNALBOX_XDS_PORT=str(xds_port),
                SIGNALBOX_XDS_ADDRESS="0.0.0.0",
                SIGNALBOX_XDS_TLS_CERTIFICATE_FILE=str(keys.server_certificate),
                SIGNALBOX_XDS_TLS_KEY_FILE=str(keys.server_key),
                SIGNALBOX_XDS_CLIENT_CA_FILE=str(keys.authority),
            )
            analytics = start("analytics", SIGNALBOX_ACCESS_LOG_PORT=str(access_log_port))
            engine = start("policy-engine")
            start(
                "engine-worker",
                beside="policy-engine",
                SIGNALBOX_ENGINE_WORKER_PORT=str(worker_port),
                SIGNALBOX_ENGINE_STUCK_S="60",  # nobody starts it again here
            )
            start(
                "router",
                SIGNALBOX_XDS_TARGET=f"127.0.0.1:{xds_port}",
                SIGNALBOX_XDS_SERVER_CA_FILE=str(keys.authority),
                SIGNALBOX_XDS_TLS_CERTIFICATE_FILE=str(keys.client_certificate),
                SIGNALBOX_XDS_TLS_KEY_FILE=str(keys.client_key),
                SIGNALBOX_ACCESS_LOG_TARGET=f"127.0.0.1:{access_log_port}",
                SIGNALBOX_ENGINE_TARGETS=f"127.0.0.1:{worker_port}",
                SIGNALBOX_ROUTER_NAME="edge-1",
            )
            management = f"http://127.0.0.1:{ports['management']}/api/management/v1"
            async with (
                httpx.AsyncClient(
                    base_url=management, trust_env=False, auth=("admin", "swordfish"), timeout=30
                ) as api,
                httpx.AsyncClient(trust_env=False, timeout=30) as client,
            ):
                await create(api, rest_api("spread", backend.url))
                await until(
                    lambda: client.get(f"http://127.0.0.1:{ports['http']}/spread/x"),
                    lambda answer: answer.status_code == 200,
                    seconds=DEADLINE_S,
                )
                guarded = rest_api(
                    "guarded",
                    backend.url,
                    operations=[{"method": "POST", "path": "/*"}],
                    policies=[{"name": "word-count-guardrail", "params": WORDS}],
                )
                await create(api, guarded)
                url = f"http://127.0.0.1:{ports['http']}/guarded/x"
                for text, status in (("one", 200), ("one two three", 422)):
                    await until(
                        lambda text=text: client.post(url, json={"text": text}),
                        lambda answer, status=status: answer.status_code == status,
                        seconds=DEADLINE_S,
                    )
            await told(xds, "node=edge-1")
            await told(analytics, "node=edge-1")
            await told(engine, "ready")


@pytest.fixture
def shared() -> MemoryBus:
    return MemoryBus()


RETIRED = ApiRetired(revision=1, api_id="weather")


async def test_what_is_published_gets_the_address_of_the_gateway(shared: MemoryBus) -> None:
    mine = AddressedBus(shared, org="acme", gateway="edge")
    await mine.publish(RETIRED)
    async with shared.follow(pattern(Family.STATE)) as feed:
        event = await anext(aiter(feed))
    assert event.subject == "sbx.acme.edge.state.rest-api.weather"


async def test_what_others_publish_is_not_seen(shared: MemoryBus) -> None:
    mine = AddressedBus(shared, org="acme", gateway="edge")
    await AddressedBus(shared, org="acme", gateway="core").publish(RETIRED)
    await shared.publish(RETIRED)
    await mine.publish(RETIRED)
    async with mine.follow(pattern(Family.STATE)) as feed:
        assert feed.backlog == 1
        event = await anext(aiter(feed))
    assert (event.org, event.gateway) == ("acme", "edge")


async def test_work_is_shared_within_a_gateway_only(shared: MemoryBus) -> None:
    for group in ("edge", "core"):
        mine = AddressedBus(shared, org="acme", gateway=group)
        await mine.publish(RETIRED)
        async with mine.share("workers", pattern(Family.STATE)) as deliveries:
            delivery = await anext(deliveries)
            assert delivery.event.gateway == group
            await delivery.ack()


async def test_the_default_gateway_speaks_as_it_always_did(shared: MemoryBus) -> None:
    await AddressedBus(shared, org="default", gateway="default").publish(RETIRED)
    async with shared.follow(pattern(Family.STATE, org="default", gateway="default")) as feed:
        assert feed.backlog == 1
