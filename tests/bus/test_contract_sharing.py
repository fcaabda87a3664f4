"""What every bus does for those who share work, whatever carries it."""

import asyncio

import pytest

from bus.events import ApiRetired, DeadLettered
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


async def test_work_comes_oldest_first_and_says_which_event_it_is(bus):
    for number in range(5):
        await bus.publish(retired(f"api-{number}"), event_id=f"id-{number}")
    async with bus.share("worker", STATE) as work:
        for number in range(5):
            delivery = await receive(work)
            assert (delivery.event, delivery.event_id, delivery.attempt) == (
                retired(f"api-{number}"),
                f"id-{number}",
                1,
            )
            await delivery.ack()


async def test_acknowledged_work_does_not_come_again(adapter):
    opened = adapter(share_ack_wait_s=0.2)
    async with opened.connect() as bus:
        await bus.publish(retired("a"))
        async with bus.share("worker", STATE) as work:
            await (await receive(work)).ack()
            assert await nothing_more(work, within_s=0.8)
        async with bus.share("worker", STATE) as work:
            assert await nothing_more(work, within_s=0.5)


async def test_unacknowledged_work_comes_again_to_another_worker(adapter):
    opened = adapter(share_ack_wait_s=0.5)
    async with opened.connect() as bus:
        await bus.publish(retired("a"), event_id="1")
        async with bus.share("worker", STATE) as crashing:
            assert (await receive(crashing)).attempt == 1
        async with bus.share("worker", STATE) as work:
            again = await receive(work)
            assert (again.event_id, again.attempt) == ("1", 2)
            await again.ack()


async def test_work_that_a_leaving_worker_never_saw_is_not_held_back(bus):
    for number in range(4):
        await bus.publish(retired(f"api-{number}"))
    async with bus.share("worker", STATE) as leaving:
        await (await receive(leaving)).ack()
    async with bus.share("worker", STATE) as work:  # the default wait for an ack is 30 s
        rest = [await receive(work) for _ in range(3)]
    assert {delivery.event.api_id for delivery in rest} == {"api-1", "api-2", "api-3"}


async def test_retried_work_comes_again_after_the_delay_not_before(bus):
    await bus.publish(retired("a"))
    async with bus.share("worker", STATE) as work:
        loop = asyncio.get_running_loop()
        await (await receive(work)).retry(delay_s=0.5)
        since = loop.time()
        again = await receive(work)
        assert loop.time() - since >= 0.45
        assert again.attempt == 2
        await again.retry()
        assert (await receive(work)).attempt == 3


async def test_work_given_up_is_on_the_dead_letter_and_does_not_come_again(adapter):
    opened = adapter(share_ack_wait_s=0.5)
    event = retired("a", org="acme", gateway="prod")
    async with opened.connect() as bus, bus.follow(pattern(Family.DEAD_LETTER)) as letters:
        await bus.publish(event, event_id="1")
        async with bus.share("quota keeper", STATE) as work:
            await (await receive(work)).dead_letter("no such quota")
            (letter,) = await take(letters, 1)
            assert await nothing_more(work, within_s=1)

    assert isinstance(letter, DeadLettered)
    assert (letter.consumer, letter.reason) == ("quota keeper", "no such quota")
    assert (letter.org, letter.gateway) == ("acme", "prod")
    assert letter.original_subject == event.subject
    assert ApiRetired.model_validate_json(letter.body) == event


@pytest.mark.parametrize(
    ("what", "changed", "reason"),
    [
        ("no envelope", {"ce_specversion": None}, "ce-specversion"),
        ("another version", {"ce_specversion": "0.3"}, "ce-specversion"),
        ("no id", {"ce_id": None}, "ce-id"),
        ("no source", {"ce_source": None}, "ce-source"),
        ("no type", {"ce_type": None}, "ce-type"),
        ("not JSON by its type", {"ce_datacontenttype": "text/plain"}, "ce-datacontenttype"),
        ("another event's body", {"ce_type": "sbx.router.applied"}, "node"),
    ],
)
async def test_malformed_work_is_on_the_dead_letter_with_the_reason(opened, what, changed, reason):
    async with opened.connect() as bus, bus.follow(pattern(Family.DEAD_LETTER)) as letters:
        await opened.store(*message(retired("bad"), "1", **changed))
        await bus.publish(retired("good"))
        async with bus.share("worker", STATE) as work:
            assert (await receive(work)).event == retired("good")
        (letter,) = await take(letters, 1)
        assert isinstance(letter, DeadLettered)
        assert reason in letter.reason
        assert letter.consumer == "worker"


