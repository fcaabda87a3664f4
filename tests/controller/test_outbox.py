"""The relay: at least once, in order, whatever dies."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bus.errors import MalformedEvent
from bus.events import ApiPublished, Event, RecordPublished
from bus.memory import MemoryBus
from controller.memory import MemoryRecord
from controller.outbox import Relay
from controller.ports import Record, UnitOfWork
from tests.controller.samples import NOW, api, eventually, key, put, revisions, state_on


class Recorder(MemoryBus):
    """Remembers what was published, under which id."""

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str | None, Event]] = []
        self.refuses: set[str] = set()

    async def publish(self, event: Event, *, event_id: str | None = None) -> None:
        if isinstance(event, ApiPublished) and event.api.id in self.refuses:
            raise MalformedEvent("too large")
        await super().publish(event, event_id=event_id)
        self.log.append((event_id, event))

    def of(self, name: str) -> list[int]:
        """Revisions of an API in the order they were told."""
        return [
            event.revision
            for _, event in self.log
            if isinstance(event, ApiPublished) and event.api.id == name
        ]


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


def relay_of(record: Record, bus: MemoryBus) -> Relay:
    return Relay(record, bus, poll_s=0.05, batch=4)


@asynccontextmanager
async def relaying(record: Record, bus: MemoryBus) -> AsyncIterator[None]:
    task = asyncio.create_task(relay_of(record, bus).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


async def told(bus: MemoryBus, **expected: int) -> None:
    async def holds() -> bool:
        return revisions(await state_on(bus)) == expected

    await eventually(holds, f"{expected} on the bus")


async def emptied(record: Record) -> None:
    async def holds() -> bool:
        return not await record.pending(1)

    await eventually(holds, "the outbox is empty")


async def change(record: Record, name: str = "weather", **spec: object) -> int:
    def work(unit: UnitOfWork) -> int:
        row = api(name, unit.hold(name), **spec)
        unit.put_api(row)
        unit.tell(row.event())
        return row.revision

    return await record.change(work)


async def test_what_is_committed_is_told_in_order_and_forgotten(
    record: Record, recorder: Recorder
) -> None:
    async with relaying(record, recorder):
        for _ in range(10):
            await change(record)
        await told(recorder, weather=10)
        await emptied(record)
    assert recorder.of("weather") == list(range(1, 11))


async def test_a_change_is_told_without_waiting_for_the_poll(
    record: Record, recorder: Recorder
) -> None:
    relay = Relay(record, recorder, poll_s=3600, batch=4)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(relay.run())
        await eventually(lambda: _whole(recorder), "the record was told")
        await change(record)
        await told(recorder, weather=1)
        task.cancel()


async def test_changes_are_accepted_while_the_bus_is_away(
    record: Record, recorder: Recorder
) -> None:
    async with relaying(record, recorder):
        await change(record)
        await told(recorder, weather=1)
        recorder.connected = False
        for _ in range(5):
            await change(record)
        await change(record, "tides")
        recorder.connected = True
        await told(recorder, weather=6, tides=1)
    assert recorder.of("weather") == list(range(1, 7))


async def test_a_process_that_died_before_publishing_tells_it_later(
    record: Record, recorder: Recorder
) -> None:
    await change(record)
    await change(record)
    ids = [one.event_id for one in await record.pending(10)]
    async with relaying(record, recorder):  # the process after it
        await told(recorder, weather=2)
    assert [event_id for event_id, event in recorder.log if isinstance(event, ApiPublished)] == ids


async def test_a_process_that_died_after_publishing_tells_it_again_under_the_same_id(
    record: Record, recorder: Recorder
) -> None:
    await change(record)
    (outgoing,) = await record.pending(10)
    event = ApiPublished.model_validate_json(outgoing.body)
    await recorder.publish(event, event_id=outgoing.event_id)  # and died here
    async with relaying(record, recorder):
        await emptied(record)
    ids = [event_id for event_id, one in recorder.log if isinstance(one, ApiPublished)]
    assert ids == [outgoing.event_id] * 2
    assert len(recorder._logs["sbx-state"].messages) == 2  # the event once, and RecordPublished


async def test_a_bus_that_lost_everything_is_told_everything(
    record: Record, recorder: Recorder
) -> None:
    async with relaying(record, recorder):
        await put(record, api("a"), api("b"), key("a"))
        await put(record, api("b").tombstone(NOW))
        await told(recorder, **{"a": 1, "b": -2, "a/mine": 1})
        await emptied(record)
        for _ in range(3):
            recorder.lose_everything()
            await told(recorder, **{"a": 1, "b": -2, "a/mine": 1})
            await eventually(lambda: _whole(recorder), "the record was told")


async def test_the_record_is_called_whole_only_after_all_of_it(
    record: Record, recorder: Recorder
) -> None:
    await put(record, *(api(f"a{number}") for number in range(10)))
    async with relaying(record, recorder):
        await eventually(lambda: _whole(recorder), "the record was told")
    last = recorder.log[-1][1]
    assert isinstance(last, RecordPublished)
    assert last.apis == 10
    assert len(recorder.log) == 11


async def test_an_event_that_no_broker_takes_does_not_hold_up_the_others(
    record: Record, recorder: Recorder
) -> None:
    recorder.refuses = {"huge"}
    async with relaying(record, recorder):
        await change(record, "huge")
        await change(record, "fine")
        await told(recorder, fine=1)
        await emptied(record)


async def test_an_outbox_row_of_an_unknown_kind_does_not_hold_up_the_others(
    recorder: Recorder,
) -> None:
    record = MemoryRecord()
    await change(record)
    number, row = next(iter(record._outbox.items()))
    record._outbox[number] = type(row)(number, row.event_id, "rest-api.unheard", b"{}")
    async with relaying(record, recorder):
        await change(record, "fine")
        await told(recorder, fine=1, weather=1)  # the record itself is compared, too


async def test_a_bus_that_comes_and_goes_ends_with_the_newest(
    record: Record, recorder: Recorder
) -> None:
    flaky = recorder

    async def flicker() -> None:
        for turn in range(30):
            await asyncio.sleep(0.01)
            flaky.connected = not flaky.connected
            if turn % 10 == 9:
                flaky.lose_everything()
        flaky.connected = True

    async with relaying(record, flaky):
        flickering = asyncio.create_task(flicker())
        for _ in range(30):
            await change(record)
            await asyncio.sleep(0.005)
        await flickering
        await told(flaky, weather=30)
        await emptied(record)


async def _whole(bus: MemoryBus) -> bool:
    return any(isinstance(event, RecordPublished) for event in await state_on(bus))
