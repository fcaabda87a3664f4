"""What every bus does, whatever carries it."""

import asyncio
import base64
import json

import pytest
from opentelemetry import trace as tracing

from bus.errors import BusUnavailable
from bus.events import DeadLettered
from bus.memory import MemoryBus
from bus.subjects import Family, pattern
from tests.bus.adapters import (
    STATE,
    connected,
    message,
    nothing_more,
    receive,
    retired,
    skipped,
    take,
)

# -- follow ------------------------------------------------------------------------------------


async def test_follower_of_nothing_knows_at_once_that_there_is_no_backlog(bus):
    async with bus.follow(STATE) as feed:
        assert feed.backlog == 0
        await bus.publish(retired("a"))
        assert await take(feed, 1) == [retired("a")]


async def test_current_state_comes_first_one_event_per_subject(bus):
    for revision in (1, 2, 3):
        for api in ("a", "b"):
            await bus.publish(retired(api, revision))

    async with bus.follow(STATE) as feed:
        assert feed.backlog == 2
        assert await take(feed, 2) == [retired("a", 3), retired("b", 3)]
        await bus.publish(retired("c"))
        assert await take(feed, 1) == [retired("c")]


async def test_changes_come_in_the_order_of_publishing(bus):
    async with bus.follow(STATE) as feed:
        for revision in range(1, 201):
            await bus.publish(retired(f"api-{revision % 7}", revision))
        assert [event.revision for event in await take(feed, 200)] == list(range(1, 201))


async def test_a_second_follower_gets_everything_too(bus):
    async with bus.follow(STATE) as one, bus.follow(STATE) as other:
        await bus.publish(retired("a"))
        assert await take(one, 1) == await take(other, 1) == [retired("a")]


async def test_followers_see_only_their_organization_and_gateway(bus):
    await bus.publish(retired("before", org="acme", gateway="prod"))
    await bus.publish(retired("before", org="acme", gateway="test"))
    await bus.publish(retired("before", org="other", gateway="prod"))
    acme = pattern(Family.STATE, org="acme")
    acme_prod = pattern(Family.STATE, org="acme", gateway="prod")
    prod_anywhere = pattern(Family.STATE, gateway="prod")

    async with bus.follow(acme) as all_acme, bus.follow(acme_prod) as one:
        assert (all_acme.backlog, one.backlog) == (2, 1)
        assert {event.gateway for event in await take(all_acme, 2)} == {"prod", "test"}
        assert await take(one, 1) == [retired("before", org="acme", gateway="prod")]
    async with bus.follow(prod_anywhere) as feed:
        assert {event.org for event in await take(feed, feed.backlog)} == {"acme", "other"}


async def test_backlog_counts_over_all_patterns_and_streams(bus):
    for number in range(3):
        await bus.publish(retired(f"api-{number}"))
    await bus.publish(connected("router-1"))
    await bus.publish(retired("elsewhere", gateway="other"))
    patterns = (
        pattern(Family.STATE, "rest-api", ">", gateway="default"),
        pattern(Family.STATE, "api-key", ">", gateway="default"),
        pattern(Family.ROUTER),
    )

    async with bus.follow(*patterns) as feed:
        assert feed.backlog == 4
        events = await take(feed, 4)
        assert connected("router-1") in events
        await bus.publish(connected("router-2"))
        await bus.publish(retired("api-9"))
        assert {event.kind for event in await take(feed, 2)} == {
            "router.connected",
            "rest-api.retired",
        }


async def test_a_pattern_within_another_does_not_double_events(bus):
    await bus.publish(retired("a"))
    async with bus.follow(pattern(Family.STATE, "rest-api", "a"), STATE) as feed:
        assert feed.backlog == 1
        await take(feed, 1)
        await bus.publish(retired("a", 2))
        assert await take(feed, 1) == [retired("a", 2)]
        assert await nothing_more(feed)


async def test_patterns_that_select_nothing_or_overlap_are_refused_by_name(bus):
    with pytest.raises(ValueError, match="at least one"):
        async with bus.follow():
            pass
    with pytest.raises(ValueError, match=r"'sbx\.\*\.\*\.state' names no stream"):
        async with bus.follow("sbx.*.*.state"):
            pass
    with pytest.raises(ValueError, match="overlap"):
        async with bus.follow(
            pattern(Family.STATE, org="acme"), pattern(Family.STATE, gateway="prod")
        ):
            pass


async def test_backlog_leaves_out_what_cannot_be_read(opened):
    async with opened.connect() as bus:
        await bus.publish(retired("a"))
        await opened.store(*message(retired("b"), "1", ce_type="sbx.from.the-future"))
        await opened.store(*message(retired("c"), "2")[:2], b"{}")
        await bus.publish(retired("d"))

        async with bus.follow(STATE) as feed:
            assert feed.backlog == 2
            assert await take(feed, 2) == [retired("a"), retired("d")]