async def test_an_event_that_speaks_for_another_organization_is_malformed(opened):
    _, headers, body = message(retired("a", org="victim"), "1")
    async with opened.connect() as bus, bus.follow(pattern(Family.DEAD_LETTER)) as letters:
        async with bus.follow(STATE) as feed:
            await opened.store(retired("a", org="attacker").subject, headers, body)
            await bus.publish(retired("b"))
            assert await take(feed, 1) == [retired("b")]
        (letter,) = await take(letters, 1)
        assert letter.org == "attacker"


async def test_work_of_an_unknown_kind_is_counted_and_done_with(adapter):
    opened = adapter(share_ack_wait_s=0.2)
    async with opened.connect() as bus:
        before = skipped("of.next-year"), skipped("com.example.order")
        await opened.store(*message(retired("x"), "1", ce_type="sbx.of.next-year"))
        await opened.store(*message(retired("y"), "2", ce_type="com.example.order"))
        await bus.publish(retired("good"))
        async with bus.share("worker", STATE) as work:
            delivery = await receive(work)
            assert delivery.event == retired("good")
            await delivery.ack()
            assert await nothing_more(work, within_s=0.8)
        assert (skipped("of.next-year"), skipped("com.example.order")) == (
            before[0] + 1,
            before[1] + 1,
        )


async def test_two_workers_split_the_work(opened):
    async def work_off(bus, done: list[str], finished: asyncio.Event) -> None:
        async with bus.share("worker", STATE) as work:
            async for delivery in work:
                done.append(delivery.event.api_id)
                await delivery.ack()
                if len(first) + len(second) >= 200:
                    finished.set()

    first: list[str] = []
    second: list[str] = []
    finished = asyncio.Event()
    async with (
        opened.connect("one") as one,
        opened.connect("two") as two,
        asyncio.TaskGroup() as group,
    ):
        workers = [
            group.create_task(work_off(one, first, finished)),
            group.create_task(work_off(two, second, finished)),
        ]
        for number in range(200):
            await one.publish(retired(f"api-{number}"))
        async with asyncio.timeout(30):
            await finished.wait()
        for worker in workers:
            worker.cancel()
    assert sorted(first + second) == sorted(f"api-{number}" for number in range(200))
    assert first
    assert second


async def test_consumers_of_different_names_both_get_everything(bus):
    await bus.publish(retired("a"))
    async with bus.share("one", STATE) as one, bus.share("two", STATE) as two:
        assert (await receive(one)).event == (await receive(two)).event == retired("a")


async def test_work_of_several_streams_and_patterns_comes_to_one_worker(bus):
    patterns = (pattern(Family.STATE, org="acme"), pattern(Family.ROUTER))
    await bus.publish(retired("mine", org="acme"))
    await bus.publish(retired("not mine", org="other"))
    await bus.publish(connected("router-1"))
    async with bus.share("worker", *patterns) as work:
        got = [await receive(work) for _ in range(2)]
        for delivery in got:
            await delivery.ack()
        assert {delivery.event.kind for delivery in got} == {"rest-api.retired", "router.connected"}
        await bus.publish(connected("router-2"))
        assert (await receive(work)).event == connected("router-2")


async def test_a_durable_consumer_goes_on_where_it_stopped(bus):
    async with bus.share("worker", STATE) as work:
        await bus.publish(retired("a"))
        await (await receive(work)).ack()
    await bus.publish(retired("b"))
    async with bus.share("worker", STATE) as work:
        delivery = await receive(work)
        assert delivery.event == retired("b")
        await delivery.ack()
