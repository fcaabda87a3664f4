"""The receiver, spoken to as a router does, and what it reads from entries."""

import asyncio
import socket

import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from analytics.access_log import receive_access_logs
from analytics.batch import requests_served
from analytics.errors import CannotListen
from analytics.outbox import Outbox
from analytics.settings import AnalyticsSettings
from bus.usage import AccessLogGap, RequestsServed
from tests.analytics.receiving import DEADLINE_S, Bus, receiving
from xds.wire.messages import build, message_class

MESSAGE = "envoy.service.accesslog.v3.StreamAccessLogsMessage"
METHOD = "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"


def entry(**common):
    return {
        "common_properties": {
            "start_time": "2025-11-23T00:00:00.5Z",
            "duration": "0.0015s",
            "route_name": "GET|/w|*|w",
            **common,
        },
        "request": {
            "request_headers_bytes": 10,
            "request_body_bytes": 5,
            "request_headers": {"x-signalbox-application": "web%20shop"},
        },
        "response": {
            "response_code": 200,
            "response_headers_bytes": 20,
            "response_body_bytes": 1,
            "response_code_details": "rbac_access_denied_matched_policy[none]",
        },
    }


def message(*entries, node=None):
    document = {"http_logs": {"log_entry": list(entries)}}
    if node:
        document["identifier"] = {"node": {"id": node}, "log_name": "signalbox"}
    return build(MESSAGE, document).SerializeToString()


async def deliver(target, *messages):
    async def stream():
        for one in messages:
            yield one

    async with grpc.aio.insecure_channel(target) as channel:
        return await channel.stream_unary(METHOD)(stream())


async def test_messages_of_a_stream_carry_the_node_of_the_first(tmp_path):
    path = tmp_path / "als.sock"
    async with receiving(access_log_socket=path) as (bus, _):
        assert path.stat().st_mode & 0o777 == 0o600
        answer = await deliver(
            f"unix:{path}", message(entry(), node="router-7"), message(entry(), entry())
        )
        assert answer == b""
    events = bus.events(RequestsServed)
    assert [(one.node, len(one.group)) for one in events] == [("router-7", 1), ("router-7", 2)]
    assert not path.exists()


async def test_an_unreadable_message_is_a_gap_and_the_stream_goes_on():
    async with receiving(access_log_port=0) as (bus, listening):
        target = f"127.0.0.1:{listening.port}"
        await deliver(target, message(entry(), node="router-7"), b"\xff\xff", message(entry()))
    assert len(bus.events(RequestsServed)) == 2
    (gap,) = bus.events(AccessLogGap)
    assert (gap.node, gap.reason, gap.entries) == ("router-7", "unreadable", 1)


async def test_a_message_larger_than_envoys_becomes_several_events():
    async with receiving(access_log_port=0) as (bus, listening):
        await deliver(f"127.0.0.1:{listening.port}", message(*[entry()] * 4500, node="r"))
    assert [len(one.group) for one in bus.events(RequestsServed)] == [2000, 2000, 500]


async def test_a_message_without_entries_is_no_event():
    async with receiving(access_log_port=0) as (bus, listening):
        await deliver(f"127.0.0.1:{listening.port}", message(node="r"))
    assert not bus.taken


async def test_bytes_that_are_no_http2_do_no_harm():
    async with receiving(access_log_port=0) as (bus, listening):
        reader, writer = await asyncio.open_connection("127.0.0.1", listening.port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n" * 10)
        async with asyncio.timeout(DEADLINE_S):
            await reader.read()
        writer.close()
        await deliver(f"127.0.0.1:{listening.port}", message(entry(), node="r"))
    assert len(bus.events(RequestsServed)) == 1


async def test_what_a_dead_process_left_behind_is_replaced_and_a_living_one_is_not(tmp_path):
    path = tmp_path / "als.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with receiving(access_log_socket=path):
        with pytest.raises(CannotListen, match="another process listens there"):
            async with receive_access_logs(
                AnalyticsSettings(access_log_socket=path), Outbox(Bus(), 1)
            ):
                pass
        assert path.exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "access_log_socket and access_log_port are both unset"),
        ({"access_log_socket": "/nowhere/als.sock"}, "/nowhere/als.sock: No such file"),
        ({"access_log_fd": 9999}, "file descriptor 9999"),
        ({"access_log_port": 1, "access_log_host": "192.0.2.1"}, "192.0.2.1:1: "),
    ],
)
async def test_an_address_that_cannot_be_used_is_told(settings, words):
    with pytest.raises(CannotListen, match=words):
        async with receive_access_logs(AnalyticsSettings(**settings), Outbox(Bus(), 1)):
            pass


def test_a_socket_path_that_is_too_long_is_refused_in_the_settings():
    with pytest.raises(ValidationError, match="access_log_socket is longer than 107 bytes"):
        AnalyticsSettings(access_log_socket="/" + "x" * 107)


def entries_of(*entries):
    return message_class(MESSAGE).FromString(message(*entries)).http_logs.log_entry


def test_an_entry_becomes_a_row_of_the_columns():
    event = requests_served(
        "router-1",
        entries_of(
            entry(
                time_to_first_upstream_tx_byte="0.0002s",
                time_to_last_upstream_rx_byte="0.0011s",
            ),
            entry(start_time="2025-11-23T00:00:00.2Z"),
        ),
    )
    assert event.since_ms == 1_763_856_000_200
    assert (event.after_ms, event.duration_us) == ((300, 0), (1500, 1500))
    assert event.upstream_us == (900, 0)
    assert (event.request_bytes, event.response_bytes) == ((15, 15), (21, 21))
    assert event.group == (0, 0)
    (group,) = event.groups
    assert (group.route, group.application, group.status) == ("GET|/w|*|w", "web shop", 200)
    assert group.details == "rbac_access_denied_matched_policy"


def test_an_entry_that_says_nothing_is_still_a_request():
    event = requests_served("router-1", entries_of({}))
    assert (event.group, event.duration_us, event.since_ms) == ((0,), (0,), 0)
    assert event.groups[0].status == 0


NUMBERS = st.integers(-(1 << 31), (1 << 31) - 1)


@given(
    st.lists(
        st.tuples(
            st.integers(-(1 << 40), 1 << 40), NUMBERS, st.integers(0, (1 << 64) - 1), st.text()
        ),
        min_size=1,
        max_size=5,
    )
)
def test_whatever_a_broken_router_says_becomes_a_valid_event(said):
    made = message_class(MESSAGE)()
    for seconds, nanos, size, text in said:
        one = made.http_logs.log_entry.add()
        one.common_properties.start_time.seconds = seconds
        one.common_properties.start_time.nanos = nanos
        one.common_properties.duration.seconds = -seconds
        one.common_properties.time_to_first_upstream_tx_byte.seconds = seconds
        one.common_properties.route_name = text
        one.request.request_body_bytes = size
        one.request.request_headers_bytes = size
        one.response.response_code.value = size % (1 << 32)
        one.response.response_code_details = text
    event = requests_served("router-1", made.http_logs.log_entry)
    assert RequestsServed.model_validate_json(event.model_dump_json()) == event
