"""Plans, subscriptions and applications on record: one row shape for all of them."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Generic, Self, TypeVar

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

Resource = SubscriptionPlan | Subscription | Application
R = TypeVar("R", SubscriptionPlan, Subscription, Application)
Identity = tuple[str, ...]  # as in the subject of its events: the kind first, its id last
ResourceEvent = (
    SubscriptionPlanPublished
    | SubscriptionPlanRetired
    | SubscriptionPublished
    | SubscriptionRetired
    | ApplicationPublished
    | ApplicationRetired
)

KINDS: dict[type[Resource], str] = {
    SubscriptionPlan: "subscription-plan",
    Subscription: "subscription",
    Application: "application",
}
"""How each is called on the bus and in the tables."""


@dataclass(frozen=True, slots=True)
class StoredResource(Generic[R]):
    """One of them, or the tombstone of one that was deleted."""

    revision: int  # counts its changes
    resource: R
    created_at: datetime
    updated_at: datetime
    retired: bool = False

    @property
    def kind(self) -> str:
        """See KINDS."""
        return KINDS[type(self.resource)]

    @property
    def identity(self) -> Identity:
        """What it is, as in the subject of its events."""
        if isinstance(self.resource, Subscription):
            return (self.kind, self.resource.api_id, self.resource.id)
        return (self.kind, self.resource.id)

    @property
    def unique(self) -> tuple[str, ...]:
        """What no two live ones of a kind have in common."""
        match self.resource:
            case SubscriptionPlan(plan_name=name):
                return (name,)
            case Subscription(api_id=api_id, digest=digest):
                return (api_id, digest)
            case Application(name=name):
                return (name,)
        raise TypeError(self.resource)

    @property
    def api(self) -> str | None:
        """The API that it belongs to."""
        return self.resource.api_id if isinstance(self.resource, Subscription) else None

    @property
    def plan(self) -> str | None:
        """The plan that it refers to."""
        one = self.resource
        return one.subscription_plan_id if isinstance(one, Subscription) else None

    @property
    def application(self) -> str | None:
        """The application that it refers to."""
        one = self.resource
        return one.application_id if isinstance(one, Subscription) else None

    def changed(self, resource: R, now: datetime) -> Self:
        """The row after a change."""
        return replace(self, revision=self.revision + 1, resource=resource, updated_at=now)

    def tombstone(self, now: datetime) -> Self:
        """The row after it was deleted."""
        return replace(self, revision=self.revision + 1, updated_at=now, retired=True)

    def event(self) -> Event:
        """What the gateway is told about this row."""
        revision = self.revision
        match self.resource:
            case SubscriptionPlan(id=name) as plan:
                if self.retired:
                    return SubscriptionPlanRetired(revision=revision, plan_id=name)
                return SubscriptionPlanPublished(revision=revision, plan=plan)
            case Subscription(id=name, api_id=api_id) as subscription:
                if self.retired:
                    return SubscriptionRetired(
                        revision=revision, api_id=api_id, subscription_id=name
                    )
                return SubscriptionPublished(revision=revision, subscription=subscription)
            case Application(id=name) as application:
                if self.retired:
                    return ApplicationRetired(revision=revision, application_id=name)
                return ApplicationPublished(revision=revision, application=application)
        raise TypeError(self.resource)


AnyResource = (
    StoredResource[SubscriptionPlan] | StoredResource[Subscription] | StoredResource[Application]
)


def row_of(event: ResourceEvent, before: AnyResource | None, now: datetime) -> AnyResource:
    """The row that `event` tells of."""
    revision = event.revision
    created_at = before.created_at if before is not None else now
    match event:
        case SubscriptionPlanPublished(plan=plan):
            return StoredResource(revision, plan, created_at, now)
        case SubscriptionPublished(subscription=subscription):
            return StoredResource(revision, subscription, created_at, now)
        case ApplicationPublished(application=application):
            return StoredResource(revision, application, created_at, now)
    gone = before if before is not None else _never_seen(event, now)
    return replace(gone, revision=revision, updated_at=now, retired=True)


def _never_seen(event: ResourceEvent, now: datetime) -> AnyResource:
    """A row that stands for something of which only the end is known."""
    *_, name = event.key
    match event:
        case SubscriptionPlanRetired():
            return StoredResource(0, SubscriptionPlan(id=name, plan_name=name), now, now)
        case SubscriptionRetired(api_id=api_id):
            return StoredResource(0, Subscription(id=name, api_id=api_id, digest=""), now, now)
        case _:
            return StoredResource(0, Application(id=name, name=name[:100]), now, now)


@dataclass(frozen=True, slots=True)
class ResourceFilter:
    """Which ones a listing shows, by what they refer to; None does not filter."""

    api: str | None = None
    plan: str | None = None
    application: str | None = None

    def admits(self, row: AnyResource) -> bool:
        """Whether the listing shows `row`."""
        return not row.retired and all(
            wanted is None or wanted == actual
            for wanted, actual in (
                (self.api, row.api),
                (self.plan, row.plan),
                (self.application, row.application),
            )
        )
