"""What real Envoys do with what the server tells them."""

import asyncio
import contextlib
import os
import signal
import socket as stdlib_socket
import stat
from collections import Counter
from dataclasses import replace

import grpc
import pytest

from tests.servers.envoy import envoy
from tests.servers.http_backend import Answer, http_backend
from tests.xds.ads.certificates import authority_and_pairs, development_authority
from tests.xds.ads.routers import (
    PACE,
    Recorded,
    ads,
    answers,
    authorities,
    bad,
    bootstrap,
    calling,
    cluster,
    listener,
    needs_secret,
    router,
    routes,
    socket_folder,
)
from xds.ads.codec import METHOD, SERVICE
from xds.ads.protocol import CLUSTER
from xds.ads.server import AdsServer, Tls
from xds.ads.stream import Pace


async def test_a_router_gets_everything_and_every_change() -> None:
    events = Recorded()
    async with socket_folder() as socket, ads(socket, events) as server:
        first = [listener(), answers("a", "1"), answers("b", "1")]
        server.publish(first)
        async with router(socket) as (_, caller):
            await events.has(*first)
            assert events.connections == [("router", "1.40.0")]
            assert await caller.get("/a/x") == (200, "1")
            assert await caller.get("/none") == (404, "")
            changed, added = answers("a", "2"), answers("c", "1")
            server.publish([changed, added], [answers("b").key])
            await events.has(changed, added)
            await events.lacks(answers("b").key)
            await caller.until("/a", (200, "2"))
            await caller.until("/c", (200, "1"))
            await caller.until("/b", (404, ""))
        await events.until(lambda: events.disconnections == ["router"])


async def test_one_bad_scope_among_fifty_leaves_fifty_live() -> None:
    events = Recorded()
    async with socket_folder() as socket, ads(socket, events) as server:
        before = answers("bad", "last good")
        server.publish([listener(), before])
        async with router(socket) as (_, caller):
            await events.has(before)
            good = [answers(f"good{number}") for number in range(50)]
            guilty = bad("bad")
            server.publish([*good[:20], guilty, *good[20:]])
            await events.has(*good)
            await events.until(lambda: bool(events.rejections))
            assert events.rejections == [
                ("router", guilty.type_url, guilty.name, guilty.version, "missing ): (")
            ]
            for number in range(50):
                await caller.until(f"/good{number}", (200, "ok"))
            assert await caller.get("/bad") == (200, "last good")
            again = answers("good1", "changed")
            server.publish([again])  # the quarantined version is not tried again
            await events.has(again)
            assert len(events.rejections) == 1
            repaired = answers("bad", "repaired")
            server.publish([repaired])
            await events.has(repaired)
            await caller.until("/bad", (200, "repaired"))


async def test_one_bad_cluster_is_refused_alone() -> None:
    events = Recorded()
    async with (
        socket_folder() as socket,
        ads(socket, events) as server,
        http_backend(lambda _: Answer(body=b"up")) as backend,
    ):
        server.publish([listener()])
        async with router(socket) as (_, caller):
            good = [cluster(f"good{number}", backend.port) for number in range(5)]
            guilty = cluster("guilty", 1, host="no-address")
            served = routes("a", "good4", precise=True)
            held = routes("b", "guilty", precise=True)
            server.publish([good[0], guilty, *good[1:], served, held])
            await events.has(*good, served)
            await events.until(lambda: bool(events.rejections))
            ((_, _, name, version, reason),) = events.rejections
            assert (name, version) == ("guilty", guilty.version)
            assert "malformed IP address: no-address" in reason
            await caller.until("/a", (200, "up"))
            assert await caller.get("/b") == (404, "")  # not 503: its cluster is not there
            repaired = cluster("guilty", backend.port)
            server.publish([repaired])
            await events.has(repaired, held)
            await caller.until("/b", (200, "up"))


async def test_a_restarted_router_gets_everything_again() -> None:
    events = Recorded()
    async with socket_folder() as socket, ads(socket, events) as server:
        before, guilty = answers("a", "last good"), bad("a")
        server.publish([listener(), before, answers("b")])
        async with router(socket):
            await events.has(before)
            server.publish([guilty])
            await events.until(lambda: bool(events.rejections))
        await events.until(lambda: "router" not in events.versions)
        async with router(socket) as (_, caller):
            await events.has(before, answers("b"))
            await caller.until("/a", (200, "last good"))
            await caller.until("/b", (200, "ok"))
        assert len(events.rejections) == 1


