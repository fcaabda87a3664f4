"""Where it listens, whom it refuses, what it says on the bus."""

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import redis.exceptions
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr, ValidationError

from bus.events import Event
from bus.memory import MemoryBus
from bus.quota import (
    LimitApproaching,
    LimitExceeded,
    QuotaReset,
    RatelimiterAlive,
    RatelimiterDegraded,
    RatelimiterLeft,
    RatelimiterRecovered,
)
from bus.subjects import Family, pattern, token
from policy_engine.rate_limits.limits import Algorithm, Limit, Quota
from ratelimiter.errors import BadStoreSettings, CannotListen, InsecureAddress
from ratelimiter.reading import Reader
from ratelimiter.service import node_name, run, serving, store_of
from ratelimiter.settings import RatelimiterSettings
from ratelimiter.stores.redis import away
from ratelimiter.stores.topology import connect
from tests.ratelimiter.limiting import Limiter, limiter, until
from tests.servers.valkey import valkey_server
from xds.wire.h2 import RpcRefused

DAY_S = 86_400.0
PATIENT = {"ratelimiter_decision_timeout_s": 5}


def quota(limit: int, name: str = "orders", **fields) -> Quota:
    return Quota(name, (Limit(limit, DAY_S),), **fields)


# -- addresses ---------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "limits.example"])
async def test_a_port_that_others_reach_must_be_declared_trusted(address: str) -> None:
    settings = RatelimiterSettings(
        ratelimiter_store="memory", ratelimiter_port=0, ratelimiter_address=address
    )
    with pytest.raises(InsecureAddress, match="ratelimiter_trusted_network"):
        async with serving(settings, None, store_of(settings)):
            pass


async def test_a_declared_network_is_believed() -> None:
    settings = RatelimiterSettings(
        ratelimiter_store="memory",
        ratelimiter_port=0,
        ratelimiter_address="0.0.0.0",
        ratelimiter_trusted_network=True,
    )
    async with serving(settings, None, store_of(settings)) as running:
        assert running.addresses[0].startswith("0.0.0.0:")


async def test_without_any_address_it_does_not_start() -> None:
    settings = RatelimiterSettings(ratelimiter_store="memory")
    with pytest.raises(BadStoreSettings, match="ratelimiter_socket: neither"):
        async with serving(settings, None, store_of(settings)):
            pass


