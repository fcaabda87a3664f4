"""Who may call which API by subscription: a fold over plans, subscriptions and applications."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Generic, TypeVar

from bus.events import (
    ApplicationPublished,
    ApplicationRetired,
    Event,
    SubscriptionPlanPublished,
    SubscriptionPlanRetired,
    SubscriptionPublished,
    SubscriptionRetired,
)
from bus.resources.application import Application
from bus.resources.subscription import Subscription
from bus.resources.subscription_plan import SubscriptionPlan
from policy_engine.subscriptions import Quota, Subscriber

_T = TypeVar("_T")
_NEVER = datetime.min.replace(tzinfo=UTC)
_Known = dict[str, tuple[int, _T | None]]  # id -> revision, and the thing unless it is gone


@dataclass(slots=True)
class _Users(Generic[_T]):
    """Things that subscriptions refer to, and the APIs of those that do."""

    known: _Known[_T] = field(default_factory=dict)
    apis: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """By id; an API stays in when its last subscription is gone: compiling it costs little."""

    def get(self, name: str | None) -> _T | None:
        """The thing of that id, if there is one."""
        return self.known.get(name or "", (0, None))[1]

    def used(self, name: str | None, api_id: str) -> None:
        """A subscription to the API refers to the thing of that id."""
        if name is not None:
            self.apis[name].add(api_id)

    def take(self, name: str, revision: int, thing: _T | None) -> frozenset[str]:
        """The APIs that a new shape of the thing changes; none if it is stale."""
        if not _newer(self.known, name, revision, thing):
            return frozenset()
        return frozenset(self.apis.get(name, ()))


def _newer(known: _Known[_T], name: str, revision: int, thing: _T | None) -> bool:
    if name in known and known[name][0] >= revision:
        return False
    known[name] = (revision, thing)
    return True


@dataclass(slots=True)
class Subscriptions:
    """All of them. Only `apply` changes them."""

    _plans: _Users[SubscriptionPlan] = field(default_factory=_Users)
    _applications: _Users[Application] = field(default_factory=_Users)
    _of_api: dict[str, _Known[Subscription]] = field(default_factory=lambda: defaultdict(dict))
    _asked: datetime = _NEVER  # when `expired` was last asked

    def apply(self, event: Event) -> frozenset[str]:
        """Take `event` in; the APIs it changed. Stale, repeated and foreign events: none."""
        match event:
            case SubscriptionPublished(revision=revision, subscription=one):
                self._plans.used(one.subscription_plan_id, one.api_id)
                self._applications.used(one.application_id, one.api_id)
                return self._subscription(one.api_id, one.id, revision, one)
            case SubscriptionRetired(revision=revision, api_id=api_id, subscription_id=gone):
                return self._subscription(api_id, gone, revision, None)
            case SubscriptionPlanPublished() | SubscriptionPlanRetired():
                plan = event.plan if isinstance(event, SubscriptionPlanPublished) else None
                return self._plans.take(event.key[-1], event.revision, plan)
            case ApplicationPublished() | ApplicationRetired():
                known = event.application if isinstance(event, ApplicationPublished) else None
                return self._applications.take(event.key[-1], event.revision, known)
            case _:
                return frozenset()

    def live(self, api_id: str, now: datetime) -> tuple[Subscriber, ...]:
        """The subscriptions that open the API at `now`, oldest first."""
        found = [
            one
            for _, one in self._of_api.get(api_id, {}).values()
            if one is not None and one.status == "ACTIVE" and self._plan_is_live(one, now)
        ]
        found.sort(key=lambda one: (one.created_at.timestamp() if one.created_at else 0, one.id))
        return tuple(self._subscriber(one) for one in found)

    @property
    def next_expiry(self) -> datetime | None:
        """When a plan expires that `expired` has not told of."""
        return min((one for one, _ in self._expiries()), default=None)

    def expired(self, now: datetime) -> frozenset[str]:
        """The APIs of which a plan expired by `now` since this was last asked."""
        plans = [plan_id for at, plan_id in self._expiries() if at <= now]
        self._asked = now
        return frozenset(api_id for one in plans for api_id in self._plans.apis.get(one, ()))

    def _expiries(self) -> Iterator[tuple[datetime, str]]:
        for plan_id, (_, plan) in self._plans.known.items():
            if plan is not None and plan.expiry_time is not None and plan.expiry_time > self._asked:
                yield plan.expiry_time, plan_id

    def _plan_is_live(self, one: Subscription, now: datetime) -> bool:
        if one.subscription_plan_id is None:
            return True
        plan = self._plans.get(one.subscription_plan_id)
        return plan is not None and plan.live(now)

    def _subscriber(self, one: Subscription) -> Subscriber:
        plan = self._plans.get(one.subscription_plan_id)
        application = self._applications.get(one.application_id)
        callers = application.callers if application else (one.application_id or "",)
        return Subscriber(
            id=one.id,
            digest=one.digest,
            application=application.name if application else one.application_id or "",
            callers=tuple(name for name in callers if name),
            plan=plan.id if plan else "",
            quota=_quota(plan) if plan else None,
        )

    def _subscription(
        self, api_id: str, name: str, revision: int, one: Subscription | None
    ) -> frozenset[str]:
        changed = _newer(self._of_api[api_id], name, revision, one)
        return frozenset({api_id}) if changed else frozenset()


def _quota(plan: SubscriptionPlan) -> Quota | None:
    if plan.throttle_limit_count is None or plan.throttle_limit_unit is None:
        return None
    return Quota(
        plan.id,
        plan.throttle_limit_count,
        plan.throttle_limit_unit,
        plan.stop_on_quota_reach,
        plan.time_zone,
    )