async def test_a_restarted_server_sends_only_what_differs() -> None:
    events = Recorded()
    same = [answers(f"same{number}") for number in range(20)]
    old, stale, fresh = answers("old"), answers("x", "1"), answers("x", "2")
    async with socket_folder() as socket, contextlib.AsyncExitStack() as stack:
        async with ads(socket, events) as server:
            server.publish([listener(), *same, old, stale])
            _, caller = await stack.enter_async_context(router(socket))
            await events.has(*same, old, stale)
        assert await caller.get("/same1") == (200, "ok")  # nobody is there, and it serves
        again = Recorded()
        async with ads(socket, again, opened=False) as server:
            await again.until(lambda: again.versions.get("router", {}).get(old.key) is not None)
            server.publish([listener(), *same, fresh])
            assert await caller.get("/old") == (200, "ok")  # half a gateway is not served
            server.open()
            await again.has(listener(), *same, fresh)
            await again.lacks(old.key)
            told = [each for each in again.applied_log if same[0].key not in each]
            assert {fresh.key: fresh.version} in told
            assert {old.key: None} in told
            assert all(set(each) <= {fresh.key, old.key, listener().key} for each in told)
            await caller.until("/x", (200, "2"))
            await caller.until("/old", (404, ""))


async def test_nothing_is_answered_before_the_server_is_open() -> None:
    events = Recorded()
    async with (
        socket_folder() as socket,
        ads(socket, events, opened=False) as server,
        envoy(bootstrap("router", socket), wait_live=False) as one,
    ):
        await events.until(lambda: bool(events.connections))
        server.publish([listener(), answers("a")])
        assert (await one.admin("/ready")).status_code == 503
        assert server.nodes == {"router": {}}
        server.open()
        await events.has(answers("a"))
        assert server.nodes["router"] == events.versions["router"]


async def test_no_request_fails_while_upstreams_are_replaced() -> None:
    """Each change moves the scope to a new cluster and removes the old one."""
    events = Recorded()
    async with (
        socket_folder() as socket,
        ads(socket, events) as server,
        http_backend(lambda _: Answer(body=b"up")) as backend,
    ):
        server.publish([listener(), cluster("c0", backend.port), routes("a", "c0")])
        async with router(socket, concurrency=2) as (one, caller):
            await events.has(routes("a", "c0"))
            statuses: Counter[int] = Counter()
            done = asyncio.Event()

            async def call() -> None:
                async with calling(one) as mine:
                    while not done.is_set():
                        statuses[(await mine.get("/a"))[0]] += 1

            async with asyncio.TaskGroup() as group:
                callers = [group.create_task(call()) for _ in range(4)]
                for number in range(1, 200):
                    old, new = f"c{number - 1}", f"c{number}"
                    moved = routes("a", new, precise=number % 2 == 0)
                    server.publish([moved, cluster(new, backend.port)], [(CLUSTER, old)])
                    if number % 10 == 0:
                        await events.has(moved)
                await events.lacks(*((CLUSTER, f"c{number}") for number in range(199)))
                done.set()
                await asyncio.wait(callers)
            assert statuses.keys() == {200}
            assert statuses[200] > 50
            assert await caller.get("/a") == (200, "up")


async def test_a_scope_waits_until_its_cluster_is_warm() -> None:
    """The cluster needs a secret that comes later: another scope does not wait for it."""
    events = Recorded()
    async with socket_folder() as socket, ads(socket, events) as server:
        server.publish([listener(), answers("a", "old")])
        async with router(socket) as (_, caller):
            await events.has(answers("a", "old"))
            cold = cluster("cold", 1, **needs_secret("ca"))
            moved = routes("a", "cold", precise=True)
            other = replace(answers("b"), needs=frozenset())
            server.publish([cold, moved, other])
            await events.has(other)
            await caller.until("/b", (200, "ok"))
            assert await caller.get("/a") == (200, "old")
            assert server.nodes["router"].keys().isdisjoint({cold.key})
            secret = authorities("ca", development_authority())
            server.publish([secret])
            await events.has(secret, cold, moved)
            assert (await caller.get("/a"))[0] == 503  # nobody listens on port 1


async def test_who_waits_too_long_for_a_cold_cluster_goes_ahead() -> None:
    events = Recorded()
    pace = Pace(linger_s=0.0, patience_s=0.3)
    async with socket_folder() as socket, ads(socket, events, pace=pace) as server:
        server.publish([listener()])
        async with router(socket) as (_, caller):
            await events.has(listener())
            server.publish([cluster("cold", 1, **needs_secret("ca"))])
            server.publish([answers("a")])  # does not say what it needs
            await events.has(answers("a"))
            await caller.until("/a", (200, "ok"))