async def test_an_address_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "rl.sock"
    settings = RatelimiterSettings(ratelimiter_store="memory", ratelimiter_socket=path)
    with pytest.raises(CannotListen, match=str(path)):
        await run(settings, MemoryBus())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"redis_addresses": ()}, "redis_addresses: there is no address"),
        ({"redis_addresses": ("localhost",)}, "'localhost' is not host:port"),
        ({"redis_addresses": ("a:1", "b:2")}, "set redis_mode"),
        ({"redis_addresses": ("unix:/x",), "redis_mode": "cluster"}, "leads to a single server"),
        (
            {
                "redis_addresses": ("a:1",),
                "redis_tls": True,
                "redis_tls_ca_file": Path("/nowhere/ca.pem"),
            },
            "redis_tls_ca_file: /nowhere/ca.pem is not a file",
        ),
    ],
)
def test_a_store_that_cannot_be_is_refused_with_the_setting(fields: dict, message: str) -> None:
    with pytest.raises(BadStoreSettings, match=message):
        connect(RatelimiterSettings(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"redis_pool_size": 2, "ratelimiter_in_flight": 2}, "redis_pool_size"),
        ({"redis_mode": "cluster", "redis_db": 1}, "redis_db"),
        ({"redis_tls_key_file": "key.pem"}, "must be given together"),
        ({"redis_key_prefix": "{x}"}, "redis_key_prefix"),
        ({"ratelimiter_socket": "/" + "x" * 120}, "longer than 107 bytes"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RatelimiterSettings(**fields)


# -- servers that ask who we are ---------------------------------------------------------------


async def test_user_password_and_database_are_used() -> None:
    acl = ("--user", "limits", "on", ">secret", "~rl:*", "+@all", "--user", "default", "off")
    login = {"username": "limits", "password": "secret"}
    async with valkey_server(*acl, client=login) as server:
        known = {
            "redis_addresses": (server.address,),
            "redis_username": "limits",
            "redis_password": SecretStr("secret"),
            "redis_key_prefix": "rl:",
            "redis_db": 3,
        }
        async with limiter(**known, **PATIENT) as running:
            assert running.health.state == "ok"
            assert await running.passed(quota(3), 5) == 3
            client = server.client()
            assert (await client.info("keyspace"))["db3"]["keys"] >= 1
            await client.aclose()
        async with limiter(**{**known, "redis_password": SecretStr("no")}) as running:
            assert running.health.state == "degraded"
            assert await running.passed(quota(3), 5) == 3  # its own share


def certificates(folder: Path) -> dict[str, Path]:
    """An authority, and a certificate of it for 127.0.0.1 that server and client share."""
    now = datetime.now().astimezone()
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, one)]) for one in ("ca", "server")]

    def made(index: int, *, authority: bool) -> bytes:
        builder = (
            x509.CertificateBuilder()
            .subject_name(names[index])
            .issuer_name(names[0])
            .public_key(keys[index].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if not authority:
            address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
            builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
        return builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    written = {
        "ca": made(0, authority=True),
        "certificate": made(1, authority=False),
        "key": keys[1].private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    }
    for name, pem in written.items():
        (folder / f"{name}.pem").write_bytes(pem)
    return {name: folder / f"{name}.pem" for name in written}


async def test_tls_both_ways_and_never_with_a_stranger(tmp_path: Path) -> None:
    pem = certificates(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    stranger = certificates(elsewhere)
    async with valkey_server() as server, tls_before(server.port, pem) as address:
        known = {
            "redis_addresses": (address,),
            "redis_tls": True,
            "redis_tls_ca_file": pem["ca"],
            "redis_tls_certificate_file": pem["certificate"],
            "redis_tls_key_file": pem["key"],
        }
        async with limiter(**known, **PATIENT) as running:
            assert running.health.state == "ok"
            assert await running.passed(quota(3), 5) == 3
        for wrong in (
            {"redis_tls_ca_file": stranger["ca"]},
            {"redis_tls_certificate_file": None, "redis_tls_key_file": None},
            {"redis_addresses": (address.replace("127.0.0.1", "localhost"),)},
        ):
            async with limiter(**{**known, **wrong}, **PATIENT) as running:
                assert running.health.state == "degraded", wrong


@asynccontextmanager
async def tls_before(port: int, pem: dict[str, Path]) -> AsyncIterator[str]:
    """TLS in front of a server whose binary has none; clients must show a certificate."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pem["ca"]))
    context.load_cert_chain(pem["certificate"], pem["key"])
    context.verify_mode = ssl.CERT_REQUIRED

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        async with asyncio.TaskGroup() as group:
            group.create_task(pipe(reader, back))
            group.create_task(pipe(there, writer))

    server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=context)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


# -- what is not a limit -----------------------------------------------------------------------


async def test_a_call_that_cannot_be_read_is_refused_and_counted() -> None:
    async with limiter(ratelimiter_store="memory") as running:
        with pytest.raises(RpcRefused, match="no RateLimitRequest"):
            running.running.service(b"\xff\xff")
        assert await running.ask(quota(1))


def test_every_exception_of_the_library_becomes_a_cause() -> None:
    classes = [
        one
        for one in vars(redis.exceptions).values()
        if isinstance(one, type) and issubclass(one, redis.exceptions.RedisError)
    ]
    assert len(classes) > 20
    causes = {}
    for one in classes:
        error = one.__new__(one)
        Exception.__init__(error, "said")
        causes[one.__name__] = away(error).cause
    assert set(causes.values()) == {"unreachable", "slow", "full", "refused"}
    assert causes["OutOfMemoryError"] == "full"
    assert causes["TimeoutError"] == "slow"
    assert causes["ReadOnlyError"] == causes["ConnectionError"] == "unreachable"
    assert causes["AuthenticationError"] == causes["NoPermissionError"] == "refused"
    assert away(ConnectionRefusedError(111, "refused")).cause == "unreachable"


def test_a_call_without_descriptors_is_allowed() -> None:
    assert Reader("p:", splits=True).read(b"").parts == ()


# -- the bus -----------------------------------------------------------------------------------


class Heard:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def of(self, kind: type[Event]) -> list:
        return [event for event in self.events if isinstance(event, kind)]


@asynccontextmanager
async def hearing(bus: MemoryBus) -> AsyncIterator[Heard]:
    heard = Heard()

    async def listen() -> None:
        async with bus.follow(pattern(Family.USAGE), pattern(Family.ROUTER)) as feed:
            async for event in feed:
                heard.events.append(event)

    async with asyncio.TaskGroup() as group:
        task = group.create_task(listen())
        await asyncio.sleep(0)
        yield heard
        task.cancel()


async def test_limits_are_told_of_once_per_window() -> None:
    bus = MemoryBus()
    of = Quota("orders", (Limit(10, 2.0),), algorithm=Algorithm.GCRA, name="gold", api="orders-v1")
    named = Quota("named", (Limit(1, DAY_S),), tells_key=True, shadow=True)
    silent = Quota("silent", (Limit(1, DAY_S),), events=False)
    async with hearing(bus) as heard, limiter(bus, ratelimiter_store="memory") as running:
        for client in ("one", "two"):
            await running.passed(of, 12, client)
        for limit in (named, silent):
            await running.passed(limit, 3, "three")
        await until(lambda: len(heard.of(QuotaReset)) == 2)
        await until(lambda: len(heard.of(LimitExceeded)) == 3)
        approaching = heard.of(LimitApproaching)
        assert len(approaching) == 3
        assert approaching[0].subject == "sbx.default.default.usage.orders-v1"
        assert (approaching[0].remaining, approaching[0].limit) == (2, 10)
        assert approaching[0].parts == ()  # it may be a credential
        assert len({event.counter for event in heard.of(LimitExceeded)}) == 3
        (told,) = [event for event in heard.of(LimitExceeded) if event.bucket == "named"]
        assert [(part.name, part.value) for part in told.parts] == [("client", "three")]
        assert told.shadow
        assert {event.quota for event in heard.of(QuotaReset)} == {"gold"}


async def test_a_flood_of_events_is_cut_and_the_calls_are_not_slowed() -> None:
    bus = MemoryBus()
    async with (
        hearing(bus) as heard,
        limiter(bus, ratelimiter_store="memory", ratelimiter_events_per_s=2) as running,
    ):
        for number in range(50):
            await running.ask(quota(1), str(number))
        await until(lambda: heard.of(LimitApproaching))
        assert len(heard.of(LimitApproaching)) <= 2


async def test_the_loss_of_the_store_and_its_return_are_told() -> None:
    bus = MemoryBus()
    async with (
        valkey_server() as valkey,
        hearing(bus) as heard,
        limiter(
            bus, redis_addresses=(valkey.address,), ratelimiter_degraded_after_s=0.1, **PATIENT
        ) as running,
    ):
        await running.ask(quota(5))
        await valkey.kill()
        await running.ask(quota(5))
        await until(lambda: heard.of(RatelimiterDegraded))
        await valkey.start()
        await until(lambda: heard.of(RatelimiterRecovered))
        (degraded,), (recovered,) = heard.of(RatelimiterDegraded), heard.of(RatelimiterRecovered)
        assert degraded.cause == "unreachable"
        assert degraded.place == recovered.place == "primary"
        assert recovered.merged == 1
        assert recovered.away_s >= 0.1


async def test_limiters_hear_each_other_and_share_while_the_store_is_away() -> None:
    bus = MemoryBus()
    async with valkey_server() as valkey, hearing(bus) as heard:
        await valkey.kill()
        known = {"redis_addresses": (valkey.address,), "ratelimiter_heartbeat_s": 0.1, **PATIENT}
        async with limiter(bus, **known) as one:
            assert await one.passed(quota(10, "alone"), 20) == 10
            # the same process, so the same name: another one is heard through its sign of life
            await bus.publish(RatelimiterAlive(node="other", every_s=60))
            await until(lambda: shared(one) == 2)
            assert await one.passed(quota(10, "two"), 20) == 5
            await bus.publish(RatelimiterLeft(node="other"))
            await until(lambda: shared(one) == 1)
            await bus.publish(RatelimiterAlive(node="silent", every_s=0.05))
            await until(lambda: shared(one) == 2)
            await until(lambda: shared(one) == 1)
        assert heard.of(RatelimiterLeft)
        assert heard.of(RatelimiterAlive)[0].subject.endswith(f".alive.{token(node_name())}")


def shared(running: Limiter) -> int:
    return running.running.service._decider._shares._live()
