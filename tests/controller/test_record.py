"""What every record promises."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from bus.events import ApiPublished, ApiRetired
from bus.resources.application import Application
from bus.resources.subscription import Subscription
from bus.resources.subscription_plan import SubscriptionPlan
from controller.errors import Conflict
from controller.model import ApiFilter, Counts, StoredApi
from controller.ports import Record, UnitOfWork
from controller.resources import ResourceFilter
from tests.controller.samples import NOW, api, application, key, plan, put, subscription


async def test_what_is_put_is_read_back_as_it_was(record: Record) -> None:
    row = api(deploymentState="undeployed", displayName="Wetter. 1-2_3")
    mine = key(expires_at=NOW, lifetime={"unit": "months", "duration": 2}, issuer="me")
    await put(record, row, mine)
    assert await record.api("weather") == row
    assert list(await record.keys("weather")) == [mine]
    assert await record.api("other") is None
    assert list(await record.keys("other")) == []


async def test_a_change_and_its_events_are_committed_together(record: Record) -> None:
    await put(record, api())
    (outgoing,) = await record.pending(10)
    assert outgoing.kind == ApiPublished.kind
    told = ApiPublished.model_validate_json(outgoing.body)
    assert (told.revision, told.api.spec.context) == (1, "/weather/v1.0")
    assert record.told.is_set()


async def test_a_change_that_fails_leaves_nothing(record: Record) -> None:
    def work(unit: UnitOfWork) -> None:
        unit.put_api(api())
        unit.put_key(key())
        unit.tell(api().event())
        raise Conflict("no")

    with pytest.raises(Conflict):
        await record.change(work)
    assert await record.api("weather") is None
    assert list(await record.keys("weather")) == []
    assert list(await record.pending(10)) == []
    assert not record.told.is_set()


async def test_a_unit_reads_what_it_has_written(record: Record) -> None:
    await put(record, api("old"), key("old"))

    def work(unit: UnitOfWork) -> None:
        unit.put_api(api())
        assert unit.hold("weather") == api()
        assert unit.named("weather API", "v1.0") == "weather"
        unit.put_key(key())
        assert [one.key.name for one in unit.keys("weather")] == ["mine"]
        before = unit.hold("old")
        assert before is not None
        unit.put_api(before.tombstone(NOW))
        assert unit.named("old API", "v1.0") is None

    await record.change(work)


async def test_a_unit_finds_who_is_deployed_on_a_context_in_any_case(record: Record) -> None:
    one, two = api("one", context="/Pay"), api("two", context="/pAY")
    await put(record, one, two, api("off", context="/pay", deploymentState="undeployed"))

    def found(unit: UnitOfWork) -> list[str]:
        return sorted(row.handle for row in unit.on_context("/pay"))

    assert await record.change(found) == ["one", "two"]

    def work(unit: UnitOfWork) -> list[list[str]]:
        seen = [found(unit)]
        unit.put_api(api("one", one, context="/other"))
        seen.append(found(unit))
        unit.put_api(two.tombstone(NOW))
        seen.append(found(unit))
        unit.put_api(api("three", context="/PAY"))
        return [*seen, found(unit)]

    assert await record.change(work) == [["one", "two"], ["two"], [], ["three"]]
    assert await record.change(found) == ["three"]


async def test_the_outbox_keeps_its_order_and_its_ids_until_it_is_forgotten(record: Record) -> None:
    row: StoredApi | None = None
    for _ in range(5):
        row = api(before=row)
        await put(record, row)
    first = await record.pending(3)
    assert [ApiPublished.model_validate_json(one.body).revision for one in first] == [1, 2, 3]
    assert list(await record.pending(3)) == list(first)
    assert len({one.event_id for one in await record.pending(10)}) == 5
    numbers = [one.number for one in first]
    rest = await record.pending(10, numbers)
    assert [ApiPublished.model_validate_json(one.body).revision for one in rest] == [4, 5]
    await record.forget(numbers)
    assert list(await record.pending(10)) == list(rest)


async def test_a_tombstone_stays_and_frees_the_name(record: Record) -> None:
    await put(record, api())
    gone = api().tombstone(NOW)
    await put(record, gone)
    assert await record.api("weather") == gone
    assert list(await record.apis(ApiFilter())) == []
    events = await record.pending(10)
    assert events[-1].kind == ApiRetired.kind

    def work(unit: UnitOfWork) -> str | None:
        return unit.named("weather API", "v1.0")

    assert await record.change(work) is None
    other = api("other", displayName="weather API")
    await put(record, other)
    assert await record.change(work) == "other"


async def test_lists_are_filtered_and_oldest_first(record: Record) -> None:
    for hour, (name, state) in enumerate(
        (("c", "deployed"), ("a", "undeployed"), ("b", "deployed"))
    ):
        row = api(name, deploymentState=state)
        await put(record, replace(row, created_at=NOW.replace(hour=hour)))

    async def names(**wanted: str) -> list[str]:
        return [one.handle for one in await record.apis(ApiFilter(**wanted))]

    assert await names() == ["c", "a", "b"]
    assert await names(state="deployed") == ["c", "b"]
    assert await names(display_name="a API") == ["a"]
    assert await names(version="v2") == []
    assert await names(context="/b/v1.0") == ["b"]
    assert await names(context="/b/v1.0", state="undeployed") == []


async def test_counts_and_version_follow_every_change(record: Record) -> None:
    assert await record.counts() == Counts(0, 0, 0)
    assert await record.version() == 0
    await put(record, api(), api("off", deploymentState="undeployed"), key(), key(name="more"))
    assert await record.counts() == Counts(1, 1, 2)
    assert await record.version() == 4
    await put(record, api().tombstone(NOW), key().tombstone(NOW))
    assert await record.counts() == Counts(0, 1, 1)
    assert await record.version() == 6
    await put(record, plan(), plan("Silver"), application(), subscription(revision=3))
    kinds = {"subscription-plan": 2, "application": 1, "subscription": 1}
    assert await record.counts() == Counts(0, 1, 1, kinds)
    assert await record.version() == 12
    await put(record, plan().tombstone(NOW))
    assert (await record.counts()).resources == kinds | {"subscription-plan": 1}
    assert await record.version() == 13


async def test_everything_holds_tombstones_too(record: Record) -> None:
    rows = [api("a").tombstone(NOW), api("b")]
    keys = [key("a").tombstone(NOW), key("b")]
    await put(record, *rows, *keys)
    resources = [plan().tombstone(NOW), subscription(), application()]
    await put(record, *resources)
    apis_read, keys_read, resources_read = await record.everything()
    assert sorted(resources_read, key=lambda one: one.kind) == sorted(
        resources, key=lambda one: one.kind
    )
    assert sorted(apis_read, key=lambda one: one.handle) == rows
    assert sorted(keys_read, key=lambda one: one.key.api_id) == keys


async def test_concurrent_changes_of_one_handle_are_counted_one_by_one(record: Record) -> None:
    def work(unit: UnitOfWork) -> int:
        row = api(before=unit.hold("weather"))
        unit.put_api(row)
        unit.tell(row.event())
        return row.revision

    revisions = await asyncio.gather(*(record.change(work) for _ in range(40)))
    assert sorted(revisions) == list(range(1, 41))
    events = await record.pending(100)
    told = [ApiPublished.model_validate_json(one.body).revision for one in events]
    assert told == list(range(1, 41))


async def test_a_plan_a_subscription_and_an_application_are_read_back(record: Record) -> None:
    gold = plan(throttle_limit_count=5, throttle_limit_unit="Day", expiry_time=NOW)
    shop = application(owner="ann", attributes={"tier": "1"}, description="sells things")
    one = subscription(
        application_id="shop", subscription_plan_id="gold", billing_customer_id="c", created_at=NOW
    )
    await put(record, gold, shop, one)
    assert await record.resource(SubscriptionPlan, "gold") == gold
    assert await record.resource(Application, "shop") == shop
    assert await record.resource(Subscription, "s-1") == one
    assert await record.resource(Subscription, "gold") is None
    kinds = [one.kind for one in await record.pending(9)]
    assert kinds == [
        "subscription-plan.published",
        "application.published",
        "subscription.published",
    ]
    gone = one.tombstone(NOW)
    await put(record, gone)
    assert await record.resource(Subscription, "s-1") == gone
    assert list(await record.resources(Subscription, ResourceFilter())) == []


async def test_a_unit_finds_plans_and_subscriptions_by_what_is_unique(record: Record) -> None:
    await put(record, plan(), subscription())

    def work(unit: UnitOfWork) -> None:
        assert unit.resource_named(SubscriptionPlan, "Gold") == "gold"
        assert unit.resource_named(SubscriptionPlan, "gold") is None
        assert unit.resource_named(Application, "Gold") is None
        assert unit.resource_named(Subscription, "weather", "digest of s-1") == "s-1"
        assert unit.resource_named(Subscription, "other", "digest of s-1") is None
        before = unit.hold_resource(SubscriptionPlan, "gold")
        assert before is not None
        renamed = before.resource.model_copy(update={"plan_name": "Golden"})
        unit.put_resource(before.changed(renamed, NOW))
        assert unit.resource_named(SubscriptionPlan, "Gold") is None
        assert unit.resource_named(SubscriptionPlan, "Golden") == "gold"
        unit.put_resource(plan("Silver"))
        assert unit.resource_named(SubscriptionPlan, "Silver") == "silver"
        assert unit.hold_resource(SubscriptionPlan, "bronze") is None

    await record.change(work)

    def after(unit: UnitOfWork) -> str | None:
        before = unit.hold_resource(SubscriptionPlan, "gold")
        assert before is not None
        unit.put_resource(before.tombstone(NOW))
        return unit.resource_named(SubscriptionPlan, "Golden")

    assert await record.change(after) is None


async def test_subscriptions_are_found_by_what_they_refer_to(record: Record) -> None:
    rows = [
        subscription("a", application_id="shop"),
        subscription("b", subscription_plan_id="gold"),
        subscription("c", api_id="pets", application_id="shop", subscription_plan_id="gold"),
        subscription("d", subscription_plan_id="gold").tombstone(NOW),
    ]
    rows[1] = replace(rows[1], created_at=NOW - timedelta(hours=1))
    await put(record, plan(), *rows)

    async def names(**wanted: str) -> list[str]:
        found = await record.resources(Subscription, ResourceFilter(**wanted))
        return [one.resource.id for one in found]

    assert await names() == ["b", "a", "c"]
    assert await names(api="weather") == ["b", "a"]
    assert await names(plan="gold") == ["b", "c"]
    assert await names(application="shop") == ["a", "c"]
    assert await names(application="shop", plan="gold", api="pets") == ["c"]
    assert await names(api="Weather") == []

    def work(unit: UnitOfWork) -> list[str]:
        unit.put_resource(subscription("e", subscription_plan_id="gold"))
        found = unit.resources(Subscription, ResourceFilter(plan="gold"))
        return [one.resource.id for one in found]

    assert await record.change(work) == ["b", "c", "e"]


async def test_keys_are_found_by_their_application(record: Record) -> None:
    mine, other = key("a", "one", application="Shop"), key("b", "two", application="shop")
    gone = key("b", "three", application="Shop").tombstone(NOW)
    await put(record, api("a"), api("b"), mine, other, gone, key("b", "four", application="X"))
    assert list(await record.keys_called(("Shop", "shop"))) == [mine, other]
    assert list(await record.keys_called(("shop",))) == [other]
    assert list(await record.keys_called(())) == []