async def test_a_bad_secret_is_refused_and_the_old_one_stays() -> None:
    events = Recorded()
    async with socket_folder() as socket, ads(socket, events) as server:
        good = authorities("ca", development_authority())
        server.publish([listener(), good, cluster("c", 1, **needs_secret("ca"))])
        async with router(socket):
            await events.has(good)
            server.publish([authorities("ca", "nonsense")])
            await events.until(lambda: bool(events.rejections))
            ((_, _, name, _, reason),) = events.rejections
            assert name == "ca"
            assert "Failed to load trusted CA" in reason
            assert events.versions["router"][good.key] == good.version


async def test_a_listener_that_is_removed_and_added_gets_its_scopes_again() -> None:
    events = Recorded()
    async with socket_folder() as socket, ads(socket, events) as server:
        server.publish([listener(), answers("a")])
        async with router(socket) as (one, _):
            await events.has(answers("a"))
            server.publish([], [listener().key])
            await events.lacks(listener().key)
            server.publish([listener(), answers("a", "2")])
            await events.has(listener(), answers("a", "2"))
            async with calling(one) as caller:
                await caller.until("/a", (200, "2"))


async def test_routers_are_told_apart_and_a_stopped_one_holds_up_nobody() -> None:
    events = Recorded()
    async with socket_folder() as socket, ads(socket, events) as server:
        server.publish([listener(), answers("a", "1")])
        async with router(socket, "one") as (first, _), router(socket, "two") as (_, caller):
            await events.has(answers("a", "1"), node="one")
            await events.has(answers("a", "1"), node="two")
            os.kill(first.pid, signal.SIGSTOP)
            try:
                for number in range(2, 60):
                    changed = answers("a", str(number))
                    server.publish([changed])
                    await events.has(changed, node="two")
                await caller.until("/a", (200, "59"))
                assert events.versions["one"][changed.key] == answers("a", "1").version
            finally:
                os.kill(first.pid, signal.SIGCONT)
            await events.has(changed, node="one")
            assert len(events.applied_log) < 60 + 20  # the slow one skipped what it missed


async def test_of_two_routers_with_one_name_the_newer_is_served() -> None:
    events = Recorded()
    async with socket_folder() as socket, ads(socket, events) as server:
        server.publish([listener(), answers("a")])
        async with router(socket) as (_, older):
            await events.has(answers("a"))
            async with router(socket) as (_, newer):
                await events.until(lambda: len(events.connections) >= 2)
                assert await older.get("/a") == (200, "ok")
                await newer.until("/a", (200, "ok"))
                server.publish([answers("a", "2")])
                await newer.until("/a", (200, "2"))
                await older.until("/a", (200, "2"))  # they take turns: each gets it
            assert len(server.nodes) <= 1


async def test_routers_come_over_tls_with_a_certificate_of_their_own() -> None:
    events = Recorded()
    async with socket_folder() as socket:
        folder = socket.parent
        keys = authority_and_pairs(folder)
        tls = Tls(keys.server_certificate, keys.server_key, keys.authority)
        async with AdsServer(events, address=("127.0.0.1", 0), tls=tls, pace=PACE) as server:
            server.open()
            server.publish([listener(), answers("a")])
            assert server.port is not None
            stranger = bootstrap("stranger", port=server.port)
            known = bootstrap("known", port=server.port)
            (static,) = known["static_resources"]["clusters"]
            static["transport_socket"] = keys.client_socket()
            async with envoy(stranger, wait_live=False), envoy(known) as one:
                await events.has(answers("a"), node="known")
                async with calling(one) as caller:
                    await caller.until("/a", (200, "ok"))
            assert {node for node, _ in events.connections} == {"known"}


async def test_an_address_that_is_taken_is_said_so() -> None:
    events = Recorded()
    async with AdsServer(events, address=("127.0.0.1", 0)) as server:
        with pytest.raises(OSError, match="cannot listen on"):
            async with AdsServer(events, address=("127.0.0.1", server.port)):
                pass


async def test_the_socket_is_private_and_a_stale_one_is_replaced() -> None:
    events = Recorded()
    async with socket_folder() as socket:
        left = stdlib_socket.socket(stdlib_socket.AF_UNIX)
        left.bind(str(socket))
        left.close()
        async with ads(socket, events):
            assert stat.S_IMODE(socket.stat().st_mode) == 0o600
        assert not socket.exists()


async def test_what_is_no_request_ends_the_stream_only() -> None:
    events = Recorded()
    async with socket_folder() as socket, ads(socket, events) as server:
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            method = channel.stream_stream(f"/{SERVICE}/{METHOD}")
            for garbage in (b"\xff\xff", b""):
                call = method()
                await call.write(garbage)
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    assert await call.read() is not grpc.aio.EOF
                assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        server.publish([listener(), answers("a")])
        async with router(socket):
            await events.has(answers("a"))