async def test_follower_counts_unknown_kinds_and_goes_on(opened):
    async with opened.connect() as bus, bus.follow(STATE) as feed:
        before = skipped("from.tomorrow")
        await opened.store(*message(retired("b"), "1", ce_type="sbx.from.tomorrow"))
        await bus.publish(retired("a"))
        assert await take(feed, 1) == [retired("a")]
        assert skipped("from.tomorrow") == before + 1


async def test_follower_puts_malformed_events_on_the_dead_letter_and_goes_on(opened):
    async with (
        opened.connect("xds") as bus,
        bus.follow(STATE) as feed,
        bus.follow(pattern(Family.DEAD_LETTER)) as letters,
    ):
        subject, headers, _ = message(retired("b", org="acme"), "1")
        await opened.store(subject, headers, b"\xff")
        await bus.publish(retired("a"))
        assert await take(feed, 1) == [retired("a")]
        (letter,) = await take(letters, 1)

    assert isinstance(letter, DeadLettered)
    assert (letter.org, letter.original_subject) == ("acme", subject)
    assert (letter.body_encoding, base64.b64decode(letter.body)) == ("base64", b"\xff")
    assert letter.headers["ce-id"] == "1"
    assert "body" in letter.reason


async def test_what_is_malformed_on_the_dead_letter_stays_there(opened):
    letter = DeadLettered(
        consumer="c", reason="r", original_subject="s", headers={}, body="not an event"
    )
    async with opened.connect() as bus, bus.follow(pattern(Family.DEAD_LETTER)) as feed:
        await opened.store(*message(letter, "1")[:2], b"neither")
        await bus.publish(letter)
        assert await take(feed, 1) == [letter]
        assert await nothing_more(feed)


# -- publish -----------------------------------------------------------------------------------


async def test_the_same_event_id_is_stored_once(bus):
    async with bus.follow(STATE) as feed:
        for _ in range(3):
            await bus.publish(retired("a"), event_id="change-1")
        await bus.publish(retired("b"), event_id="change-2")
        assert await take(feed, 2) == [retired("a"), retired("b")]
        assert await nothing_more(feed)


async def test_events_without_an_id_get_one_each(bus):
    async with bus.follow(STATE) as feed:
        await bus.publish(retired("a"))
        await bus.publish(retired("a"))
        assert await take(feed, 2) == [retired("a")] * 2


async def test_publishing_at_once_from_many_tasks_loses_nothing(bus):
    async with bus.follow(STATE) as feed:
        await asyncio.gather(*(bus.publish(retired(f"api-{n}")) for n in range(300)))
        assert {event.api_id for event in await take(feed, 300)} == {f"api-{n}" for n in range(300)}


async def test_odd_names_survive_the_journey(bus):
    odd = retired('Ünïcode | 100% . > * "quoted"\n', org="a.b", gateway="*")
    async with bus.share("w", STATE) as work, bus.follow(STATE) as feed:
        await bus.publish(odd, event_id="id with spaces, 100 % ü")
        assert await take(feed, 1) == [odd]
        delivery = await receive(work)
        assert (delivery.event, delivery.event_id) == (odd, "id with spaces, 100 % ü")
        await delivery.ack()


async def test_a_newer_sender_is_understood(opened):
    subject, headers, body = message(retired("a"), "1")
    newer = json.dumps(json.loads(body) | {"new_field": {"deep": 1}}).encode()
    async with opened.connect() as bus, bus.follow(STATE) as feed:
        await opened.store(subject, headers, newer)
        assert await take(feed, 1) == [retired("a")]


# -- what the bus says of itself ---------------------------------------------------------------


async def test_a_bus_that_works_says_so_and_has_lost_nothing(bus):
    assert bus.connected
    assert bus.epoch == 0
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await bus.next_epoch(0)


async def test_the_senders_trace_goes_on_at_the_receiver(opened):
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    subject, headers, body = message(retired("a"), "1")
    headers["traceparent"] = f"00-{trace}-00f067aa0ba902b7-01"
    async with opened.connect() as bus, bus.share("worker", STATE) as work:
        await opened.store(subject, headers, body)
        async with asyncio.timeout(30):
            delivery = await anext(work)
            async with bus.follow(pattern(Family.ROUTER)) as feed:
                await bus.publish(connected("because of it"))  # carries the trace on
                await anext(feed)
        assert f"{tracing.get_current_span().get_span_context().trace_id:032x}" == trace
        await delivery.ack()


async def test_publishing_without_a_broker_fails_in_a_bounded_time():
    bus = MemoryBus()
    bus.connected = False
    with pytest.raises(BusUnavailable):
        await bus.publish(retired("a"))
