"""Record and bus agree: the higher revision wins, on both sides."""

from dataclasses import replace

from bus.events import ApiPublished, RouterConnected, event_class
from bus.memory import MemoryBus
from bus.resources.subscription import Subscription
from bus.resources.subscription_plan import SubscriptionPlan
from controller.memory import MemoryRecord
from controller.model import ApiFilter
from controller.ports import Record, UnitOfWork
from controller.reconcile import Reconciliation, reconcile
from controller.resources import ResourceFilter
from tests.controller.samples import (
    NOW,
    api,
    application,
    key,
    plan,
    put,
    revisions,
    state_on,
    subscription,
)


async def told_long_ago(record: Record, *rows) -> None:
    """On record, and not in the outbox any more."""
    await put(record, *rows)
    await record.forget([one.number for one in await record.pending(99)])


async def agree(record: Record, bus: MemoryBus) -> Reconciliation:
    """Reconcile, and let the outbox be relayed."""
    done = await reconcile(record, bus)
    for one in await record.pending(99):
        event = event_class(one.kind).model_validate_json(one.body)
        await bus.publish(event, event_id=one.event_id)
        await record.forget([one.number])
    return done


async def tell(bus: MemoryBus, *rows) -> None:
    for row in rows:
        await bus.publish(row.event())


async def test_an_empty_bus_is_told_everything(record: Record, bus: MemoryBus) -> None:
    await told_long_ago(
        record, api("a"), api("gone").tombstone(NOW), key("a"), key("a", "old").tombstone(NOW)
    )
    done = await agree(record, bus)
    assert (done.apis, done.published, done.adopted) == (1, 4, 0)
    expected = {"a": 1, "gone": -2, "a/mine": 1, "a/old": -2}
    assert revisions(await state_on(bus)) == expected


async def test_nothing_is_told_when_both_agree(record: Record, bus: MemoryBus) -> None:
    await told_long_ago(record, api("a"), api("gone").tombstone(NOW), key("a"))
    await agree(record, bus)
    done = await agree(record, bus)
    assert (done.published, done.adopted) == (0, 0)
    assert len(await state_on(bus)) == 3
    assert not await record.pending(10)


async def test_the_address_of_a_gateway_is_no_difference(record: Record, bus: MemoryBus) -> None:
    address = {"org": "acme", "gateway": "edge"}
    for row in (api("a"), key("a")):
        await told_long_ago(record, row)
        await bus.publish(row.event().model_copy(update=address))
    done = await agree(record, bus)
    assert (done.published, done.adopted) == (0, 0)


async def test_an_empty_record_takes_everything_over(record: Record, bus: MemoryBus) -> None:
    rows = [
        api("a", policies=[{"name": "cors", "params": {"x": None}}]),
        api("gone").tombstone(NOW),
    ]
    keys = [key("a", masked="***abcde", expires_at=NOW), key("a", "old").tombstone(NOW)]
    await tell(bus, *rows, *keys)
    done = await agree(record, bus)
    assert (done.apis, done.published, done.adopted) == (1, 0, 4)
    taken = await record.api("a")
    assert taken is not None
    assert (taken.revision, taken.context, taken.display_name) == (1, "/a/v1.0", "a API")
    assert taken.event() == ApiPublished(revision=1, api=rows[0].event().api)  # type: ignore[attr-defined]
    gone = await record.api("gone")
    assert gone is not None
    assert (gone.retired, gone.revision) == (True, 2)
    (kept,) = await record.keys("a")
    assert kept.key == keys[0].key
    assert not await record.pending(10)  # the bus knows it all


async def test_revisions_count_on_after_everything_was_taken_over(
    record: Record, bus: MemoryBus
) -> None:
    await tell(bus, replace(api("a"), revision=7), replace(api("gone"), revision=8).tombstone(NOW))
    await agree(record, bus)

    def work(unit: UnitOfWork) -> list[int]:
        return [api(name, unit.hold(name)).revision for name in ("a", "gone")]

    assert await record.change(work) == [8, 10]


async def test_a_record_that_is_ahead_tells_the_bus(record: Record, bus: MemoryBus) -> None:
    await tell(bus, api("a"), key("a"))
    await told_long_ago(
        record, replace(api("a", context="/new"), revision=2), key("a").tombstone(NOW)
    )
    await agree(record, bus)
    assert revisions(await state_on(bus)) == {"a": 2, "a/mine": -2}


async def test_a_record_that_is_behind_takes_over_what_was_accepted(
    record: Record, bus: MemoryBus
) -> None:
    await told_long_ago(record, api("a"), api("b"), key("b"))
    await tell(
        bus,
        replace(api("a", context="/new"), revision=5),
        replace(api("b"), revision=5).tombstone(NOW),
        key("b").tombstone(NOW),
    )
    await agree(record, bus)
    row = await record.api("a")
    assert row is not None
    assert (row.revision, row.context) == (5, "/new")
    assert [one.handle for one in await record.apis(ApiFilter())] == ["a"]
    assert not await record.keys("b")


