"""What real Envoys do with what the server tells them."""

from tests.servers.http_backend import Answer, http_backend
from tests.xds.ads.routers import (
    Recorded,
    ads,
    answers,
    bad,
    cluster,
    listener,
    router,
    routes,
    socket_folder,
)


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
