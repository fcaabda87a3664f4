"""`signalbox events tail` on a real broker."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import yaml

from bus.events import ApiPublished, ApiRetired, RouterConnected
from bus.jetstream import JetStreamBus
from bus.resources.rest_api import RestApi
from bus.settings import BusSettings
from ctl import event_feed
from ctl.commands.events import clock, summary
from tests.ctl import cli
from tests.ctl.resources import rest_api
from tests.servers.nats import NatsServer, nats_server

DEADLINE_S = 60


@pytest_asyncio.fixture
async def broker() -> AsyncIterator[NatsServer]:
    async with nats_server() as server:
        yield server


def published(name: str, revision: int = 1) -> ApiPublished:
    return ApiPublished(revision=revision, api=RestApi.model_validate(rest_api(name)))


def bus(broker: NatsServer) -> Any:
    return JetStreamBus.connect(BusSettings(nats_url=broker.url, nats_storage="file"), name="test")


async def tail(broker: NatsServer, folder: Path, *arguments: str) -> cli.Result:
    env = cli.environment(folder, SIGNALBOX_NATS_URL=broker.url)
    return await cli.run("events", "tail", *arguments, env=env)


async def test_the_past_is_shown_in_order_over_all_streams(
    broker: NatsServer, tmp_path: Path
) -> None:
    async with bus(broker) as one:
        await one.publish(published("a"))
        await one.publish(RouterConnected(node="r1", version="1.40.0"))
        await one.publish(ApiRetired(revision=2, api_id="a"))
    result = await tail(broker, tmp_path, "--since", "1h", "--count", "3")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert [line.split("  ", 1)[1].split() for line in lines] == [
        ["rest-api.published", "a", "revision", "1"],
        ["router.connected", "router", "r1", "1.40.0"],
        ["rest-api.retired", "a", "revision", "2"],
    ]


async def test_json_is_cloud_events_one_to_a_line(broker: NatsServer, tmp_path: Path) -> None:
    async with bus(broker) as one:
        await one.publish(published("a"), event_id="id-1")
    result = await tail(broker, tmp_path, "--since", "1h", "--count", "1", "-o", "json")
    event = json.loads(result.out)
    assert event["specversion"] == "1.0"
    assert event["id"] == "id-1"
    assert event["type"] == "sbx.rest-api.published"
    assert event["source"]
    assert event["time"]
    assert event["data"]["api"]["metadata"]["name"] == "a"


async def test_yaml_is_a_document_for_each_event(broker: NatsServer, tmp_path: Path) -> None:
    async with bus(broker) as one:
        await one.publish(published("a"))
        await one.publish(published("b"))
    result = await tail(broker, tmp_path, "--since", "1h", "--count", "2", "-o", "yaml")
    events = [event for event in yaml.safe_load_all(result.out) if event]
    assert [event["subject"] for event in events] == ["rest-api/a", "rest-api/b"]


async def test_families_and_subjects_select(broker: NatsServer, tmp_path: Path) -> None:
    async with bus(broker) as one:
        await one.publish(published("a"))
        await one.publish(RouterConnected(node="r1"))
        await one.publish(published("b"))
    since = ("--since", "1h", "-o", "name", "--count", "1")
    by_family = await tail(broker, tmp_path, "--family", "router", *since)
    assert by_family.out == "router.connected\n"
    subject = ("--subject", "sbx.*.*.state.rest-api.b")
    by_subject = await tail(broker, tmp_path, *subject, "--since", "1h", "--count", "1")
    assert "b revision 1" in by_subject.out
    wide = await tail(broker, tmp_path, "--subject", "sbx.>", *since[:-1], "3")
    assert wide.out.split() == ["rest-api.published", "router.connected", "rest-api.published"]
    tokens = await tail(broker, tmp_path, "--subject", "sbx.*.*.*.r1", *since)
    assert tokens.out == "router.connected\n"


async def test_what_comes_is_shown_until_it_is_interrupted(
    broker: NatsServer, tmp_path: Path
) -> None:
    env = cli.environment(tmp_path, SIGNALBOX_NATS_URL=broker.url)
    async with bus(broker) as one, asyncio.timeout(DEADLINE_S):
        process = await cli.start("events", "tail", "-o", "name", "--since", "1h", env=env)
        assert process.stdout is not None
        await one.publish(published("a"))
        assert await process.stdout.readline() == b"rest-api.published\n"
        await one.publish(RouterConnected(node="r1"))
        assert await process.stdout.readline() == b"router.connected\n"
        process.send_signal(signal.SIGINT)
        out, err = await process.communicate()
    assert (process.returncode, out, err) == (130, b"", b"")


async def test_an_event_is_shown_once_although_it_is_past_and_present(broker: NatsServer) -> None:
    async with bus(broker) as one, asyncio.timeout(DEADLINE_S):
        for number in range(600):
            await one.publish(RouterConnected(node=f"r{number}"), event_id=f"id-{number}")
        feed = event_feed.follow(
            event_feed.Broker(broker.url),
            ["sbx.*.*.router.>"],
            datetime.fromisoformat("2020-01-01T00:00:00+00:00"),
        )
        seen = [await anext(feed)]
        for number in range(600, 700):  # stored after the feed has begun to listen
            await one.publish(RouterConnected(node=f"r{number}"), event_id=f"id-{number}")
        seen += [await anext(feed) for _ in range(699)]
        await feed.aclose()
    assert [event.event_id for event in seen] == [f"id-{number}" for number in range(700)]


async def test_the_tail_outlives_a_restart_of_the_broker(broker: NatsServer) -> None:
    async with asyncio.timeout(DEADLINE_S):
        feed = event_feed.follow(event_feed.Broker(broker.url), ["sbx.>"], None)
        coming = asyncio.ensure_future(anext(feed))
        async with bus(broker) as one:
            while not coming.done():
                await one.publish(RouterConnected(node="r1"))
                await asyncio.sleep(0.01)
        await coming
        await broker.restart()
        coming = asyncio.ensure_future(anext(feed))
        async with bus(broker) as one:
            while not coming.done():
                await one.publish(RouterConnected(node="r2"))
                await asyncio.sleep(0.05)
        await coming
        await feed.aclose()


async def test_without_a_broker_the_code_is_3(tmp_path: Path) -> None:
    env = cli.environment(tmp_path, SIGNALBOX_NATS_URL="nats://127.0.0.1:1")
    result = await cli.run("events", "tail", env=env)
    assert result.code == 3
    assert "no bus answers at nats://127.0.0.1:1" in result.err
    assert "signalbox up" in result.err
    assert "Traceback" not in result.err


async def test_a_wrong_password_at_the_broker_says_so(tmp_path: Path) -> None:
    async with nats_server('authorization { user: "u", password: "p" }') as server:
        env = cli.environment(tmp_path, SIGNALBOX_NATS_URL=server.url, SIGNALBOX_NATS_USER="u")
        wrong = await cli.run("events", "tail", env={**env, "SIGNALBOX_NATS_PASSWORD": "x"})
        assert wrong.code == 3
        assert "authorization" in wrong.err.lower()
        (tmp_path / "client.json").write_text(
            json.dumps({"nats_url": server.url, "nats_user": "u", "nats_password": "p"})
        )
        process = await cli.start("events", "tail", env=cli.environment(tmp_path))
        settings = BusSettings(nats_url=server.url, nats_user="u", nats_password="p")
        assert process.stdout is not None
        reading = asyncio.ensure_future(process.stdout.readline())
        async with JetStreamBus.connect(settings, name="test") as one, asyncio.timeout(DEADLINE_S):
            while not reading.done():
                await one.publish(RouterConnected(node="r1"))
                await asyncio.sleep(0.05)
        process.terminate()
        await process.communicate()
        assert b"router r1" in await reading


def test_anything_can_be_observed() -> None:
    bare = event_feed.read("some.subject", None, b"\xff not json")
    assert (bare.kind, bare.event_id, bare.time) == ("?", "", "")
    assert "not json" in bare.data
    assert event_feed.read(
        "s", {"CE-Type": "sbx.a%20b", "traceparent": "00"}, b"{}"
    ).attributes == {
        "type": "sbx.a b",
        "traceparent": "00",
    }


@pytest.mark.parametrize(
    ("pattern", "families"),
    [
        ("sbx.*.*.state.>", ["state"]),
        ("sbx.*.*.dead-letter.x", ["dead-letter"]),
        ("sbx.a.b.*.x", ["state", "usage", "audit", "command", "router", "dead-letter"]),
        ("sbx.>", ["state", "usage", "audit", "command", "router", "dead-letter"]),
        ("sbx.*.*.none.>", []),
    ],
)
def test_the_streams_of_a_pattern(pattern: str, families: list[str]) -> None:
    assert [str(stream.family) for stream in event_feed.streams_of(pattern)] == families


@pytest.mark.parametrize(
    ("kind", "data", "gist"),
    [
        ("api-key.issued", {"api_key": {"apiId": "a", "name": "k"}}, "key k of a"),
        ("api-key.revoked", {"api_id": "a", "name": "k"}, "key k of a"),
        (
            "router.applied",
            {"node": "r", "revisions": {str(n): n for n in range(7)}},
            "router r: 0=0, 1=1, 2=2, 3=3, 4=4, ... (7 in all)",
        ),
        (
            "router.rejected",
            {"node": "", "api_id": "a", "revision": 2, "reason": "no"},
            "a revision 2 refused by compiler: no",
        ),
        ("usage.requests-served", {"node": "r", "group": [0, 0, 1]}, "3 requests at router r"),
        (
            "usage.access-log-gap",
            {"node": "r", "entries": 4},
            "4 requests at router r were not counted",
        ),
        ("dead-letter.recorded", {"consumer": "c", "reason": "no"}, "c: no"),
        ("new.kind", {"a": [1]}, '{"a":[1]}'),
        ("router.connected", "odd", '"odd"'),
    ],
)
def test_the_gist_of_an_event(kind: str, data: Any, gist: str) -> None:
    assert summary(kind, data) == gist


def test_a_time_that_is_none_is_shown_as_it_is() -> None:
    assert clock("soon").strip() == "soon"
    assert len(clock("2026-01-01T00:00:00.123Z")) == 18
