"""The fold over plans, subscriptions and applications."""

from datetime import UTC, datetime, timedelta
from typing import Any

from bus.events import (
    ApplicationPublished,
    ApplicationRetired,
    SubscriptionPlanPublished,
    SubscriptionPlanRetired,
    SubscriptionPublished,
    SubscriptionRetired,
)
from bus.resources.application import Application
from bus.resources.subscription import Subscription
from bus.resources.subscription_plan import SubscriptionPlan
from policy_engine.subscriptions import Quota, Subscriber
from xds.model import Model

NOW = datetime(2030, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def plan(revision: int = 1, **fields: Any) -> SubscriptionPlanPublished:
    facts = {"id": "gold", "plan_name": "Gold"} | fields
    return SubscriptionPlanPublished(revision=revision, plan=SubscriptionPlan(**facts))


def subscription(revision: int = 1, name: str = "s1", **fields: Any) -> SubscriptionPublished:
    facts = {"id": name, "api_id": "shop", "digest": f"digest of {name}"} | fields
    return SubscriptionPublished(revision=revision, subscription=Subscription(**facts))


def live(model: Model, at: datetime = NOW) -> list[str]:
    return [one.id for one in model.subscriptions.live("shop", at)]


def test_a_subscription_opens_its_api_while_it_is_active() -> None:
    model = Model()
    assert model.apply(subscription()) == {"shop"}
    assert model.subscriptions.live("shop", NOW) == (Subscriber("s1", "digest of s1"),)
    assert model.subscriptions.live("other", NOW) == ()
    for revision, status in enumerate(("INACTIVE", "ACTIVE", "REVOKED"), 2):
        assert model.apply(subscription(revision, status=status)) == {"shop"}
        assert live(model) == (["s1"] if status == "ACTIVE" else [])
    assert model.apply(subscription(3)) == frozenset()
    assert live(model) == []
    gone = SubscriptionRetired(revision=5, api_id="shop", subscription_id="s1")
    assert model.apply(gone) == {"shop"}
    assert model.apply(subscription(4)) == frozenset()
    assert live(model) == []


def test_a_change_of_a_plan_changes_the_apis_of_its_subscriptions_and_no_others() -> None:
    model = Model()
    assert model.apply(plan()) == frozenset()
    model.apply(subscription(subscription_plan_id="gold"))
    model.apply(subscription(name="s2", api_id="pets"))
    limited = {"throttle_limit_count": 5, "throttle_limit_unit": "Min"}
    assert model.apply(plan(2, **limited)) == {"shop"}
    assert model.apply(plan(2)) == frozenset()
    (one,) = model.subscriptions.live("shop", NOW)
    assert (one.plan, one.quota) == ("gold", Quota("gold", 5, "Min"))
    assert model.apply(plan(3, stop_on_quota_reach=False, **limited)) == {"shop"}
    (one,) = model.subscriptions.live("shop", NOW)
    assert one.quota == Quota("gold", 5, "Min", stop=False)
    assert model.apply(plan(4, status="INACTIVE")) == {"shop"}
    assert live(model) == []


def test_a_subscription_to_an_unknown_or_retired_plan_is_closed() -> None:
    model = Model()
    model.apply(subscription(subscription_plan_id="gold"))
    assert live(model) == []
    assert model.apply(plan()) == {"shop"}  # whichever is told first
    assert live(model) == ["s1"]
    assert model.apply(SubscriptionPlanRetired(revision=2, plan_id="gold")) == {"shop"}
    assert live(model) == []


def test_a_plan_expires_without_an_event() -> None:
    model = Model()
    model.apply(subscription(subscription_plan_id="gold"))
    model.apply(plan(expiry_time=NOW + HOUR))
    assert model.next_expiry == NOW + HOUR
    assert live(model, NOW + HOUR - timedelta(microseconds=1)) == ["s1"]
    assert live(model, NOW + HOUR) == []
    assert model.expired(NOW) == frozenset()
    assert model.expired(NOW + HOUR) == {"shop"}
    assert model.next_expiry is None
    assert model.expired(NOW + HOUR) == frozenset()
    model.apply(plan(2, expiry_time=NOW + 2 * HOUR))
    assert model.next_expiry == NOW + 2 * HOUR
    assert live(model, NOW + HOUR) == ["s1"]


def test_the_oldest_subscription_comes_first() -> None:
    model = Model()
    model.apply(subscription(name="a", created_at=NOW + HOUR))
    model.apply(subscription(name="b", created_at=NOW))
    assert live(model) == ["b", "a"]


def test_an_application_is_known_by_its_id_and_its_name() -> None:
    model = Model()
    model.apply(subscription(application_id="app-1"))
    (one,) = model.subscriptions.live("shop", NOW)
    assert (one.application, one.callers) == ("app-1", ("app-1",))
    shop = Application(id="app-1", name="Shop")
    assert model.apply(ApplicationPublished(revision=1, application=shop)) == {"shop"}
    (one,) = model.subscriptions.live("shop", NOW)
    assert (one.application, one.callers) == ("Shop", ("app-1", "Shop"))
    assert model.apply(ApplicationRetired(revision=2, application_id="app-1")) == {"shop"}
    (one,) = model.subscriptions.live("shop", NOW)
    assert one.callers == ("app-1",)
