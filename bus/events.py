"""Event types: past tense, whole state, registered by being written.

The JSON body of a message is the event; who, when and which are CloudEvents attributes
(`bus.envelope`). Readers ignore fields they do not know, so that a newer sender is understood.
"""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from bus.errors import UnknownEvent
from bus.resources.api_key import ApiKey
from bus.resources.application import Application
from bus.resources.rest_api import RestApi
from bus.resources.subscription import Subscription
from bus.resources.subscription_plan import SubscriptionPlan
from bus.subjects import Family, subject

_KINDS: dict[str, "type[Event]"] = {}


class Event(BaseModel):
    """Something that happened, addressed to one gateway of one organization."""

    model_config = ConfigDict(frozen=True, extra="ignore")
    kind: ClassVar[str]
    family: ClassVar[Family]

    org: str = "default"
    gateway: str = "default"

    def __init_subclass__(cls, kind: str = "", family: Family | None = None) -> None:
        super().__init_subclass__()
        if family is not None:
            cls.family = family
        if kind:
            cls.kind = kind
            _KINDS[kind] = cls

    @property
    def key(self) -> tuple[str, ...]:
        """The tokens after the family; events with the same key replace each other in a state."""
        raise NotImplementedError

    @property
    def subject(self) -> str:
        """Where the event is published."""
        return subject(self.org, self.gateway, self.family, *self.key)


def event_class(kind: str) -> type[Event]:
    """The class registered for `kind`. Raises UnknownEvent."""
    try:
        return _KINDS[kind]
    except KeyError:
        raise UnknownEvent(kind) from None


def event_classes() -> tuple[type[Event], ...]:
    """All registered event classes, by kind."""
    return tuple(_KINDS[kind] for kind in sorted(_KINDS))


# -- state: what the gateway should be ---------------------------------------------------------


class ApiPublished(Event, kind="rest-api.published", family=Family.STATE):
    """A REST API is to be served in this shape. Replaces any earlier revision of it."""

    revision: int  # counts the changes of this handle, also across a delete; the higher wins
    api: RestApi  # rendered: `$version` and templates are resolved

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by API."""
        return ("rest-api", self.api.id)


class ApiRetired(Event, kind="rest-api.retired", family=Family.STATE):
    """A REST API is no longer to be served."""

    revision: int
    api_id: str

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by API, so that it replaces the last publication."""
        return ("rest-api", self.api_id)


class ApiKeyIssued(Event, kind="api-key.issued", family=Family.STATE):
    """A key opens an API. Replaces any earlier shape of the key."""

    revision: int  # counts the changes of this key
    api_key: ApiKey

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by API and key name."""
        return ("api-key", self.api_key.api_kind, self.api_key.api_id, self.api_key.name)


class ApiKeyRevoked(Event, kind="api-key.revoked", family=Family.STATE):
    """A key opens nothing any more."""

    revision: int
    api_kind: str
    api_id: str
    name: str

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by API and key name, so that it replaces the issue."""
        return ("api-key", self.api_kind, self.api_id, self.name)


class SubscriptionPlanPublished(Event, kind="subscription-plan.published", family=Family.STATE):
    """Subscriptions may have this plan. Replaces any earlier shape of it."""

    revision: int  # counts the changes of this plan
    plan: SubscriptionPlan

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by plan."""
        return ("subscription-plan", self.plan.id)


class SubscriptionPlanRetired(Event, kind="subscription-plan.retired", family=Family.STATE):
    """A plan is gone; no subscription to it is live."""

    revision: int
    plan_id: str

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by plan, so that it replaces the last publication."""
        return ("subscription-plan", self.plan_id)


class SubscriptionPublished(Event, kind="subscription.published", family=Family.STATE):
    """Somebody has subscribed to an API. Replaces any earlier shape of the subscription."""

    revision: int  # counts the changes of this subscription
    subscription: Subscription

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by API and subscription."""
        return ("subscription", self.subscription.api_id, self.subscription.id)


class SubscriptionRetired(Event, kind="subscription.retired", family=Family.STATE):
    """A subscription is gone."""

    revision: int
    api_id: str
    subscription_id: str

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by API and subscription, so that it replaces the last publication."""
        return ("subscription", self.api_id, self.subscription_id)


class ApplicationPublished(Event, kind="application.published", family=Family.STATE):
    """An application may have keys and subscriptions. Replaces any earlier shape of it."""

    revision: int  # counts the changes of this application
    application: Application

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by application."""
        return ("application", self.application.id)


class ApplicationRetired(Event, kind="application.retired", family=Family.STATE):
    """An application is gone."""

    revision: int
    application_id: str

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by application, so that it replaces the last publication."""
        return ("application", self.application_id)


class RecordPublished(Event, kind="record.published", family=Family.STATE):
    """All that is on record has been published before this: the state is whole.

    Until it was seen, a follower knows nothing by the absence of an API.
    """

    apis: int  # how many APIs the record held

    @property
    def key(self) -> tuple[str, ...]:
        """One per gateway."""
        return ("record",)


# -- router: what the routers made of it -------------------------------------------------------


class RouterConnected(Event, kind="router.connected", family=Family.ROUTER):
    """A router has opened its configuration stream."""

    node: str  # Envoy's node id
    version: str = ""  # Envoy's build version

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by router."""
        return (self.node,)


class RouterDisconnected(Event, kind="router.disconnected", family=Family.ROUTER):
    """A router's configuration stream has ended; it keeps serving what it has."""

    node: str

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by router."""
        return (self.node,)


class ConfigurationApplied(Event, kind="router.applied", family=Family.ROUTER):
    """A router acknowledged these revisions: it serves them now (or has removed them)."""

    node: str
    revisions: dict[str, int]  # API handle -> revision now in force
    complete: bool = False  # whether `revisions` is all that the router has

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by router."""
        return (self.node,)


class ConfigurationRejected(Event, kind="router.rejected", family=Family.ROUTER):
    """A revision of one API is not served; its last good one, if any, is."""

    node: str  # the router that refused, or "" when it could not even be compiled
    api_id: str
    revision: int
    reason: str  # Envoy's own words, or the compiler's

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by router."""
        return (self.node or "compiler",)


class PolicyFaultsFound(Event, kind="router.policy-faults", family=Family.ROUTER):
    """Files of policies that APIs use are broken or gone: all of them, and none beside them.

    The last good version of a policy goes on, if there was one.
    """

    faults: dict[str, str]  # policy -> what is wrong with its file, with the traceback
    apis: dict[str, tuple[str, ...]]  # API handle -> those of the policies that it uses

    @property
    def key(self) -> tuple[str, ...]:
        """One per gateway; a router's key is a single token."""
        return ("policies", "faults")


# -- command: what is asked of others ----------------------------------------------------------


class RouterReportRequested(Event, kind="command.router-report", family=Family.COMMAND):
    """Tell again, in full, what every connected router serves."""

    @property
    def key(self) -> tuple[str, ...]:
        """One for all."""
        return ("router-report",)


# -- dead letter -------------------------------------------------------------------------------


class DeadLettered(Event, kind="dead-letter.recorded", family=Family.DEAD_LETTER):
    """A message that its consumer could not deal with, kept with the reason."""

    consumer: str
    reason: str
    original_subject: str
    headers: dict[str, str]
    body: str  # the original body; base64 when it is not UTF-8
    body_encoding: str = "utf-8"  # or base64

    @property
    def key(self) -> tuple[str, ...]:
        """Keyed by consumer."""
        return (self.consumer,)