async def test_names_that_moved_between_apis_are_taken_over(record: Record, bus: MemoryBus) -> None:
    await told_long_ago(record, api("a", displayName="one"), api("b", displayName="two"))
    await tell(
        bus,
        replace(api("a", displayName="two"), revision=2),
        replace(api("b", displayName="one"), revision=2),
    )
    await agree(record, bus)
    names = {row.handle: row.display_name for row in await record.apis(ApiFilter())}
    assert names == {"a": "two", "b": "one"}


async def test_of_two_apis_of_one_name_the_one_on_record_stays(
    record: Record, bus: MemoryBus
) -> None:
    await told_long_ago(record, api("a", displayName="one"))
    await tell(bus, api("b", displayName="one"))
    await agree(record, bus)
    assert [row.handle for row in await record.apis(ApiFilter())] == ["a"]
    found = revisions(await state_on(bus))
    assert found["a"] == 1
    assert found["b"] < 0


async def test_the_same_revision_of_another_content_is_settled_by_the_record(
    record: Record, bus: MemoryBus
) -> None:
    await told_long_ago(record, api("a", context="/ours"), key("a", digest="1" * 64))
    await tell(bus, api("a", context="/theirs"), key("a", digest="2" * 64))
    await agree(record, bus)
    row = await record.api("a")
    assert row is not None
    assert (row.revision, row.context) == (2, "/ours")
    state = await state_on(bus)
    assert revisions(state) == {"a": 2, "a/mine": 2}
    (published,) = [one for one in state if isinstance(one, ApiPublished)]
    assert published.api.spec.context == "/ours"


async def test_a_row_that_is_not_valid_any_more_does_not_hold_up_the_others(
    record: Record, bus: MemoryBus
) -> None:
    await told_long_ago(record, api("a"), api("b"))
    broken = replace(api("a"), body='{"kind": "RestApi"}', revision=2)

    def work(unit: UnitOfWork) -> None:
        unit.put_api(broken)

    await record.change(work)
    await agree(record, bus)
    assert revisions(await state_on(bus)) == {"b": 1}


async def test_other_events_of_the_bus_are_left_alone(bus: MemoryBus) -> None:
    await bus.publish(RouterConnected(node="r1"))
    done = await reconcile(MemoryRecord(), bus)
    assert (done.published, done.adopted) == (0, 0)


async def test_what_waits_in_the_outbox_is_left_to_the_relay(
    record: Record, bus: MemoryBus
) -> None:
    await told_long_ago(record, api("a"))
    await put(record, replace(api("a"), revision=2), key("a"))
    done = await reconcile(record, bus)
    assert done.published == 0
    assert await state_on(bus) == []
    await agree(record, bus)
    assert revisions(await state_on(bus)) == {"a": 2, "a/mine": 1}


async def test_plans_subscriptions_and_applications_agree_too(
    record: Record, bus: MemoryBus
) -> None:
    gone = subscription("old").tombstone(NOW)
    await told_long_ago(record, plan(), gone, application(revision=4))
    await tell(bus, application(), subscription("s-2", 3), plan("Silver").tombstone(NOW))
    done = await agree(record, bus)
    assert (done.published, done.adopted) == (3, 2)
    assert revisions(await state_on(bus)) == {
        "subscription-plan/gold": 1,
        "subscription-plan/silver": -2,
        "subscription/weather/old": -2,
        "subscription/weather/s-2": 3,
        "application/shop": 4,
    }
    taken = await record.resource(Subscription, "s-2")
    assert taken is not None
    assert (taken.revision, taken.resource) == (3, subscription("s-2").resource)
    again = await agree(record, bus)
    assert (again.published, again.adopted) == (0, 0)


async def test_of_one_revision_with_two_contents_the_records_plan_wins(
    record: Record, bus: MemoryBus
) -> None:
    await told_long_ago(record, plan(status="INACTIVE"))
    await tell(bus, plan())
    assert (await agree(record, bus)).adopted == 1
    assert revisions(await state_on(bus)) == {"subscription-plan/gold": 2}
    kept = await record.resource(SubscriptionPlan, "gold")
    assert kept is not None
    assert (kept.revision, kept.resource.status) == (2, "INACTIVE")


async def test_a_name_that_moved_between_plans_is_taken_over(
    record: Record, bus: MemoryBus
) -> None:
    await told_long_ago(record, plan("Gold"), plan("Silver"))
    swapped = [plan("Gold", 2, plan_name="Silver"), plan("Silver", 2, plan_name="Gold")]
    await tell(bus, *swapped)
    assert (await agree(record, bus)).adopted == 2
    names = {
        one.resource.id: one.resource.plan_name
        for one in await record.resources(SubscriptionPlan, ResourceFilter())
    }
    assert names == {"gold": "Silver", "silver": "Gold"}
